"""What ``SAETrainer.train`` gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronmap.saes import BundleMetadata, SparseAutoencoder, save_bundle
from neuronmap.training.config import SAEConfig
from neuronmap.training.data import TrainingData
from neuronmap.training.history import History
from neuronmap.training.run import TrainingRun

__all__ = ["TrainingResult"]


@dataclass(frozen=True)
class TrainingResult:
    """A trained SAE with its evidence.

    Attributes:
        sae: the SAE for raw activations: input scale and thresholds are folded in.
        config: what was asked.
        metrics: figures on held-out activations under ``summary`` (see docs/explanation/metrics.md).
        metadata: what the bundle says about itself.
        run: the folder with history and checkpoints.
        data: the rows, tokens and language model it was trained with.
    """

    sae: SparseAutoencoder
    config: SAEConfig
    metrics: dict[str, Any]
    metadata: BundleMetadata
    run: TrainingRun
    data: TrainingData

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
        files = {"history.parquet": History(self.run.history_path).to_parquet()}
        return save_bundle(self.sae, folder, self.metadata, metrics=self.metrics, extra_files=files)
