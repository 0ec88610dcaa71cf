"""Train an SAE on rows with a known truth, measure it, and keep the result: one cell; and many of them.

Each finished cell is one JSON file, named by the digest of everything that went into it, so a sweep can be stopped at any time and
repeated; a cell that was interrupted in the middle of its training goes on from its checkpoint.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError
from neuronmap.evaluation.synthetic.measures import measure_against_truth
from neuronmap.evaluation.synthetic.model import SyntheticModel
from neuronmap.evaluation.synthetic.record import GroundTruth
from neuronmap.evaluation.synthetic.rows import SyntheticRows
from neuronmap.evaluation.synthetic.settings import SyntheticConfig
from neuronmap.hashing import digest_json, short
from neuronmap.paths import read_json, staging_folder, write_json
from neuronmap.progress import Progress
from neuronmap.training import SAEConfig, SAETrainer, TrainingResult

__all__ = [
    "GroundTruthCell",
    "GroundTruthRun",
    "ground_truth_run",
    "ground_truth_sweep",
    "keep_model",
    "train_on_truth",
    "training_config",
]

HELDOUT_STREAM = "heldout"
_CONTEXT = 128


class GroundTruthCell(FrozenConfig):
    """One training run on a synthetic model, and how it is measured."""

    synthetic: SyntheticConfig
    """The synthetic model."""
    training: SAEConfig
    """The training run."""
    train_rows: int = Field(default=1_000_000, ge=1)
    """Different rows to train on."""
    heldout_rows: int = Field(default=16_384, ge=1)
    """Rows for figures during training and for calibration."""
    measure_rows: int = Field(default=65_536, ge=1)
    """Rows to measure on."""
    bootstrap: int = Field(default=1000, ge=0)
    """Resamples of the intervals."""


class GroundTruthRun(FrozenConfig):
    """The result of one cell."""

    cell: GroundTruthCell
    """What was run."""
    key: str
    """Digest of the cell, of the versions and of the caller's own marks."""
    truth: GroundTruth
    """What was measured."""
    seconds: float = Field(ge=0)
    """Training time; of the last part only, for one that was interrupted."""
    marks: dict[str, str]
    """What else the result depends on, by the caller."""


def training_config(
    architecture: str,
    synthetic: SyntheticConfig,
    l0: float | None = None,
    *,
    hidden_dim: int | None = None,
    seed: int = 0,
    batch_rows: int = 1024,
    **fields: Any,
) -> SAEConfig:
    """A training run's configuration for a synthetic model.

    Args:
        architecture: name.
        synthetic: the synthetic model.
        l0: active latents wanted: k (rounded) in the top-k family, ``target_l0`` of jumprelu. relu and gated are set by
            ``sparsity_penalty`` instead.
        hidden_dim: latents; as many as there are truths when left out.
        seed: of the run.
        batch_rows: rows a step, a multiple of 128.
        fields: further fields of ``SAEConfig``.

    Raises:
        ConfigError: for an l0 that the architecture cannot be set to, and for what SAEConfig refuses.
    """
    from neuronmap.saes.registry import get_options

    if batch_rows < _CONTEXT or batch_rows % _CONTEXT:
        raise ConfigError(f"batch_rows = {batch_rows}: it must be a multiple of {_CONTEXT}.")
    options = get_options(architecture).model_fields
    if l0 is not None:
        if "k" in options:
            fields["k"] = max(1, round(l0))
        elif "target_l0" in options:
            fields["target_l0"] = float(l0)
        else:
            raise ConfigError(
                f"l0 = {l0} cannot be asked of architecture '{architecture}', which has neither k nor target_l0.",
                hint="Give sparsity_penalty instead.",
            )
    return SAEConfig(
        architecture=architecture,
        hidden_dim=synthetic.features if hidden_dim is None else hidden_dim,
        context_length=_CONTEXT,
        batch_size=batch_rows // _CONTEXT,
        seed=seed,
        **fields,
    )


