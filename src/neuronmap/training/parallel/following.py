"""A run as the processes beside rank 0 drive it: the same steps, their part of what is due after them, and no files."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from neuronmap.errors import DamagedError, TrainingDivergedError
from neuronmap.paths import read_json
from neuronmap.saes import SparseAutoencoder, load_sae, read_bundle_info
from neuronmap.training.open_run import GLANCE_ROWS, OpenRun
from neuronmap.training.result import TrainingResult

__all__ = ["FollowedRun"]


class _FollowedResult(TrainingResult):
    """A result whose SAE is read when it is asked for: not every process may have room for all of it."""

    _device: torch.device

    def __init__(self, device: torch.device, **fields: Any) -> None:
        for name, value in {"_device": device, **fields}.items():
            object.__setattr__(self, name, value)

    @cached_property
    def sae(self) -> SparseAutoencoder:
        """The SAE that rank 0 wrote."""
        return load_sae(self.run.bundle, device=self._device)


class FollowedRun(OpenRun):
    """An :class:`OpenRun` whose files another process writes."""

    def begin(self) -> None:
        """This process's part of the first checkpoint; rank 0 brings the files to where the session stands."""
        if self.session.step == 0:
            self.session.save()

    def step(self) -> dict[str, float]:
        """One step, and this process's part of what is due after it: figures and checkpoint, which rank 0 writes."""
        session, team = self.session, self.session.team
        loss = session.train_step()
        session.resample_if_due()
        if team.features.count > 1 and self._row_due:
            session.figures(loss)
            if self._evaluation_due and team.rows.rank == 0:
                session.dead.mask_of_all()
                session.glance(GLANCE_ROWS)
        if self._checkpoint_due:
            session.save()
        return {}

    def end_steps(self) -> None:
        """Nothing: this process has no loggers."""

    def interrupt(self) -> None:
        """This process's part of the checkpoint."""
        self.session.save()

    def diverged(self, error: TrainingDivergedError) -> TrainingDivergedError:
        """The error; rank 0 records it."""
        return error

    def finish(self) -> TrainingResult:
        """What rank 0 wrote, read from the run's bundle."""
        metadata = read_bundle_info(self.run.bundle).metadata
        if metadata is None:
            raise DamagedError(f"The bundle {self.run.bundle}, which rank 0 has written, has no metadata of NeuronMap.")
        return _FollowedResult(
            device=torch.device("cpu") if self.session.sae.slice is not None else self.session.sae.device,
            config=self.config,
            metrics=read_json(self.run.bundle / "metrics.json"),
            metadata=metadata,
            run=self.run,
            data=self.session.data,
        )
