"""Durable background work: a table of jobs, a supervisor that starts them, one process for each.

    submit -> queued -> a supervisor claims it (attempt n) -> python -m neuronmap.jobs.run JOB n -> finished

The table is SQLite in the home folder, or PostgreSQL (``NEURONMAP_DATABASE``). Nothing here loads torch; the processes of the jobs do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronmap.jobs.job import Failure as Failure
    from neuronmap.jobs.job import Job as Job
    from neuronmap.jobs.job import JobEvent as JobEvent
    from neuronmap.jobs.job import JobProgress as JobProgress
    from neuronmap.jobs.kinds import get_kind as get_kind
    from neuronmap.jobs.kinds import list_kinds as list_kinds
    from neuronmap.jobs.kinds.kind import Kind as Kind
    from neuronmap.jobs.logs import read_log as read_log
    from neuronmap.jobs.queue import JobQueue as JobQueue
    from neuronmap.jobs.supervisor import Supervisor as Supervisor

_HOMES = {
    "Failure": "neuronmap.jobs.job",
    "Job": "neuronmap.jobs.job",
    "JobEvent": "neuronmap.jobs.job",
    "JobProgress": "neuronmap.jobs.job",
    "JobQueue": "neuronmap.jobs.queue",
    "Kind": "neuronmap.jobs.kinds.kind",
    "Supervisor": "neuronmap.jobs.supervisor",
    "get_kind": "neuronmap.jobs.kinds",
    "list_kinds": "neuronmap.jobs.kinds",
    "read_log": "neuronmap.jobs.logs",
}

__all__ = [
    "Failure",
    "Job",
    "JobEvent",
    "JobProgress",
    "JobQueue",
    "Kind",
    "Supervisor",
    "get_kind",
    "list_kinds",
    "read_log",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'neuronmap.jobs' has no attribute '{name}'")
