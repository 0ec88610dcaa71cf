"""A training run as a folder: what was asked, how far it came, and what it left.

<home>/runs/<id>/run.json         configuration, source, status
                 history.jsonl    training curves, as they grow
                 snapshot.json    the features at the last held-out evaluation (neuronmap.training.snapshot)
                 snapshots.jsonl  density histogram and L0 at each of them
                 checkpoints/     see neuronmap.training.checkpoint
                 sae/             the finished bundle
"""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from neuronmap import paths
from neuronmap.errors import InputError
from neuronmap.training.config import SAEConfig

__all__ = ["Status", "TrainingRun"]

Status = Literal["preparing", "training", "interrupted", "diverged", "finished"]
FORMAT = 1


@dataclass(frozen=True)
class TrainingRun:
    """Handle on a run's folder.

    Attributes:
        folder: where the run lies.
    """

    folder: Path

    @classmethod
    def create(cls, config: SAEConfig, source: str | None, folder: Path | None = None) -> TrainingRun:
        """Make the folder of a new run.

        Args:
            config: its configuration.
            source: the text source if it can be opened again by name, else None.
            folder: where; a new one under ``<home>/runs`` when left out.
        """
        if folder is None:
            label = re.sub(r"[^a-z0-9]+", "-", (config.name or f"{config.resolved_architecture}").lower()).strip("-")
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            folder = paths.runs_folder() / f"{stamp}-{label[:40]}-{uuid.uuid4().hex[:6]}"
        paths.require_writable(folder)
        run = cls(folder)
        run._write({"format": FORMAT, "status": "preparing", "config": config.to_dict(), "source": source})
        return run

    @classmethod
    def open(cls, folder: str | Path) -> TrainingRun:
        """Open a run by its folder, or by its name under ``<home>/runs``.

        Raises:
            InputError: when there is no run; lists the newest ones.
        """
        for candidate in (Path(folder), paths.runs_folder() / folder):
            if (candidate / "run.json").is_file():
                return cls(candidate)
        known = [run.folder.name for run in cls.list()][:5]
        hint = f"Newest runs: {', '.join(known)}." if known else f"There are no runs in {paths.runs_folder()}."
        raise InputError(f"There is no training run {folder}.", hint=hint)

    @classmethod
    def list(cls) -> list[TrainingRun]:
        """All runs under ``<home>/runs``, newest first."""
        root = paths.runs_folder()
        found = root.glob("*/run.json") if root.is_dir() else []
        return [cls(path.parent) for path in sorted(found, reverse=True)]

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def history_path(self) -> Path:
        return self.folder / "history.jsonl"

    @property
    def bundle(self) -> Path:
        """Where the finished SAE lies."""
        return self.folder / "sae"

    def read(self) -> dict[str, Any]:
        """Content of ``run.json``."""
        record: dict[str, Any] = paths.read_json(self.folder / "run.json")
        return record

    def config(self) -> SAEConfig:
        return SAEConfig.from_dict(self.read()["config"])

    @property
    def source(self) -> str | None:
        """The text source, if it can be opened again by name."""
        source: str | None = self.read()["source"]
        return source

    def set(self, status: Status, **facts: Any) -> None:
        """Record the status and further facts."""
        self._write({**self.read(), "status": status, **facts})

    def _write(self, record: dict[str, Any]) -> None:
        paths.write_json(self.folder / "run.json", record)
