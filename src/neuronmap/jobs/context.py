"""What a kind of job gets to work with: where to report, the library, and the fence before anything is published."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from neuronmap import paths
from neuronmap.hub import LibraryEntry, SAEModelHub
from neuronmap.jobs.job import Job
from neuronmap.jobs.reporting import Reporter
from neuronmap.progress import Progress

__all__ = ["FencedHub", "JobContext"]


class FencedHub(SAEModelHub):
    """The library, for a process that may have lost its job: it asks before it puts something in.

    Args:
        reporter: knows whether the lease still holds; it ends the process if not.
    """

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def register(self, *args: Any, **keywords: Any) -> LibraryEntry:
        """As :meth:`SAEModelHub.register`, behind the fence."""
        self._reporter.confirm()
        return super().register(*args, **keywords)

    def attach(self, *args: Any, **keywords: Any) -> Path:
        """As :meth:`SAEModelHub.attach`, behind the fence."""
        self._reporter.confirm()
        return super().attach(*args, **keywords)


class JobContext:
    """What an attempt works with.

    Args:
        job: as it was when the attempt began.
        reporter: of this process.

    Attributes:
        job: the job.
        progress: where notes and bars go: into the table, and as lines into the log.
        hub: the library.
    """

    def __init__(self, job: Job, reporter: Reporter) -> None:
        self.job = job
        self._reporter = reporter
        self.progress: Progress = reporter
        self.hub: SAEModelHub = FencedHub(reporter)

    def fence(self) -> None:
        """To be called right before anything is published: returns while the attempt is the newest, and else ends the process."""
        self._reporter.confirm()

    def run_folder(self, label: str) -> Path:
        """The job's training run: named at the first attempt, the same for every later one.

        Args:
            label: what to call it, besides time and id.
        """
        name = self.job.run
        if name is None:
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            name = f"{stamp}-{label}-{self.job.id[:6]}"
            self._reporter.confirm(run=name)
        return paths.runs_folder() / name
