"""What ``SAETrainer.train`` gives back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronmap.paths import write_json
from neuronmap.saes import BundleMetadata, SparseAutoencoder, save_bundle
from neuronmap.training.config import SAEConfig
from neuronmap.training.history import History
from neuronmap.training.run import TrainingRun

__all__ = ["TrainingResult"]


@dataclass(frozen=True)
class TrainingResult:
    """A trained SAE with its evidence.

    Attributes:
        sae: the SAE for raw activations: input scale and thresholds are folded in.
        config: what was asked.
        metrics: figures on held-out activations (see docs/explanation/metrics.md).
        metadata: what the bundle says about itself.
        run: the folder with history and checkpoints.
    """

    sae: SparseAutoencoder
    config: SAEConfig
    metrics: dict[str, Any]
    metadata: BundleMetadata
    run: TrainingRun

    @property
    def history(self) -> list[dict[str, float]]:
        """Rows of the training history, oldest first."""
        return History(self.run.history_path).rows

    @property
    def bundle(self) -> Path:
        """Folder of the SAE inside the run; SAELens opens it too."""
        return self.run.bundle

    def save(self, folder: str | Path) -> Path:
        """Write the bundle (cfg.json, weights, metrics.json, history.parquet, README.md) to ``folder``.

        Raises:
            AlreadyExistsError: when the folder exists.
        """
        return write_result_bundle(self.sae, self.metadata, self.metrics, History(self.run.history_path), Path(folder))


def write_result_bundle(
    sae: SparseAutoencoder, metadata: BundleMetadata, metrics: dict[str, Any], history: History, folder: Path
) -> Path:
    """Write a bundle with its metrics and history beside the weights, all or nothing."""
    aside = folder.parent / f".parts-{folder.name}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write_json(aside / "metrics.json", metrics)
        history.write_parquet(aside / "history.parquet")
        return save_bundle(
            sae, folder, metadata, extra_files={path.name: path for path in sorted(aside.iterdir())}, metrics=metrics
        )
    finally:
        shutil.rmtree(aside, ignore_errors=True)
