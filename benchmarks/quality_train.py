"""One training run of the quality sheet: ours in this process, a peer's in its own environment."""

from __future__ import annotations

import subprocess
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from neuronmap.evaluation.rows import Autoencoder
from neuronmap.paths import read_json, write_json
from neuronmap.progress import SilentProgress
from quality_cells import OURS, Budget, our_config, settings
from quality_data import Rows, write_order
from quality_measure import PeerSAE, measure

HERE = Path(__file__).resolve().parent
_CHECK_ROWS = 256
FITTED_AFTERWARDS = ("batchtopk", "matryoshka")
"""Architectures whose inference threshold is fitted for the peers on the calibration rows, as NeuronMap's own trainer does."""


@dataclass(frozen=True)
class Run:
    """What is trained.

    Attributes:
        library, architecture, variant, features, seed: as of a cell.
        k: active features, for architectures that have it.
        knob: the library's own sparsity setting, for those that have not.
    """

    library: str
    architecture: str
    variant: str
    features: int
    seed: int
    k: int | None
    knob: float | None

    @property
    def label(self) -> str:
        sparsity = f"k {self.k}" if self.k is not None else f"at {self.knob:.4g}"
        return f"{self.library}/{self.architecture}/{self.variant} F {self.features} {sparsity} seed {self.seed}"


@dataclass(frozen=True)
class Trained:
    """A trained SAE for raw activations.

    Attributes:
        sae: what is measured.
        saved: the meter's figures of it as the library saved it, where that has another threshold; else None.
        seconds: of training.
        facts: versions, and what was checked.
    """

    sae: Autoencoder
    saved: dict[str, Any] | None
    seconds: float
    facts: dict[str, Any]


class TrainingFailedError(RuntimeError):
    """A peer's script ended with an error; the message holds its end."""


def train(run: Run, budget: Budget, rows: Rows, work: Path, scratch: Path, peers_python: str | None) -> Trained:
    """Train one SAE.

    Args:
        run: what.
        budget: at the run's width; its ``k`` is only used where the run has one.
        rows: on what.
        work: folder for the order of rows.
        scratch: empty folder for the run's files.
        peers_python: python of the peers' environment.

    Raises:
        TrainingFailedError: a peer's script ended with an error.
    """
    chosen = settings(run.library, run.architecture, run.variant, budget)
    if run.library == OURS:
        return _ours(run, budget, chosen, rows, scratch)
    return _peer(run, budget, chosen, rows, work, scratch, str(peers_python))


def _ours(run: Run, budget: Budget, chosen: dict[str, Any], rows: Rows, scratch: Path) -> Trained:
    from neuronmap import SAEConfig, SAETrainer
    from neuronmap.activations import ArrayRows

    config = SAEConfig(**our_config(run.architecture, budget, chosen, run.knob, run.seed, len(rows.train)))
    trainer = SAETrainer(config, progress=SilentProgress(), run_folder=scratch / "run")
    started = time.perf_counter()
    trained = trainer.train(ArrayRows(rows.train), heldout=ArrayRows(rows.calibration))
    seconds = time.perf_counter() - started
    versions = {"neuronmap": version("neuronmap"), "torch": torch.__version__}
    return Trained(trained.sae, None, seconds, {"versions": versions, "config": config.to_dict()})


def _peer(
    run: Run, budget: Budget, chosen: dict[str, Any], rows: Rows, work: Path, scratch: Path, python: str
) -> Trained:
    order = write_order(work, len(rows.train), budget.steps, budget.batch_rows, run.seed)
    job = {
        **asdict(budget),
        "rows": str(rows.path("train")),
        "heldout": str(rows.path("heldout")),
        "order": str(order),
        "output": str(scratch),
        "architecture": run.architecture,
        "seed": run.seed,
        "knob": run.knob,
        "settings": chosen,
        "check_rows": min(_CHECK_ROWS, len(rows.heldout)),
        "root_mean_square_norm": rows.root_mean_square_norm,
    }
    write_json(scratch / "job.json", job)
    script = HERE / "peers" / f"train_{run.library}.py"
    finished = subprocess.run(
        [python, str(script), str(scratch / "job.json")], capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        raise TrainingFailedError(f"{run.label} failed:\n{finished.stderr[-4000:]}")
    heldout = torch.from_numpy(rows.heldout)
    told = read_json(scratch / "result.json")
    with torch.inference_mode():
        sae = PeerSAE.load(scratch, budget.device)
        facts = {"versions": told["versions"], "reconstruction_check": sae.check(scratch, heldout)}
        if run.architecture not in FITTED_AFTERWARDS:
            return Trained(sae, None, told["seconds"], facts)
        fitted = sae.recalibrated(torch.from_numpy(rows.calibration))
        return Trained(fitted, measure(sae, heldout), told["seconds"], facts)
