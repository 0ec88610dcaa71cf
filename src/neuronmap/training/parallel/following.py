"""A run as the processes beside rank 0 drive it: the same steps, and no files."""

from __future__ import annotations

from neuronmap.errors import DamagedError, TrainingDivergedError
from neuronmap.paths import read_json
from neuronmap.saes import load_sae, read_bundle_info
from neuronmap.training.open_run import OpenRun
from neuronmap.training.result import TrainingResult

__all__ = ["FollowedRun"]


class FollowedRun(OpenRun):
    """An :class:`OpenRun` whose files another process writes."""

    def begin(self) -> None:
        """Nothing: rank 0 brings the files to where the session stands."""

    def step(self) -> dict[str, float]:
        """One step; what is due after it (history, held-out figures, checkpoint) is rank 0's."""
        self.session.train_step()
        self.session.resample_if_due()
        return {}

    def end_steps(self) -> None:
        """Nothing: this process has no loggers."""

    def interrupt(self) -> None:
        """Nothing: rank 0 saves."""

    def diverged(self, error: TrainingDivergedError) -> TrainingDivergedError:
        """The error; rank 0 records it."""
        return error

    def finish(self) -> TrainingResult:
        """What rank 0 wrote, read from the run's bundle."""
        metadata = read_bundle_info(self.run.bundle).metadata
        if metadata is None:
            raise DamagedError(f"The bundle {self.run.bundle}, which rank 0 has written, has no metadata of NeuronMap.")
        return TrainingResult(
            sae=load_sae(self.run.bundle, device=self.session.sae.device),
            config=self.config,
            metrics=read_json(self.run.bundle / "metrics.json"),
            metadata=metadata,
            run=self.run,
            data=self.session.data,
        )
