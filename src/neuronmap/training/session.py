"""The state of a run between two steps, and the step itself.

Shapes: B rows of a batch, D = d_in, F = d_sae.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronmap.activations import ActivationStore, ActivationStream
from neuronmap.errors import MismatchError, TrainingDivergedError
from neuronmap.saes import SparseAutoencoder, StepLoss, StepState, Workspace
from neuronmap.saes.kernels.choice import describe, rounds_products, screens_products
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.meter import ReconstructionMeter, ReconstructionMetrics
from neuronmap.saes.topk import TopKFamily
from neuronmap.training.batches import Batches, on_device
from neuronmap.training.checkpoint import gather_checkpoint, has_checkpoint, save_checkpoint
from neuronmap.training.config import SAEConfig
from neuronmap.training.data import TrainingData
from neuronmap.training.dead import DeadFeatures, resample
from neuronmap.training.ordering import FrequencyOrder
from neuronmap.training.parallel.pieces import Placing, whole_sae
from neuronmap.training.parallel.split import combine
from neuronmap.training.parallel.team import Team
from neuronmap.training.parallel.view import WholeView
from neuronmap.training.parameters import ParameterStep
from neuronmap.training.plan import Plan
from neuronmap.training.schedules import Schedule

__all__ = ["Look", "Session", "measure_heldout"]

Look = Callable[[Tensor | SparseCode, ReconstructionMeter], None]
"""What is shown the codes of held-out rows while they are measured."""

_EXPLODED = 1e3
"""A reconstruction error of a thousand times the input's energy (which is 1) is divergence, not learning."""

WORTH_TELLING = 0.05
"""Share of the time spent waiting for rows from which on a run says so."""

_WATCH_EVERY = 16
"""Steps between looks at figures that live on a GPU: each look waits for the GPU. On a CPU every step looks.

What is looked at: whether loss and gradient are finite, which features are dead (in between, AuxK works on those of the last look),
and how many were active. A step of the top-k family asks the device for nothing else.
"""


