"""A stream read by the processes that torchrun started: each runs the model over some of the blocks, and all get the rows of all.

All of them shuffle alike, so they ask for the same blocks in the same order. As many blocks as there are processes make a round. Each
process runs its block of the round, all at the same time; then the rows go from one to all, block by block, when the shuffle comes to them.
So each holds one block beside its bucket. The rows are those that one process computes.

Shape legend: N rows, W width of the hook.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from torch import Tensor

from neuronmap.errors import Interrupted, NeuronMapError

if TYPE_CHECKING:
    from neuronmap.activations.blocks import Block
    from neuronmap.activations.together import Crew

__all__ = ["Turns"]


class Turns:
    """A :class:`~neuronmap.activations.blocks.BlockReader` whose blocks are computed by a crew in turns.

    Every process of the crew makes one at the same place, and reads the same blocks with it.

    Args:
        read: runs this process's model over a block, writes the rows and gives their number.
        room: [N, W] in main memory, for the rows of a block of that many contexts.
        crew: the processes.
    """

    def __init__(self, read: Callable[[int, int, Tensor], int], room: Callable[[int], Tensor], crew: Crew) -> None:
        self._read, self._room, self._crew = read, room, crew
        self._exchange = crew.exchange()
        self._leaving = threading.Event()
        self._round: deque[tuple[Block, int]] = deque()
        self._own: int | Exception = 0
        self._own_NW, self._own_contexts = room(0), 0
        self._failure: Exception | None = None

    def read_block(self, start: int, stop: int, out: Tensor, following: Iterable[Block]) -> int:
        """Write the rows of contexts ``start`` to ``stop`` to the front of ``out``; returns how many there were.

        Raises:
            Interrupted: on all processes, when one was asked to stop: a bucket may take long, and nobody waits for its end.
            NeuronMapError: on all processes, what one of them could not do; when another process reads no more.

        What was raised once is raised again.
        """
        if self._failure is not None:
            raise self._failure
        block = (start, stop)
        if not self._round or self._round[0][0] != block:
            self._begin([block, *islice(following, self._crew.count - 1)])
        sender = self._round[0][1]
        if not self._exchange.all_come(self._leaving.is_set):
            self._failure = NeuronMapError(
                "Another process reads no activations any more, and this one cannot go on alone."
            )
            raise self._failure
        own = sender == self._crew.rank
        told = (_as_told(self._own, sender), self._crew.stopping) if own else None
        count, stopping = self._exchange.tell(told, sender)
        if stopping:
            self._failure = Interrupted("Stopped while the language model computed activations.")
        elif isinstance(count, Exception):
            self._failure = self._own if own and isinstance(self._own, Exception) else count
        if self._failure is not None:
            raise self._failure
        if count:
            if own:
                out[:count].copy_(self._own_NW[:count])
            self._exchange.spread_(out[:count], sender)
        self._round.popleft()
        return int(count)

    def stop(self) -> None:
        """From another thread: leave an exchange that has not begun."""
        self._leaving.set()

    def close(self) -> None:
        """Take part in no exchange any more; for the thread that no other reads beside."""
        self._leaving.set()
        self._exchange.close()

    def _begin(self, blocks: list[Block]) -> None:
        """Run this process's block of a round; what it cannot do is told when the block's turn comes, as one process would find it."""
        self._round = deque((block, rank) for rank, block in enumerate(blocks))
        if self._crew.rank >= len(blocks) or self._leaving.is_set():
            return
        try:
            start, stop = blocks[self._crew.rank]
            if stop - start > self._own_contexts:
                self._own_NW, self._own_contexts = self._room(stop - start), stop - start
            self._own = self._read(start, stop, self._own_NW)
        except Exception as error:  # noqa: BLE001 (raised on all when the block's turn comes)
            self._own = error


def _as_told(own: int | Exception, rank: int) -> int | Exception:
    """What the others are told: an error of another kind may not survive the way."""
    if isinstance(own, int | NeuronMapError):
        return own
    return NeuronMapError(f"Process {rank} could not run the language model: {type(own).__name__}: {own}")
