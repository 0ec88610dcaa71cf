"""How long work reports itself: one small protocol, a rich bar for terminals, plain lines for logs.

Library code takes ``progress: Progress | None`` and calls :func:`default` for None; it never prints.
Everything goes to stderr, so that stdout stays free for results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID

__all__ = ["LineProgress", "Progress", "RichProgress", "SilentProgress", "Task", "default"]


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, amount: int, **figures: str) -> None:
        """Report ``amount`` more units done, and named figures to show beside the bar (``loss="0.12"``)."""


class Progress(Protocol):
    """Where notes and bars go."""

    def note(self, message: str) -> None:
        """Show one line that stays (a rule that was applied, a cache that was reused)."""

    def task(self, title: str, total: int | None, unit: str) -> AbstractContextManager[Task]:
        """Open a bar of ``total`` units (None when unknown); it shows rate and time left, and closes on exit."""


class _SilentTask:
    def advance(self, amount: int, **figures: str) -> None:
        pass


class SilentProgress:
    """Shows nothing (``--quiet``)."""

    def note(self, message: str) -> None:
        pass

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        yield _SilentTask()


class _LineTask:
    def __init__(self, owner: LineProgress, title: str, total: int | None, unit: str) -> None:
        self._owner, self._title, self._total, self._unit = owner, title, total, unit
        self.done = 0
        self.figures: dict[str, str] = {}
        self.started = self._last = time.monotonic()

    def advance(self, amount: int, **figures: str) -> None:
        self.done += amount
        self.figures.update(figures)
        now = time.monotonic()
        if now - self._last >= self._owner.interval_s:
            self._last = now
            self._owner.note(self.line(now))

    def line(self, now: float) -> str:
        rate = self.done / max(now - self.started, 1e-9)
        of = f"/{self._total:,}" if self._total else ""
        left = f", {_clock((self._total - self.done) / rate)} left" if self._total and rate > 0 else ""
        figures = "".join(f", {name} {value}" for name, value in self.figures.items())
        return f"{self._title}: {self.done:,}{of} {self._unit}, {_speed(rate)} {self._unit}/s{left}{figures}"


class LineProgress:
    """One plain line every ``interval_s`` seconds, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, interval_s: float = 10.0) -> None:
        self._stream = stream
        self.interval_s = interval_s

    def note(self, message: str) -> None:
        print(message, file=self._stream or sys.stderr, flush=True)

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        task = _LineTask(self, title, total, unit)
        yield task
        seconds = time.monotonic() - task.started
        if seconds >= 2.0:
            rate = task.done / max(seconds, 1e-9)
            self.note(f"{title}: done, {task.done:,} {unit} in {_clock(seconds)} ({_speed(rate)} {unit}/s)")


class _RichTask:
    def __init__(self, bar: RichBar, task_id: TaskID, unit: str) -> None:
        self._bar, self._id, self._unit = bar, task_id, unit

    def advance(self, amount: int, **figures: str) -> None:
        shown = "  ".join(f"[dim]{name}[/] {value}" for name, value in figures.items())
        if shown:
            self._bar.update(self._id, advance=amount, figures=shown)
        else:
            self._bar.update(self._id, advance=amount)
        task = self._bar.tasks[self._bar.task_ids.index(self._id)]
        speed = task.finished_speed or task.speed
        if speed is not None:
            self._bar.update(self._id, rate=f"{_speed(speed)} {self._unit}/s")


class RichProgress:
    """Live bars with rate, time left and figures, on a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self.console = console or Console(stderr=True)

    def note(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False)

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[figures]}"),
        )
        with Progress(*columns, console=self.console, speed_estimate_period=30.0) as bar:
            task_id = bar.add_task(title, total=total, rate="", figures="")
            yield _RichTask(bar, task_id, unit)


def _speed(rate: float) -> str:
    """Units a second; slow work has digits that say something."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def default() -> Progress:
    """A rich bar when stderr is a terminal, plain lines otherwise."""
    return RichProgress() if sys.stderr.isatty() else LineProgress()