class Session:
    """One run in progress: the SAE, its optimiser, and every counter that a checkpoint has to hold.

    Args:
        config, plan, data: the run's configuration, derived numbers and rows.
        sae: the SAE, initialised, on scaled inputs.
        batches: the shuffled batches, already scaled.
        scale: the scalar inputs are multiplied by.
        checkpoints: folder for checkpoints.
        workspace: scratch space; one of its own when left out. SAEs that take turns may share buffers (:meth:`Workspace.beside`).
        team: the processes that share each batch, this one among them; this one alone when left out. Then the workspace is left out.
    """

    def __init__(
        self,
        config: SAEConfig,
        plan: Plan,
        data: TrainingData,
        sae: SparseAutoencoder,
        batches: Batches,
        scale: float,
        checkpoints: Path,
        workspace: Workspace | None = None,
        team: Team | None = None,
    ) -> None:
        self.team = team = team or Team()
        self.config, self.plan, self.data, self.sae, self.batches, self.scale = config, plan, data, sae, batches, scale
        self.checkpoints = checkpoints
        self.schedule = Schedule(
            config, plan.steps, plan.peak_rate, getattr(sae.options, "k", None), sae.whole_d_sae, sae.sparsity_warmup
        )
        self.dead = DeadFeatures(sae.d_sae, plan.dead_window, sae.device, team.features)
        self.workspace = workspace or Workspace(
            sae.device,
            kernels=config.kernels,
            products=config.products,
            screens=screens_products(config.compute_dtype),
            ranks=team.rows,
            features=team.features,
            everyone=team,
        )
        rounds = rounds_products(config.compute_dtype, config.kernels, sae.device, isinstance(sae, TopKFamily))
        self.clip_norm = sae.clip_norm if config.clip_norm == "auto" else config.clip_norm
        self.parameters = ParameterStep(
            sae, config.adam_epsilon, self.clip_norm, self.workspace, rounds=rounds, team=team
        )
        self.placing = Placing(sae, self.parameters.shares, team)
        self.order = FrequencyOrder(sae) if getattr(sae.options, "sort_features", False) else None
        self.step = 0
        self.seconds = 0.0
        self.waited = 0.0
        self.variance = float(data.rows.statistics.variance_D.sum()) * scale**2
        self.gradient_norm = torch.zeros(())
        self.active_share: float | None = None
        self._x_BD: Tensor | None = None
        self._paths_told: set[str] = set()

    # --- one step ------------------------------------------------------------------------------------------------

    def train_step(self) -> StepLoss:
        """Take a batch (of several processes: this one's share of it), compute the gradients, clip, project, step, renormalise, count.

        Raises:
            TrainingDivergedError: when input, loss or gradient is not finite; on a CPU before the weights are touched, on a
                GPU, which is looked at every 16 steps only, up to 16 steps later.
        """
        started = time.perf_counter()
        before = self.batches.waited_seconds
        x_BD = self._x_BD = self._next_batch()
        self.waited += self.batches.waited_seconds - before
        watched = self._watched
        if watched:
            self.dead.look()
        state = StepState(
            step=self.step,
            sparsity_scale=self.schedule.sparsity_scale(self.step),
            k=self.schedule.active_k(self.step),
            dead_F=self.dead.mask(),
            dead_M=self.dead.dead_M,
            active_share=self.active_share,
            unit_rows=self.parameters.leaves_unit_rows,
            rounded_W_enc=self.parameters.rounded_W_enc,
        )
        loss = self.sae.loss_and_gradients(x_BD, state, self.workspace)
        combine(loss, self.sae, self.team, self.parameters)
        rows = len(x_BD) * self.team.rows.count
        if watched:
            self._check_finite(x_BD, loss)
        norm = None
        if self.clip_norm is not None:
            norm = self.gradient_norm = self.parameters.gradient_norm()
            if watched and not math.isfinite(float(norm)):
                raise self._diverged(f"the gradient's norm is {float(norm)}")
        self.parameters.apply(self.schedule.learning_rate(self.step), norm)
        self.sae.after_step(loss, state)
        self.dead.update(loss, rows)
        if watched:
            self.active_share = self._firings(loss) / (rows * self.sae.whole_d_sae)
        self.step += 1
        if self.order is not None:
            self.order.update(loss, rows)
            self.order.restore_order(self.step, self.parameters, self.dead)
        self.seconds += time.perf_counter() - started
        return loss

    def _firings(self, loss: StepLoss) -> float:
        """Active entries of the batch, of all features."""
        return float(self.team.features.sum_(loss.fired_F.sum()))

    def _next_batch(self) -> Tensor:
        return on_device(self.team.share(next(self.batches)), self.sae.device)

    @property
    def _watched(self) -> bool:
        """Whether this step may wait for its figures. Decided by the step's number, so that a resumed run decides alike."""
        return self.sae.device.type == "cpu" or self.step % _WATCH_EVERY == 0

    def new_path(self) -> str | None:
        """What to tell of how the last step was done, the first time it was done that way."""
        ran = self.workspace.ran
        if ran in self._paths_told or not ran:
            return None
        self._paths_told.add(ran)
        share = "" if self.active_share is None else f", {self.active_share:.2%} of them are active"
        return f"products go over {'the active features only' if ran == 'sparse' else 'all features'}{share}"

    def waiting(self) -> str | None:
        """What to tell of the time that steps waited for their rows; None when it was under a twentieth."""
        share = self.waited / max(self.seconds, 1e-9)
        if share < WORTH_TELLING:
            return None
        if isinstance(self.data.rows, ActivationStream):
            return (
                f"{share:.0%} of the training time went by waiting for the language model. Stored activations (without stream) are "
                "computed once and used by every later run."
            )
        doing = "be read from disk" if isinstance(self.data.rows, ActivationStore) else "come from their source"
        return f"{share:.0%} of the training time went by waiting for activations to {doing}."

    def resample_if_due(self) -> int:
        """Re-initialise dead features, once per dead window and never during the learning rate's decay.

        Returns:
            How many features were re-initialised.
        """
        every = max(1, self.plan.dead_window // self.plan.batch_rows)
        due = self.step % every == 0 and self.step < self.schedule.decay_start - every
        if self.sae.revival != "resample" or not due or self._x_BD is None:
            return 0
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        team = self.team
        return resample(self.sae, self.parameters, self._x_BD, self.dead, generator, team.rows, team.features)

    def _check_finite(self, x_BD: Tensor, loss: StepLoss) -> None:
        total = float(loss.total)
        if math.isfinite(total) and float(loss.parts["mse"]) < _EXPLODED:
            return
        bad = int((~torch.isfinite(x_BD)).any(dim=1).sum())
        if bad:
            raise TrainingDivergedError(
                f"{bad} of {len(x_BD)} activations in the batch of step {self.step} hold NaN or infinity.",
                hint="Harvest again with model_dtype = 'float32'; a model that overflows cannot be trained on.",
            )
        raise self._diverged(
            f"the loss is {total:g} (reconstruction error {float(loss.parts['mse']):g} of the input's energy)"
        )

    def _diverged(self, what: str) -> TrainingDivergedError:
        rate = self.schedule.learning_rate(self.step)
        return TrainingDivergedError(
            f"Training diverged at step {self.step} of {self.plan.steps}: {what}, at learning rate {rate:.3g}.",
            hint="Lower learning_rate, or set clip_norm." if self.clip_norm is None else "Lower learning_rate.",
        )

    # --- figures -------------------------------------------------------------------------------------------------

    def figures(self, loss: StepLoss) -> dict[str, float]:
        """One row of the history: the batch's loss and what the schedules say. Processes that share features all ask for it."""
        rows = self.plan.batch_rows
        mse = float(loss.parts["mse"])
        row = {
            "step": self.step,
            "tokens": self.step * rows,
            "loss": float(loss.total),
            **{name: float(part) for name, part in loss.parts.items()},
            "l0": self._firings(loss) / rows,
            "dead": self.dead.count(),
            "learning_rate": self.schedule.learning_rate(self.step - 1),
            "sparsity_scale": self.schedule.sparsity_scale(self.step - 1),
            "seconds": self.seconds,
            "tokens_per_second": self.step * rows / max(self.seconds, 1e-9),
            "waiting_share": self.waited / max(self.seconds, 1e-9),
        }
        if self.clip_norm is not None:
            row["gradient_norm"] = float(self.gradient_norm)
        if self.variance > 0:
            row["explained_variance"] = 1.0 - mse / self.variance
        if (k := self.schedule.active_k(self.step - 1)) is not None:
            row["k"] = k
        return row

    def glance(self, rows: int, look: Look | None = None) -> ReconstructionMetrics:
        """Metrics on about that many held-out rows, by the inference rule, with the weights of this moment.

        Args:
            rows: how many.
            look: is shown the code of each batch.
        """
        if self.team.features.count == 1:
            return measure_heldout(self.sae, self.data, self.scale, self.workspace, rows, look)
        view, workspace = self._view
        return measure_heldout(view, self.data, self.scale, workspace, rows, look)

    @cached_property
    def _view(self) -> tuple[WholeView, Workspace]:
        """Processes that share the features put their codes together; each then sees the whole SAE's figures."""
        features = self.team.features
        screens = screens_products(self.config.compute_dtype)
        workspace = Workspace(
            self.sae.device, kernels=self.config.kernels, products="sparse", screens=screens, features=features
        )
        return WholeView(self.sae, features), workspace

    # --- saving and restoring ------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of this moment; every process of a team calls it."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        tensors.update({f"adam.{name}": moment for name, moment in self.parameters.state().items()})
        tensors["dead.since_fired"], tensors["dead.features"] = self.dead.since_fired_F, self._dead_of_all()
        if self.order is not None:
            tensors["order.frequency"] = self.order.frequency_F
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.sae.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.sae.device)
        state = {
            "seconds": self.seconds,
            "waited": self.waited,
            "scale": self.scale,
            "updates": self.parameters.steps,
            "active_share": self.active_share,
            "kernels": describe(self.sae.device, self.config.kernels, self.config.compute_dtype),
            "batches": self.batches.state(),
            "rows_digest": self.data.rows.digest,
            "steps": self.plan.steps,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "device": self.sae.device.type,
            "processes": self.team.count,
        }
        if self.team.count == 1:
            save_checkpoint(self.checkpoints, self.step, tensors, state, self.config.keep_checkpoints)
            return
        if self.team.from_first(lambda: has_checkpoint(self.checkpoints, self.step)):
            return  # the same step of the same run: the same content
        gather_checkpoint(
            self.checkpoints, self.step, self.team, self.placing.parts(tensors), state, self.config.keep_checkpoints
        )

    def _dead_of_all(self) -> Tensor:
        """int64, the features that count as dead, of all processes."""
        if self.team.features.count == 1:
            return self.dead.dead_M
        start = self.sae.slice.start if self.sae.slice is not None else 0
        found = self.team.gather((self.dead.dead_M + start).cpu())
        return torch.cat(found[: self.team.features.count]).to(self.sae.device)

    def whole_sae(self) -> SparseAutoencoder | None:
        """The SAE on rank 0: this one, or, where processes share its features, all of it in main memory; there None on the others."""
        return self.sae if self.sae.slice is None else whole_sae(self.sae, self.team)

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> list[str]:
        """Take up a checkpoint.

        Args:
            tensors: its tensors, of each the part that ``placing`` says.
            state: the rest.

        Returns:
            Notes on what differs from the machine that wrote it; empty when the run goes on bit for bit.

        Raises:
            MismatchError: when the activations are not those the checkpoint was made with.
        """
        if state["rows_digest"] != self.data.rows.digest or state["steps"] != self.plan.steps:
            raise MismatchError(
                f"The checkpoint belongs to other data: rows {state['rows_digest']}, {state['steps']} steps; "
                f"now rows {self.data.rows.digest}, {self.plan.steps} steps.",
                hint="Give the text and settings the run was started with, or start a new run with --init-from.",
            )
        self.sae.load_state_dict(
            {name.removeprefix("sae."): t for name, t in tensors.items() if name.startswith("sae.")}
        )
        moments = {name.removeprefix("adam."): t for name, t in tensors.items() if name.startswith("adam.")}
        self.parameters.restore(moments, int(state["updates"]))
        self.active_share = state["active_share"]
        self.dead.since_fired_F.copy_(tensors["dead.since_fired"])
        dead_M, held = tensors["dead.features"].to(self.sae.device), self.sae.slice
        if held is not None:
            dead_M = dead_M[(dead_M >= held.start) & (dead_M < held.stop)] - held.start
        self.dead.seen(dead_M)
        if self.order is not None:
            self.order.frequency_F.copy_(tensors["order.frequency"])
        torch.set_rng_state(tensors["rng.cpu"].cpu())
        if "rng.cuda" in tensors and self.sae.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"].cpu(), self.sae.device)
        self.batches.restore(state["batches"])
        self.step, self.seconds, self.waited = int(state["step"]), float(state["seconds"]), float(state["waited"])
        now = {
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "device": self.sae.device.type,
            "kernels": describe(self.sae.device, self.config.kernels, self.config.compute_dtype),
            "processes": self.team.count,
        }
        then = {"processes": 1, **state}  # which checkpoints of before there could be several do not say
        return [f"{name} was {then[name]}, is {value}" for name, value in now.items() if then[name] != value]


