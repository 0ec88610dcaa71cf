"""A run with its SAE in memory: what a step brings with it, and how the run stops, fails and ends.

    plan_run -> open_session -> OpenRun.begin -> step, step, ... -> finish (calibrate -> fold -> measure -> bundle)

:class:`~neuronmap.training.SAETrainer` drives one, a sweep drives many in turns; neither changes what a run computes.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from neuronmap.errors import InputError, MismatchError, TrainingDivergedError
from neuronmap.progress import Progress
from neuronmap.saes import BundleMetadata, SparseAutoencoder, Workspace, get_architecture, read_bundle_info
from neuronmap.saes.kernels.choice import require
from neuronmap.saes.provenance import Provenance
from neuronmap.saes.slices import FeatureSlice, feature_axis, sliced
from neuronmap.training.batches import Batches
from neuronmap.training.checkpoint import drop_checkpoint, latest_checkpoint, load_checkpoint
from neuronmap.training.config import SAEConfig
from neuronmap.training.data import TrainingData
from neuronmap.training.history import History
from neuronmap.training.loggers import Logger
from neuronmap.training.parallel.split import slice_of
from neuronmap.training.parallel.team import Team
from neuronmap.training.plan import Plan
from neuronmap.training.result import TrainingResult
from neuronmap.training.run import TrainingRun
from neuronmap.training.session import Session, measure_heldout
from neuronmap.training.snapshot import Snapshots

__all__ = ["GLANCE_ROWS", "OpenRun", "asked_device", "device_of", "input_scale", "open_session"]

GLANCE_ROWS = 4096
"""Held-out rows that are measured on while training goes on; all of them are at the end."""


@dataclass(frozen=True)
class _Pace:
    """How many steps lie between history rows, held-out evaluations and checkpoints."""

    history: int
    evaluation: int
    checkpoint: int

    @classmethod
    def of(cls, config: SAEConfig, steps: int, checkpoint: int | None) -> _Pace:
        # Measuring GLANCE_ROWS costs about a step of as many rows; it may take a twentieth of the time.
        rarest = math.ceil(20 * GLANCE_ROWS / config.batch_rows)
        return cls(
            history=config.history_every_steps or max(1, steps // 400),
            evaluation=config.eval_every_steps or max(1, steps // 20, min(rarest, steps // 4)),
            checkpoint=checkpoint or config.checkpoint_every_steps or max(1, math.ceil(steps / 10)),
        )


class OpenRun:
    """One run in progress, with everything that is written beside it.

    Args:
        run: its folder.
        session: the state between two steps.
        progress: where notes go.
        loggers: where curves go besides.
        checkpoint_every: steps between checkpoints; as the configuration says when None.
        quiet: whether to leave out notes on how steps are done.

    Attributes:
        row: the newest row of the history; empty before the first.
    """

    def __init__(
        self,
        run: TrainingRun,
        session: Session,
        progress: Progress,
        loggers: Sequence[Logger] = (),
        *,
        checkpoint_every: int | None = None,
        quiet: bool = False,
    ) -> None:
        self.run, self.session, self.progress, self.loggers, self.quiet = run, session, progress, loggers, quiet
        self.config = session.config
        self.row: dict[str, float] = {}
        self._pace = _Pace.of(session.config, session.plan.steps, checkpoint_every)
        self._history = History(run.history_path)
        self._snapshots = Snapshots(run.folder, session.data, session.scale, session.config.seed)
        self._whole: SparseAutoencoder | None = None
        self._dead: int | None = None

    @property
    def done(self) -> bool:
        """Whether all steps of the plan are made."""
        return self.session.step >= self.session.plan.steps

    def begin(self) -> None:
        """Bring the files to where the session stands, and tell the loggers."""
        session = self.session
        self._history.rewind(session.step)
        self._snapshots.rewind(session.step)
        self.row = dict(self._history.rows[-1]) if self._history.rows else {}
        for logger in self.loggers:
            logger.start(self.config.to_dict(), self.run.folder)
        model_dtype = (session.data.model or {}).get("dtype")
        plan = session.plan
        self.run.set("training", steps=plan.steps, rows=plan.rows, model_dtype=model_dtype, plan=asdict(plan))
        if session.step == 0:
            session.save()  # a run killed before its first interval still resumes

    def step(self) -> dict[str, float]:
        """One step with everything that is due after it.

        Returns:
            The row of the history, if one was due; else nothing.

        Raises:
            TrainingDivergedError: as :meth:`Session.train_step`; call :meth:`diverged` then.
        """
        session = self.session
        loss = session.train_step()
        if not self.quiet and (path := session.new_path()) is not None:
            self.progress.note(f"Step {session.step}: {path}.")
        session.resample_if_due()
        row: dict[str, float] = {}
        if self._row_due:
            row = session.figures(loss)
            if self._evaluation_due:
                measured = self._snapshots.take(session, GLANCE_ROWS)
                if measured.explained_variance is not None:
                    row["heldout_explained_variance"] = measured.explained_variance
                row["heldout_l0"] = measured.l0 or 0.0
            self._history.append(row)
            self.row = row
            for logger in self.loggers:
                logger.log(session.step, row)
        if self._checkpoint_due:
            session.save()
        return row

    @property
    def _row_due(self) -> bool:
        step = self.session.step
        return self._evaluation_due or step % self._pace.history == 0 or step == 1

    @property
    def _evaluation_due(self) -> bool:
        return self.done or self.session.step % self._pace.evaluation == 0

    @property
    def _checkpoint_due(self) -> bool:
        return self.session.step % self._pace.checkpoint == 0 and not self.done

    def bring_together(self) -> None:
        """Make the SAE whole, and save; every process of a team calls this before :meth:`finish`, which is for rank 0."""
        if self.session.team.count > 1:
            self.session.save()
            self._dead = self.session.dead.count()
            self._whole = self.session.whole_sae()

    def end_steps(self) -> None:
        """Tell the loggers that the last step is made."""
        for logger in self.loggers:
            logger.finish(self._history.rows[-1] if self._history.rows else {})

    def interrupt(self) -> None:
        """Save this moment, to go on from it later."""
        self.session.save()
        self.run.set("interrupted", step=self.session.step)

    def diverged(self, error: TrainingDivergedError) -> TrainingDivergedError:
        """Record that training diverged.

        Returns:
            The error with the place of the newest sound weights.
        """
        # The loss was taken with the present weights, so they and a checkpoint of them are broken.
        drop_checkpoint(self.run.checkpoints, self.session.step)
        self.run.set("diverged", step=self.session.step)
        kept = latest_checkpoint(self.run.checkpoints)
        return TrainingDivergedError(error.message, hint=f"{error.hint} The weights from before are kept in {kept}.")

    def finish(self) -> TrainingResult:
        """Calibrate, fold, measure and write the bundle."""
        session = self.session
        sae, data, scale = self._whole or session.sae, session.data, session.scale
        if sae.calibrated and not self.quiet:
            self.progress.note("Fitting the inference threshold on held-out activations.")
        calibration = sae.calibrate(lambda: data.heldout_batches(scale, sae.device))
        if session.team.count == 1:
            session.save()
        sae.fold_input_scale(scale)
        sae.requires_grad_(False).eval()
        for parameter in sae.parameters():
            parameter.grad = None
        # What was brought together from several processes lies in main memory, and what shares a step does not share this.
        kept = (
            session.workspace if session.team.count == 1 else Workspace(sae.device, kernels=self._kernels(sae.device))
        )
        measured = measure_heldout(sae, data, 1.0, kept).to_dict()
        numbers = {name: value for name, value in measured.items() if isinstance(value, int | float)}
        metrics: dict[str, Any] = {
            "summary": {**numbers, "dead_in_training": session.dead.count() if self._dead is None else self._dead},
            "heldout_is_training": data.heldout_is_training,
        }
        metadata = BundleMetadata(
            model=data.model,
            hook=data.hook,
            corpus={
                **data.corpus,
                "context_length": self.config.context_length,
                "mask": data.mask.to_dict() if data.mask else None,
            },
            training={**self.config.to_dict(), "corpus": self.run.source},
            seed=self.config.seed,
            tokens_seen=session.step * session.plan.batch_rows,
            steps=session.step,
            input_scale=scale,
            calibration=calibration,
            tags=self.config.tags,
        )
        result = TrainingResult(
            sae=sae, config=self.config, metrics=metrics, metadata=metadata, run=self.run, data=data
        )
        if not self.run.bundle.exists():
            result.save(self.run.bundle)
        saved = read_bundle_info(self.run.bundle).metadata or metadata  # with the digest of the weights
        sae.provenance = Provenance(saved, self.run.bundle).with_model(data.language_model)
        self.run.set("finished", step=session.step, bundle=str(self.run.bundle))
        shutil.rmtree(self.run.checkpoints, ignore_errors=True)  # only an unfinished run can be resumed
        return result

    def _kernels(self, device: torch.device) -> str:
        """Those that the run asked for, where the finished SAE lies on the same device."""
        return self.config.kernels if device == self.session.sae.device else "auto"


def open_session(
    config: SAEConfig,
    run: TrainingRun,
    data: TrainingData,
    batches: Batches,
    plan: Plan,
    *,
    start_from: SparseAutoencoder | None = None,
    workspace: Workspace | None = None,
    team: Team | None = None,
) -> tuple[Session, list[str]]:
    """The state of a run, from scratch, from another SAE, or from the newest checkpoint.

    Args:
        config, run, data, plan: of the run.
        batches: where its rows come from.
        start_from: an SAE to start from.
        workspace: scratch space, if it is shared.
        team: the processes that share each batch.

    Returns:
        The session, and what to tell of a checkpoint that was taken up.

    Raises:
        ConfigError, MismatchError: for kernels that cannot run, an SAE that does not fit, a checkpoint of other data.
    """
    device = device_of(config, data)
    require(config.kernels, device)
    scale = input_scale(data)
    held = slice_of(team, plan.d_sae) if team is not None else None
    sae = get_architecture(config.resolved_architecture)(
        data.width, plan.d_sae, config.sae_options(data.width), device=device if held is None else "meta"
    )
    if held is not None:
        sae = sliced(sae, held, device)
    generator = torch.Generator().manual_seed(config.seed)
    sae.initialise(data.rows.statistics.mean_D.float() * scale, generator)
    if start_from is not None:
        _start_from(sae, start_from, scale)
    if team is not None:
        for tensor in sae.state_dict().values():
            team.rows.copy_first_(tensor)
        team.features.copy_first_(sae.b_dec.detach())
    session = Session(config, plan, data, sae, batches, scale, run.checkpoints, workspace, team)
    notes: list[str] = []
    checkpoint = latest_checkpoint(run.checkpoints)
    if checkpoint is not None:
        place = None if session.team.count == 1 else session.placing.place
        differs = session.restore(*load_checkpoint(checkpoint, str(device), place))
        notes = [f"Not bit for bit: {difference}." for difference in differs]
        notes.append(f"Resumed {run.folder.name} at step {session.step} of {plan.steps}.")
    return session, notes


def input_scale(data: TrainingData) -> float:
    """What inputs are multiplied by, so that their mean square norm is 1.

    Raises:
        InputError: when all activations are zero.
    """
    mean_square = data.rows.statistics.mean_square_norm
    if not mean_square > 0:
        raise InputError("All activations are zero: there is nothing to learn.")
    return 1.0 / math.sqrt(mean_square)


def device_of(config: SAEConfig, data: TrainingData) -> torch.device:
    """Where the SAE is trained: with the language model if there is one, else as configured."""
    if data.language_model is not None:
        return torch.device(data.language_model.device)
    return asked_device(config)


def asked_device(config: SAEConfig) -> torch.device:
    """The device that the configuration asks for."""
    if config.device != "auto":
        return torch.device(config.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _start_from(sae: SparseAutoencoder, other: SparseAutoencoder, scale: float) -> None:
    """Copy another SAE's weights, brought to the scale of this run's inputs."""
    differs = [
        f"{name} is {theirs}, not {ours}"
        for name, theirs, ours in (
            ("architecture", other.architecture, sae.architecture),
            ("input width", other.d_in, sae.d_in),
            ("number of features", other.d_sae, sae.whole_d_sae),
            ("input normalisation", other.input_norm, sae.input_norm),
        )
        if theirs != ours
    ]
    if differs:
        raise MismatchError(
            f"The SAE to start from does not fit this run: {'; '.join(differs)}.",
            hint="Set architecture, hidden_dim and the hook to those of the SAE.",
        )
    held = sae.slice or FeatureSlice(0, sae.d_sae, sae.d_sae)
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    axes = {name: feature_axis(other, tensor) for name, tensor in tensors.items()}
    sae.load_state_dict(
        {
            name: tensor if axes[name] is None else tensor.narrow(axes[name] or 0, held.start, held.width)
            for name, tensor in other.state_dict().items()
        }
    )
    sae.fold_input_scale(1.0 / scale)
