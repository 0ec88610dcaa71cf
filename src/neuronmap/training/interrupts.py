"""Ctrl-C and SIGTERM during training: finish the step, save, then stop. A second Ctrl-C stops at once.

Not so under torchrun, which passes on to its processes what the terminal has sent them already, and itself ends those that take too long.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopSignals", "request_stop", "stop_requested"]

_WAITING: list[StopSignals] = []
"""Those that are open, wherever they were opened."""


def request_stop(by: str) -> None:
    """Ask what is under way in this process to stop, as a signal would; for threads that signals do not reach.

    Args:
        by: who asks, for the message.
    """
    for waiting in tuple(_WAITING):
        waiting.requested = waiting.requested or by


def stop_requested() -> bool:
    """Whether something that is under way in this process was asked to stop."""
    return any(waiting.requested is not None for waiting in tuple(_WAITING))


class StopSignals:
    """Context manager that turns the first SIGINT or SIGTERM into ``requested``; outside the main thread
    only :func:`request_stop` does.

    Args:
        again_ends: whether a second signal ends at once.
    """

    def __init__(self, again_ends: bool = True) -> None:
        self.requested: str | None = None
        self._again_ends = again_ends
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        _WAITING.append(self)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _WAITING.remove(self)
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested is not None and self._again_ends:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
