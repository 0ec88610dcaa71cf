"""One SAE of a sweep, and those of one hook, which read the same batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from neuronmap.activations import ActivationStream, ShuffledBatches
from neuronmap.errors import TrainingDivergedError
from neuronmap.progress import Progress
from neuronmap.training.batches import SharedBatches
from neuronmap.training.data import TrainingData
from neuronmap.training.loggers import Logger
from neuronmap.training.open_run import OpenRun, open_session
from neuronmap.training.plan import Plan
from neuronmap.training.result import TrainingResult
from neuronmap.training.run import TrainingRun
from neuronmap.training.session import Session
from neuronmap.training.sweeping.record import MemberRecord
from neuronmap.training.sweeping.turns import Seat

__all__ = ["Group", "Member"]


class Member:
    """One SAE while it is in training.

    Args:
        record: what it is called, and where its run lies.
        group: those that read the same batches.
        seat: its place among those that take turns.

    Attributes:
        failed: the error, once it has diverged.
    """

    def __init__(self, record: MemberRecord, group: Group, seat: Seat) -> None:
        self.record, self.group, self.seat = record, group, seat
        self.failed: TrainingDivergedError | None = None
        self._open: OpenRun | None = None

    def open(
        self, plan: Plan, source: str | None, checkpoint_every: int, progress: Progress, loggers: Sequence[Logger]
    ) -> list[str]:
        """Make or find its run, and build its state.

        Returns:
            What to tell of a checkpoint that was taken up.
        """
        config, data, run = self.record.config, self.group.data, self.record.run
        if not (run.folder / "run.json").is_file():
            run = TrainingRun.create(config, source, run.folder)
        with self.seat.turn():
            session, notes = open_session(
                config, run, data, self.group.shared.reader(), plan, workspace=self.seat.workspace
            )
        self._open = OpenRun(run, session, progress, loggers, checkpoint_every=checkpoint_every, quiet=True)
        return notes

    @property
    def session(self) -> Session:
        """Its state between two steps."""
        return self._opened.session

    @property
    def row(self) -> dict[str, float]:
        """The newest row of its history."""
        return self._opened.row

    @property
    def steps(self) -> int:
        """Steps of its plan."""
        return self.session.plan.steps

    @property
    def done(self) -> bool:
        """Whether all of them are made."""
        return self._opened.done

    def begin(self) -> None:
        """Bring its files to where it stands."""
        with self.seat.turn():
            self._opened.begin()

    def step(self) -> None:
        """One step with everything due after it; a divergence is kept in ``failed``."""
        try:
            with self.seat.turn(self.session.sae):
                self._opened.step()
        except TrainingDivergedError as error:
            self.failed = error

    def interrupt(self) -> None:
        """Save this moment; one that waits for the stream to come to it has been saved before."""
        opened = self._opened
        if self.session.step == self.group.shared.number:
            with self.seat.turn():
                opened.interrupt()
        else:
            opened.run.set("interrupted", step=self.session.step)

    def leave_diverged(self) -> TrainingDivergedError:
        """Record that it diverged, and let its state go."""
        if self.failed is None:
            raise RuntimeError(f"{self.record.name} has not diverged.")
        error = self._opened.diverged(self.failed)
        self._open = None
        return error

    def finish(self) -> TrainingResult:
        """Calibrate, fold, measure, write the bundle, and let its state go."""
        opened = self._opened
        with self.seat.turn():
            opened.end_steps()
            result = opened.finish()
        self._open = None
        return result

    @property
    def _opened(self) -> OpenRun:
        if self._open is None:
            raise RuntimeError(f"{self.record.name} is not in training.")
        return self._open


class Group:
    """The members of one hook.

    Args:
        data: their rows.
        batches: the shuffled sequence of these.
        device: where the SAEs are.

    Attributes:
        members: those that have not left.
        shared: the sequence, as they read it.
    """

    def __init__(self, data: TrainingData, batches: ShuffledBatches, device: torch.device) -> None:
        self.data, self.batches = data, batches
        self.shared = SharedBatches(batches, device)
        self.members: list[Member] = []

    @property
    def shuffle_bytes(self) -> int:
        """Memory of the rows that are shuffled at a time."""
        return self.batches.bucket_rows * self.data.width * self.data.rows.dtype.itemsize

    @property
    def step(self) -> int:
        """Where the earliest of its members stands: the number of the next batch."""
        return min(member.session.step for member in self.members)

    def take_turns(self, step: int) -> None:
        """Draw batch ``step``, and let every member that stands there make its step."""
        self.shared.draw(step)
        for member in self.members:
            if member.session.step == step:
                member.step()

    def close(self) -> None:
        """Let the sequence go; the language model runs no further than other groups need."""
        self.shared.close()
        if isinstance(self.data.rows, ActivationStream):
            self.data.rows.close()
