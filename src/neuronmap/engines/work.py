"""What a pool of workers is given to do, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from neuronmap.progress import Progress

__all__ = ["Advance", "Pool", "Shared", "Stopped", "Work", "Worker"]

Advance = Callable[[int, str], None]
"""Told of so many more units done (fewer, when a worker was lost), and what to show beside them."""
Stopped = Callable[[], bool]
"""Whether to stop; asked twice a second."""


class Worker(Protocol):
    """Work that was opened in one process: models are loaded, files are found."""

    def run(self, shard: Any, progress: Progress) -> Any:
        """Do one shard. What comes out depends on the shard alone, never on the worker, the attempt or the order.

        Args:
            shard: which part of the work.
            progress: what its tasks advance by is added up on the driver's bar.
        """
        ...


class Work(Protocol):
    """Sent to every worker once; must be picklable."""

    def open(self, progress: Progress) -> Worker:
        """Get ready for shards: load and find everything that all of them need."""
        ...


class Shared(Protocol):
    """A value that many shards name, and that each host is sent once."""

    def get(self) -> Any:
        """The value, in a worker."""
        ...


class Pool(Protocol):
    """Some workers. A work that was opened in a worker stays open for the next call with the same work."""

    @property
    def workers(self) -> int:
        """How many there are to be."""
        ...

    def share(self, value: Any) -> Shared:
        """Lay a value where workers find it; a shard may hold what is returned."""
        ...

    def run(
        self,
        work: Work,
        shards: Sequence[Any],
        *,
        advance: Advance | None = None,
        stopped: Stopped | None = None,
        ahead: int | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Do every shard; gives (its place in the sequence, its result) as they are finished, each once.

        A shard whose worker is lost goes to another; one that takes much longer than the others is begun a second time on a worker that has
        nothing to do, and the first result counts.

        Args:
            work: what is opened in each worker.
            shards: its parts.
            advance: told how far the work is.
            stopped: when it says yes, the iteration ends early, without an error.
            ahead: how many shards beyond the first unfinished one may be begun; None for all.

        Raises:
            NeuronMapError: what a worker raises of ours.
            WorkerLostError: a shard lost one worker after another.
        """
        ...