@torch.no_grad()
def measure_heldout(
    sae: SparseAutoencoder | WholeView,
    data: TrainingData,
    scale: float,
    workspace: Workspace,
    most: int | None = None,
    look: Look | None = None,
) -> ReconstructionMetrics:
    """Reconstruction and sparsity of an SAE on the held-out rows, by its inference rule.

    Args:
        sae: the SAE.
        data: the run's data.
        scale: what rows are multiplied by first: the input scale while training, 1 for a folded SAE.
        workspace: scratch space, and which kernels run.
        most: measure on about that many of the rows only, evenly spread; None for all.
        look: is shown each batch's code, dense [B, F] or its entries, and the meter that has just counted it.
    """
    meter = ReconstructionMeter(sae.d_in, sae.d_sae)
    for x_BD in data.heldout_batches(scale, sae.device, most):
        code = sae.encode_entries(x_BD, workspace)
        if code is not None:
            meter.update(x_BD, sae.complete(sae.decode_entries(code), x_BD), (code.feature_N, code.value_N))
        elif isinstance(sae, SparseAutoencoder):
            f_BF = sae.encode(x_BD)
            meter.update(x_BD, sae.complete(sae.decode(f_BF), x_BD), f_BF)
        if look is not None:
            look(f_BF if code is None else code, meter)
    return meter.result()
