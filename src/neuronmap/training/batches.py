"""Where a session takes its rows from: a shuffled sequence of its own, or one that several sessions read in step.

Shapes: B rows of a batch, D = d_in.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from neuronmap.activations import ShuffledBatches

__all__ = ["BatchReader", "Batches", "SharedBatches", "on_device"]


class Batches(Protocol):
    """What a session asks of its batches; :class:`~neuronmap.activations.ShuffledBatches` is one."""

    @property
    def waited_seconds(self) -> float:
        """How long the session waited for rows so far."""

    def __next__(self) -> Tensor:
        """The next batch, float32 [B, D]."""

    def state(self) -> dict[str, Any]:
        """Where the sequence stands after the last batch."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on after the batch at which ``state`` was taken."""

    def close(self) -> None:
        """Stop reading ahead."""


def on_device(batch_BD: Tensor, device: torch.device) -> Tensor:
    """A batch on the device of the SAE.

    From pageable memory a copy may wait for all work before it; it is pinned here, in memory that torch uses again.
    """
    if device.type == "cuda" and batch_BD.device.type == "cpu":
        batch_BD = batch_BD.pin_memory()
    return batch_BD.to(device, non_blocking=True)


class SharedBatches:
    """One shuffled sequence for sessions that take turns on each of its batches.

    Args:
        batches: the sequence.
        device: where the sessions' SAEs are; a batch goes there once for all of them.

    Attributes:
        waited_seconds: time spent waiting for rows to be read or computed.
    """

    def __init__(self, batches: ShuffledBatches, device: torch.device) -> None:
        self._batches, self._device = batches, device
        self._current_BD: Tensor | None = None
        self._readers: list[BatchReader] = []
        self.waited_seconds = 0.0

    @property
    def number(self) -> int:
        """Batches drawn so far."""
        return self._batches.batch

    def reader(self) -> BatchReader:
        """A place in the sequence for one more session, at its beginning."""
        reader = BatchReader(self)
        self._readers.append(reader)
        return reader

    def settle(self) -> None:
        """Go back to where the earliest reader stands; the others have their turn when the sequence comes to them.

        Checkpoints of a sweep that was killed may be of different steps: each holds its place in the one sequence.
        """
        known = [reader.restored for reader in self._readers if reader.restored is not None]
        if len(known) < len(self._readers) and known:
            self._batches.restore({**known[0], **dict.fromkeys(("epoch", "bucket", "row", "batch"), 0)})
        elif known:
            self._batches.restore(min(known, key=lambda state: int(state["batch"])))

    def draw(self, number: int) -> None:
        """Make batch ``number`` the current one; those before it are drawn and left."""
        before = self._batches.waited_seconds
        while self.number <= number:
            self._current_BD = next(self._batches)
        self.waited_seconds += self._batches.waited_seconds - before
        if self._current_BD is not None:
            self._current_BD = on_device(self._current_BD, self._device)

    def current(self, number: int) -> Tensor:
        """Batch ``number``, which must be the current one."""
        if self._current_BD is None or number != self.number - 1:
            raise RuntimeError(f"Batch {number} was asked for while the sequence stands after {self.number}.")
        return self._current_BD

    def state(self, number: int) -> dict[str, Any]:
        """Where the sequence stands, for a reader that has taken ``number`` batches."""
        if number != self.number:
            raise RuntimeError(f"A reader stands after {number} batches, the sequence after {self.number}.")
        return self._batches.state()

    def check(self, state: dict[str, Any]) -> None:
        """Refuse the state of another sequence.

        Raises:
            MismatchError: with what differs.
        """
        self._batches.restore(state)

    def close(self) -> None:
        """Stop reading ahead and let the current batch go."""
        self._batches.close()
        self._current_BD = None


class BatchReader:
    """One session's place in a :class:`SharedBatches`.

    Attributes:
        restored: the state it was restored to; None at the beginning of the sequence.
        waited_seconds: always 0: the wait is the sweep's, not one session's.
    """

    def __init__(self, shared: SharedBatches) -> None:
        self._shared = shared
        self._number = 0
        self.restored: dict[str, Any] | None = None
        self.waited_seconds = 0.0

    def __next__(self) -> Tensor:
        batch_BD = self._shared.current(self._number)
        self._number += 1
        return batch_BD

    def state(self) -> dict[str, Any]:
        """Where the sequence stands after the last batch taken."""
        return self._shared.state(self._number)

    def restore(self, state: dict[str, Any]) -> None:
        """Stand where ``state`` was taken; :meth:`SharedBatches.settle` must follow when all readers are restored."""
        self._shared.check(state)
        self.restored, self._number = state, int(state["batch"])

    def close(self) -> None:
        """Nothing: the sequence belongs to all."""
