"""The child that runs models: ``python -m neuronmap.web.live.worker``. Requests come on stdin, answers go to stdout.

The real stdout is kept aside and descriptor 1 becomes stderr, so that nothing that a library prints can get between two answers.
When stdin ends, the server is gone and so is the child, whatever it was doing.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from neuronmap.allocator import keep_freed_memory
from neuronmap.errors import Interrupted, NeuronMapError
from neuronmap.progress import Task
from neuronmap.web.live.protocol import REQUESTS

__all__ = ["main"]

_BETWEEN_REPORTS_S = 0.2


class _Line:
    """The connection to the server."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb")
        self._in: BinaryIO = os.fdopen(os.dup(0), "rb")
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self.requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.cancelled: set[str] = set()

    def listen(self) -> None:
        """Read requests until the server is gone, in a thread of its own."""
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def _read(self) -> None:
        for line in self._in:
            message = json.loads(line)
            if "cancel" in message:
                self.cancelled.add(message["cancel"])
            else:
                self.requests.put(message)
        os._exit(0)  # work under way has nobody left to go to

    def send(self, **message: Any) -> None:
        """One document."""
        self._out.write(json.dumps(message, ensure_ascii=True, allow_nan=False).encode() + b"\n")
        self._out.flush()


class _Reports:
    """Progress as messages; work that was cancelled stops at its next step."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self.request = ""

    def note(self, message: str) -> None:
        pass  # what a reader should know is in the answer

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        yield _Counted(self, title, total, unit)

    def report(self, progress: dict[str, Any]) -> None:
        self._line.send(id=self.request, progress=progress)

    def require_wanted(self) -> None:
        if self.request in self._line.cancelled:
            raise Interrupted("The request was cancelled.")


class _Counted:
    """One bar."""

    def __init__(self, owner: _Reports, title: str, total: int | None, unit: str) -> None:
        self._owner, self._title, self._total, self._unit = owner, title, total, unit
        self._done, self._last = 0, time.monotonic()

    def advance(self, amount: int, **figures: str) -> None:
        del figures
        self._done += amount
        self._owner.require_wanted()
        now = time.monotonic()
        if now - self._last >= _BETWEEN_REPORTS_S:
            self._last = now
            self._owner.report({"title": self._title, "done": self._done, "total": self._total, "unit": self._unit})


def main() -> None:
    """Answer requests until the server is gone."""
    line = _Line()
    options = argparse.ArgumentParser()
    options.add_argument("--library", type=Path, default=None)
    options.add_argument("--memory", type=int, default=psutil.virtual_memory().total // 2)
    given = options.parse_args()
    line.listen()

    from neuronmap.web.live.loaded import Loaded

    reports = _Reports(line)
    loaded = Loaded(
        given.library, given.memory, reports, loading=lambda: line.send(id=reports.request, state="loading")
    )
    line.send(ready=True)
    while True:
        message = line.requests.get()
        reports.request = message["id"]
        _answer(message, loaded, reports, line)
        line.cancelled.discard(message["id"])


def _answer(message: dict[str, Any], loaded: Any, reports: _Reports, line: _Line) -> None:
    """Send the answer, or why there is none."""
    from neuronmap.web.live.operations import perform

    number = message["id"]
    try:
        reports.require_wanted()
        request = REQUESTS[message["operation"]].from_dict(message["request"])
        answer = perform(request, loaded, reports, running=lambda: line.send(id=number, state="running"))
        memory = psutil.Process().memory_info().rss
        line.send(id=number, answer=answer.model_dump(mode="json"), memory=memory)
    except NeuronMapError as error:
        line.send(id=number, error={"code": error.code, "message": error.message, "hint": error.hint})
    except Exception as error:  # noqa: BLE001 (the child goes on; the server's log has the details)
        traceback.print_exc(file=sys.stderr)
        line.send(id=number, error=_fault(error))


def _fault(error: Exception) -> dict[str, str]:
    """What to say of an error that is none of ours."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's is no MemoryError
        return {"code": "memory", "message": "There was not enough memory for this request.", "hint": "Use less text."}
    return {"code": "internal", "message": "The model's process failed on this request.", "hint": ""}


if __name__ == "__main__":
    keep_freed_memory()  # the process is ours
    main()
