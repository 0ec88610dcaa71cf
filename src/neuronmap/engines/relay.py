"""The word between a group of processes on a cluster and the command that started them: progress one way, a wish to stop the other.

Work that is a group of processes which talk among themselves (a training) cannot be cut into shards. Its first process reports here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from neuronmap.progress import Progress, Task

__all__ = ["Relay", "RelayedProgress", "retold"]

_SECONDS = 0.5


@dataclass(eq=False)
class Relay:
    """What is kept between two looks of the driver; runs as an actor."""

    _events: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    _stop: bool = False

    def tell(self, events: list[tuple[str, tuple[Any, ...]]]) -> bool:
        """Take reports; says whether to stop."""
        self._events.extend(events)
        return self._stop

    def take(self) -> list[tuple[str, tuple[Any, ...]]]:
        """All reports since the last look, in order."""
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        """Let the group know that it is to stop."""
        self._stop = True


class RelayedProgress:
    """Sends notes and bars to a relay twice a second, and hears from it whether to stop.

    Args:
        tell: hands events to the relay, and gives its answer.
        stop: called once, in a thread of this object's own, when the group is to stop.
    """

    def __init__(self, tell: Callable[[list[tuple[str, tuple[Any, ...]]]], bool], stop: Callable[[], None]) -> None:
        self._tell, self._stop = tell, stop
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._events: list[tuple[str, tuple[Any, ...]]] = []
        self._tasks = 0
        self._thread = threading.Thread(target=self._send, name="relay", daemon=True)
        self._thread.start()

    def note(self, message: str) -> None:
        """Show one line."""
        self.say("note", message)

    def say(self, kind: str, *what: Any) -> None:
        """Report something."""
        with self._lock:
            self._events.append((kind, what))

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        """Open a bar."""
        self._tasks += 1
        number = self._tasks
        self.say("begin", number, title, total, unit)
        try:
            yield _RelayedTask(self, number)
        finally:
            self.say("end", number)

    def advanced(self, number: int, amount: int, figures: dict[str, str]) -> None:
        """Add to what is to be told of a bar."""
        with self._lock:
            if self._events and self._events[-1][0] == "advance" and self._events[-1][1][0] == number:
                _, (_, before, shown) = self._events[-1]
                self._events[-1] = ("advance", (number, before + amount, {**shown, **figures}))
            else:
                self._events.append(("advance", (number, amount, figures)))

    def close(self) -> None:
        """Send what is left."""
        self._ended.set()
        self._thread.join()

    def _send(self) -> None:
        stopped, ending = False, False
        while not ending:
            ending = self._ended.wait(_SECONDS)
            with self._lock:
                events, self._events = self._events, []
            if self._tell(events) and not stopped:
                stopped = True
                self._stop()


class _RelayedTask:
    def __init__(self, owner: RelayedProgress, number: int) -> None:
        self._owner, self._number = owner, number

    def advance(self, amount: int, **figures: str) -> None:
        self._owner.advanced(self._number, amount, figures)


@contextmanager
def retold(progress: Progress) -> Iterator[Callable[[list[tuple[str, tuple[Any, ...]]]], dict[str, Any]]]:
    """Shows on a progress what a relay was told.

    Gives a function that takes events and returns those that are no progress, by kind.
    """
    bars: dict[int, tuple[AbstractContextManager[Task], Task]] = {}

    def show(events: list[tuple[str, tuple[Any, ...]]]) -> dict[str, Any]:
        others: dict[str, Any] = {}
        for kind, what in events:
            if kind == "note":
                progress.note(*what)
            elif kind == "begin":
                number, title, total, unit = what
                context = progress.task(title, total, unit)
                bars[number] = (context, context.__enter__())
            elif kind == "advance" and what[0] in bars:
                bars[what[0]][1].advance(what[1], **what[2])
            elif kind == "end" and what[0] in bars:
                bars.pop(what[0])[0].__exit__(None, None, None)
            elif kind not in ("advance", "end"):
                others[kind] = what[0]
        return others

    try:
        yield show
    finally:
        for context, _ in reversed(list(bars.values())):
            context.__exit__(None, None, None)