def train_on_truth(
    cell: GroundTruthCell, model: SyntheticModel, run_folder: str | Path | None = None, progress: Progress | None = None
) -> TrainingResult:
    """Train the cell's SAE, or go on with a run that was interrupted in that folder.

    The rows are those of a stream named by the run's seed: runs with different seeds see different rows.
    """
    rows = SyntheticRows(model, cell.train_rows, f"train {cell.training.seed}")
    heldout = SyntheticRows(model, cell.heldout_rows, HELDOUT_STREAM)
    folder = Path(run_folder) if run_folder is not None else None
    if folder is not None and (folder / "run.json").is_file():
        return SAETrainer.resume(folder, rows, heldout=heldout, progress=progress)
    return SAETrainer(cell.training, progress=progress, run_folder=folder).train(rows, heldout=heldout)


def ground_truth_run(
    cell: GroundTruthCell,
    folder: str | Path,
    *,
    model: SyntheticModel | None = None,
    marks: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> GroundTruthRun:
    """The result of a cell: read from the folder if it was run before, else trained and measured.

    Args:
        cell: what to run.
        folder: where results and unfinished runs are kept.
        model: the cell's synthetic model, if it is at hand.
        marks: what else the result depends on (a digest of code, say); results of other marks are not reused.
        progress: where notes and bars go.

    Raises:
        ConfigError: if ``model`` is not that of the cell.
    """
    folder = Path(folder)
    if model is not None and model.config != cell.synthetic:
        raise ConfigError(f"The model given is {model.config.name} with other settings than the cell's.")
    device = "cpu" if model is None else model.device.type
    told: dict[str, Any] = {
        "cell": cell.to_dict(),
        "marks": dict(marks or {}),
        "device": device,
        "versions": {name: version(name) for name in ("neuronmap", "torch")},
    }
    key = digest_json(told)
    name = f"{cell.synthetic.name}-{cell.training.resolved_architecture}-s{cell.training.seed}-{short(key)}"
    kept = folder / "cells" / f"{name}.json"
    if kept.is_file():
        return GroundTruthRun.from_dict(read_json(kept))
    model = model if model is not None else keep_model(cell.synthetic, folder)
    scratch = folder / "scratch" / name
    _drop_unusable(scratch)
    started = time.perf_counter()
    trained = train_on_truth(cell, model, scratch, progress)
    seconds = time.perf_counter() - started
    measured = measure_against_truth(
        trained.sae, model, rows=cell.measure_rows, bootstrap=cell.bootstrap, progress=progress
    )
    run = GroundTruthRun(cell=cell, key=key, truth=measured, seconds=seconds, marks=dict(marks or {}))
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, run.to_dict())
    shutil.rmtree(scratch, ignore_errors=True)
    return run


def ground_truth_sweep(
    cells: Iterable[GroundTruthCell],
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    marks: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[GroundTruthRun]:
    """Run cells one after the other, each synthetic model made once and kept."""
    models: dict[str, SyntheticModel] = {}
    runs = []
    for cell in cells:
        digest = cell.synthetic.digest()
        if digest not in models:
            models[digest] = keep_model(cell.synthetic, folder, device)
        runs.append(ground_truth_run(cell, folder, model=models[digest], marks=marks, progress=progress))
    return runs


def keep_model(config: SyntheticConfig, folder: str | Path, device: torch.device | str = "cpu") -> SyntheticModel:
    """The synthetic model of these settings from ``folder/models``, made and stored there if it is new."""
    place = Path(folder) / "models" / f"{config.name}-{short(config.digest())}"
    if not place.is_dir():
        made = SyntheticModel.from_config(config, device)
        try:
            with staging_folder(place) as staging:
                made.save(staging)
        except OSError:
            if not place.is_dir():  # else another process was first; the model is the same
                raise
    return SyntheticModel.load(place, device)


def _drop_unusable(scratch: Path) -> None:
    """Remove what is left of a run that cannot be gone on with: finished but not measured, or diverged."""
    if (scratch / "run.json").is_file() and read_json(scratch / "run.json")["status"] in ("training", "interrupted"):
        return
    shutil.rmtree(scratch, ignore_errors=True)
