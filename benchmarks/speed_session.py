"""Our training step for the speed benchmarks: a real ``Session`` on given rows, as ``SAETrainer`` builds one.

A timed step is what ``SAETrainer`` does between two batches: ``train_step`` (batch, gradients, clipping, projection, Adam,
unit norm, dead counters), ``resample_if_due``, and one row of the history.

Shapes: N rows, B rows of a batch, D = width, F = features.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronmap import SAEConfig
from neuronmap.activations import ArrayRows, ShuffledBatches
from neuronmap.saes import SparseAutoencoder, get_architecture
from neuronmap.saes.kernels.native.library import why_not
from neuronmap.saes.kernels.native.screening import can_screen
from neuronmap.training.data import TrainingData
from neuronmap.training.plan import make_plan
from neuronmap.training.session import Session
from speed_worker import FROZEN_L0, NotOffered, cut_for_l0, rows_for_l0

STEPS = 20_000
"""Length of the run that the schedules believe in: warm-up is over after 1,000 steps."""
CONTEXT = 128
AUTOGRAD = "autograd"
"""The dense reference: ``training_loss`` under plain autograd. Not a path that users can choose; the guard must catch it."""
PATHS: dict[str, dict[str, str]] = {
    "auto": {},
    "native": {"kernels": "native"},
    "float32": {"compute_dtype": "float32"},
    "torch": {"kernels": "torch"},
    "dense": {"products": "dense"},
    AUTOGRAD: {},
}
"""Fields of ``SAEConfig`` by the variant of a cell."""
_NO_RATE = 1e-20  # SAEConfig refuses 0; float32 weights do not move by this
_NEVER = 10**15
_ARRIVED_LENGTH = 0.5
"""Of jumprelu's encoder columns: medians of 0.41 to 0.64 in the second half of runs (docs/experiments.md, jumprelu's step)."""


class OurTrainer:
    """One cell. ``variant`` is the path: one of PATHS."""

    def __init__(self, cell: dict[str, Any], rows_ND: Tensor) -> None:
        self.cell = cell
        self._folder = tempfile.TemporaryDirectory(prefix="neuronmap-speed-")
        self.session = open_session(cell, rows_ND, Path(self._folder.name))
        if cell["start"] != "usual":
            sample_BD = rows_for_l0(rows_ND, cell["features"])
            set_sparsity(self.session.sae, cell, sample_BD * self.session.scale)
        if cell["variant"] == AUTOGRAD:
            sae = self.session.sae
            reference = SparseAutoencoder.loss_and_gradients.__get__(sae)
            sae.loss_and_gradients = reference  # type: ignore[method-assign]
        self._dead_M = torch.randperm(cell["features"], generator=torch.Generator().manual_seed(2))
        self._dead_M = self._dead_M[: round(cell["dead"] * cell["features"])]
        self.loss: Any = None

    def prepare(self) -> None:
        """Mark the cell's share of features as dead again (they do fire: only AuxK's cost is wanted)."""
        if len(self._dead_M):
            self.session.dead.since_fired_F[self._dead_M] = 2 * _NEVER

    def step(self) -> None:
        self.loss = self.session.train_step()
        self.session.resample_if_due()
        self.session.figures(self.loss)

    def describe(self) -> dict[str, Any]:
        # The backends that were made are those that ran: the sparse one, and "dense" where that was chosen.
        made = sorted({name.split(".")[0] for name in self.session.workspace.backends})
        return {"l0": float(self.loss.fired_F.sum()) / self.cell["batch"], "ran": "+".join(made) or "autograd"}

    def close(self) -> None:
        self.session.batches.close()
        self._folder.cleanup()


def forced() -> tuple[str, ...]:
    """Paths worth forcing beside the automatic choice: without compiled kernels that is the portable one already; where these screen, also
    the product in float32."""
    if why_not() is not None:
        return ()
    return ("float32", "torch") if can_screen() else ("torch",)


def our_config(cell: dict[str, Any], rows: int) -> SAEConfig:
    """Defaults but for the cell's numbers.

    Raises:
        NotOffered: for a path that there is not, or that cannot run here.
    """
    if cell["batch"] % CONTEXT:
        raise NotOffered(f"a batch is whole contexts of {CONTEXT}; {cell['batch']} rows are not")
    fields: dict[str, Any] = {
        "architecture": cell["architecture"],
        "hidden_dim": cell["features"],
        "context_length": CONTEXT,
        "batch_size": cell["batch"] // CONTEXT,
        "num_epochs": STEPS * cell["batch"] / rows + 1,
        "max_steps": STEPS,
        "dead_after_tokens": _NEVER,
    }
    if cell["k"]:
        fields["k"] = cell["k"]
    if cell["start"] != "usual":
        fields["learning_rate"] = _NO_RATE
    if cell["variant"] not in PATHS:
        raise NotOffered(f"there is no path '{cell['variant']}'; there are {', '.join(PATHS)}")
    if cell["variant"] == "native" and (reason := why_not()) is not None:
        raise NotOffered(reason)
    fields.update(PATHS[cell["variant"]])
    return SAEConfig(**fields)


def open_session(cell: dict[str, Any], rows_ND: Tensor, folder: Path) -> Session:
    """A session before its first step, with the weights that a run starts from."""
    source = ArrayRows(rows_ND)
    config = our_config(cell, source.num_rows)
    data = TrainingData(rows=source, heldout=ArrayRows(rows_ND[:CONTEXT]))
    device = torch.device("cpu")
    scale = 1.0 / math.sqrt(source.statistics.mean_square_norm)
    batches = ShuffledBatches(source, config.batch_rows, seed=config.seed, scale=scale)
    shuffle_bytes = batches.bucket_rows * data.width * source.dtype.itemsize
    plan = make_plan(config, source.num_rows, data.width, device, shuffle_bytes)
    sae = get_architecture(config.resolved_architecture)(
        data.width, plan.d_sae, config.sae_options(data.width), device=device
    )
    sae.initialise(source.statistics.mean_D.float() * scale, torch.Generator().manual_seed(config.seed))
    return Session(config, plan, data, sae, batches, scale, folder / "checkpoints")


@torch.no_grad()
def set_sparsity(sae: SparseAutoencoder, cell: dict[str, Any], x_BD: Tensor) -> None:
    """Half of the features active (dense), or FROZEN_L0 of them (sparse), by the biases or thresholds.

    jumprelu's sparse state is that of a run whose L0 has arrived, so its encoder columns are made as long as they are by then. With the
    quarter that a run starts from, pre-activations are so close together that the window holds twice what it ever holds at this L0.
    """
    named = dict(sae.named_parameters())
    if (cell["architecture"], cell["start"]) == ("jumprelu", "sparse"):
        named["W_enc"].div_(torch.linalg.vector_norm(named["W_enc"], dim=0) / _ARRIVED_LENGTH)
    cut = cut_for_l0(sae.pre_activations(x_BD), FROZEN_L0) if cell["start"] == "sparse" else 0.0
    if cell["architecture"] == "jumprelu":
        named["threshold"].fill_(cut)
    elif cell["architecture"] == "gated":
        named["b_gate"].sub_(cut)
    else:
        named["b_enc"].sub_(cut)


# --- where the time of a step goes ----------------------------------------------------------------------------------

KERNEL_PARTS = {
    "encode and select": ("encode_top_k", "encode_top_of_batch", "encode_above"),
    "reconstruct": ("reconstruct",),
    "weight gradients": ("weight_gradients",),
    "parameter step": ("gradient_energy", "adam"),
}
"""Methods of ``neuronmap.saes.kernels.protocol.Kernels`` by the part of a step they are."""

SESSION_PARTS = {
    "gradients, all": ("sae.loss_and_gradients",),
    "parameters, all": ("parameters.gradient_norm", "parameters.apply"),
}
OPERATION_PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::addmv", "aten::mv", "aten::dot"),
    "selection and sorting": ("aten::topk", "aten::sort", "aten::kthvalue", "aten::nonzero", "aten::amax", "aten::max"),
    "sparse sums": ("aten::_embedding_bag", "aten::_embedding_bag_per_sample_weights_backward", "aten::index_add_"),
    "Adam": ("aten::_fused_adam_",),
}


def parts_of_step(trainer: OurTrainer, product: Callable[[], float], steps: int) -> dict[str, dict[str, float]]:
    """Seconds of each part of a step, mean over ``steps``, taken in two ways.

    ``stopwatch``: around each kernel method (``engine: ...``) and around the session's large parts. ``profiler``: the
    operations of a step by kind, as torch's profiler sees them; what a native engine does in one call is in ``step``
    only, and profiling makes the step slower. ``G`` is the reference product, alternated with the steps of each way.
    """
    spent: dict[str, float] = defaultdict(float)
    with _stopwatches(trainer.session, spent):
        _alternate(trainer, product, steps, spent)
    kernel_time = sum(seconds for name, seconds in spent.items() if name.startswith("engine: "))
    if kernel_time:
        spent["rest"] = spent["step"] - kernel_time
    profiled: dict[str, float] = defaultdict(float)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        _alternate(trainer, product, steps, profiled)
    named = {name: part for part, names in OPERATION_PARTS.items() for name in names}
    for event in profile.key_averages():
        if event.key.startswith("aten::"):
            profiled[named.get(event.key, "other operations")] += event.self_cpu_time_total / 1e6
    profiled["matrix products"] -= profiled["G"]  # the profiler saw the reference product as well
    ways = {"stopwatch": spent, "profiler": profiled}
    return {way: {name: seconds / steps for name, seconds in found.items()} for way, found in ways.items()}


def _alternate(trainer: OurTrainer, product: Callable[[], float], steps: int, spent: dict[str, float]) -> None:
    """Add up the time of ``steps`` steps and as many reference products."""
    for _ in range(steps):
        trainer.prepare()
        spent["G"] += product()
        started = time.perf_counter()
        trainer.step()
        spent["step"] += time.perf_counter() - started


@contextlib.contextmanager
def _stopwatches(session: Session, spent: dict[str, float]) -> Iterator[None]:
    """Time kernel methods (of every backend class that is loaded) and the session's large parts."""
    undo: list[Callable[[], None]] = []
    within: list[str] = []

    def watch(holder: Any, name: str, part: str) -> None:
        own = name in vars(holder)
        original = getattr(holder, name)
        kind = part.partition(":")[0]

        @wraps(original)
        def timed(*given: Any, **named: Any) -> Any:
            if kind in within:  # a kernel that calls another one: its time is counted already
                return original(*given, **named)
            within.append(kind)
            started = time.perf_counter()
            try:
                return original(*given, **named)
            finally:
                spent[part] += time.perf_counter() - started
                within.remove(kind)

        setattr(holder, name, timed)
        undo.append(lambda: setattr(holder, name, original) if own else delattr(holder, name))

    for cls in _backends():
        for part, names in KERNEL_PARTS.items():
            for name in names:
                if name in vars(cls):
                    watch(cls, name, f"engine: {part}")
    for part, paths in SESSION_PARTS.items():
        for path in paths:
            *way, name = path.split(".")
            holder: Any = session
            for step in way:
                holder = getattr(holder, step, None)
            if holder is not None and hasattr(holder, name):
                watch(holder, name, part)
    try:
        yield
    finally:
        for restore in reversed(undo):
            restore()


def _backends() -> list[type]:
    """Loaded classes of ``neuronmap.saes.kernels`` that answer the protocol's questions."""
    wanted = [name for names in KERNEL_PARTS.values() for name in names]
    found = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("neuronmap.saes.kernels.") and not module_name.endswith(".protocol"):
            for value in vars(module).values():
                if isinstance(value, type) and value.__module__ == module_name and _has_all(value, wanted):
                    found[value.__qualname__] = value
    return list(found.values())


def _has_all(cls: type, names: list[str]) -> bool:
    return all(hasattr(cls, name) for name in names)
