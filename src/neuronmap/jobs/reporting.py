"""How the process of a job reports: one thread that keeps the lease, writes progress and notes, and hears that it should stop.

The work itself never waits for the database, except at the fence and when the lease could not be kept for most of its length
(the machine slept, the database was away): then it waits until it knows that the job is still its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from neuronmap.jobs.leases import LEASE_S, Leases, Stop
from neuronmap.jobs.logs import trim_log
from neuronmap.progress import LineProgress

__all__ = ["LOST_CODE", "Reporter"]

LOST_CODE: Final = 75
"""Exit code of a process that has lost its job."""

_LOOK_S = 0.2
_WRITE_S = 0.34
"""Between two writes of progress: at most three events a second."""
_BEAT_S = 3.0
_RETRY_S = 0.5
_TRIM_S = 10.0
_NOTES = 20
_NOTE_LENGTH = 2000


class Reporter:
    """Progress of one attempt, in the table and in the log. Its thread runs between :meth:`start` and :meth:`close`.

    Args:
        leases: the table.
        job: id of the job.
        attempt: its number.
        notes: the last lines of earlier attempts.
        log: the file that stdout and stderr go to, kept to its size here.
        on_lost: what to do when the lease is lost; ends the process by default.
    """

    def __init__(
        self,
        leases: Leases,
        job: str,
        attempt: int,
        *,
        notes: list[str] | None = None,
        log: Path | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._leases, self._job, self._attempt, self._log = leases, job, attempt, log
        self._on_lost = on_lost or _end_process
        self._tail = deque(notes or [], maxlen=_NOTES)
        self._lines = LineProgress(interval_s=30.0)
        self._tasks: list[_Task] = []
        self._lock = threading.Lock()  # over what the work has to say
        self._said: list[tuple[str, dict[str, Any]]] = []
        self._changed = False
        self._confirmed = time.time()
        self._stop_sent = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_reporting, name="neuronmap-report", daemon=True)

    def start(self) -> None:
        """Begin to report. In the main thread, so that signals from elsewhere are noticed too."""
        self._signals, write = os.pipe()
        for end in (self._signals, write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._thread.start()

    def close(self) -> None:
        """Write what is left, and end the thread."""
        self._closing.set()
        self._thread.join()
        signal.set_wakeup_fd(-1)

    # --- Progress ----------------------------------------------------------------------------------------------------

    def note(self, message: str) -> None:
        """One line for the table, its events and the log."""
        self._lines.note(message)
        with self._lock:
            self._tail.append(message[:_NOTE_LENGTH])
            self._said.append(("note", {"text": message[:_NOTE_LENGTH]}))
        self.keep()

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[_Task]:
        """A piece of work with its numbers; the last of them is always written."""
        with self._lines.task(title, total, unit) as line:
            task = _Task(self, line, title, total, unit)
            with self._lock:
                self._tasks.append(task)
                self._changed = True
            try:
                yield task
            finally:
                with self._lock:
                    self._tasks.remove(task)
                    self._said.append(("progress", task.record()))
                    self._changed = bool(self._tasks)

    def advanced(self) -> None:
        """A task has moved on."""
        self._changed = True
        self.keep()

    # --- the lease ---------------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """Go on only with a lease that cannot have run out."""
        if time.time() - self._confirmed > 0.7 * LEASE_S:
            self.confirm()

    def confirm(self, **values: Any) -> None:
        """The fence: returns once the table says that this attempt is the newest, with a fresh lease; else ends the process.

        Args:
            values: columns to write with it.
        """
        while True:
            asked = time.time()
            try:
                found = self._leases.beat(self._job, self._attempt, **values)
            except DBAPIError as error:
                self._lines.note(f"The database of jobs cannot be reached; waiting for it: {error.orig}")
                time.sleep(_RETRY_S)
                continue
            self._heard(found, asked)
            return

    def _heard(self, found: Stop | None, asked: float) -> None:
        if found is None:
            self._lines.note(
                f"Attempt {self._attempt} of job {self._job} is not the newest any more; it stops without publishing anything."
            )
            self._on_lost()
            return
        self._confirmed = asked
        if found.asked and not self._stop_sent:
            self._stop_sent = True
            os.kill(os.getpid(), signal.SIGTERM)  # the library's own way to stop: finish the step, save

    # --- the thread --------------------------------------------------------------------------------------------------

    def _keep_reporting(self) -> None:
        written = beaten = trimmed = 0.0
        while True:
            closing = self._closing.wait(_LOOK_S)
            self._notice_signals()
            now, asked = time.monotonic(), time.time()
            try:
                with self._lock:
                    something = self._changed or bool(self._said)
                if (something and (closing or now - written >= _WRITE_S)) or now - beaten >= _BEAT_S:
                    self._heard(self._write(), asked)
                    written = beaten = now
                else:
                    self._heard(self._leases.look(self._job, self._attempt), asked)
            except DBAPIError as error:
                self._lines.note(f"Progress could not be written: {error.orig}")
            if self._log is not None and now - trimmed >= _TRIM_S:
                trim_log(self._log)
                trimmed = now
            if closing:
                return

    def _write(self) -> Stop | None:
        with self._lock:
            said, self._said = self._said, []
            if self._changed and self._tasks:
                said = [*said, ("progress", self._tasks[-1].record())]
            self._changed = False
            tail = list(self._tail)
        values: dict[str, Any] = {"notes": tail} if any(kind == "note" for kind, _ in said) else {}
        numbers = [data for kind, data in said if kind == "progress"]
        if numbers:
            values["progress"] = numbers[-1]
        try:
            return self._leases.beat(self._job, self._attempt, said, **values)
        except DBAPIError:
            with self._lock:
                self._said = said + self._said  # again with the next one
            raise

    def _notice_signals(self) -> None:
        """A signal from elsewhere counts as the request to stop: a second one would end the work without saving."""
        with contextlib.suppress(BlockingIOError):
            if {signal.SIGTERM, signal.SIGINT} & set(os.read(self._signals, 64)):
                self._stop_sent = True


class _Task:
    """One piece of work, as numbers."""

    def __init__(self, owner: Reporter, line: Any, title: str, total: int | None, unit: str) -> None:
        self._owner, self._line = owner, line
        self._title, self._total, self._unit = title, total, unit
        self._done, self._figures, self._started = 0, dict[str, str](), time.monotonic()

    def advance(self, amount: int, **figures: str) -> None:
        """More is done."""
        self._done += amount
        self._figures = {**self._figures, **figures}
        self._line.advance(amount, **figures)
        self._owner.advanced()

    def record(self) -> dict[str, Any]:
        """As :class:`neuronmap.jobs.JobProgress` has it."""
        rate = self._done / max(time.monotonic() - self._started, 1e-3)
        left = (self._total - self._done) / rate if self._total is not None and rate > 0 else None
        return {
            "title": self._title,
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
            "rate": round(rate, 3),
            "seconds_left": None if left is None else round(max(left, 0.0), 1),
            "figures": self._figures,
        }


def _end_process() -> None:
    """At once, without running anything more: what is half written lies in staging folders."""
    sys.stderr.flush()
    os._exit(LOST_CODE)
