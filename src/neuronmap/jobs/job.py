"""What a job is, as everybody reads it: the record, its progress, its events, and the states it goes through.

queued ──> running ──> finished
  ^  │        ├──────> failed         an error of its own, or its process was lost three times
  │  │        ├──────> interrupted    its process was told to stop; taken up again when a server starts
  │  │        └──> cancelling ──> cancelled
  │  └───────────────────────────────^
  └── resume: from cancelled, failed or interrupted; a lost process and a stopped server do the same by themselves
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict

from neuronmap.jobs.kinds import list_kinds

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

__all__ = ["ACTIVE", "ENDED", "HELD", "STATES", "STOPPED", "Failure", "Job", "JobEvent", "JobProgress"]

STATES: Final = ("queued", "running", "cancelling", "cancelled", "finished", "failed", "interrupted")
HELD: Final = ("running", "cancelling")
"""States in which a process works on the job, under a lease."""
ACTIVE: Final = ("queued", *HELD)
STOPPED: Final = ("cancelled", "failed", "interrupted")
"""States that resuming leaves."""
ENDED: Final = ("finished", *STOPPED)

_POINTLESS = frozenset(
    {"config", "corpus_empty", "corpus_format", "diverged", "hook_point", "input", "mismatch", "model_format"}
)
"""Errors that the same settings would meet again."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class JobProgress(_Record):
    """How far a job is with the piece of work it is at."""

    title: str
    """What is being done."""
    done: int
    """Units done."""
    total: int | None
    """Units in all; null when not known."""
    unit: str
    """Of what."""
    rate: float
    """Units a second, since this piece of work began."""
    seconds_left: float | None
    """At that rate; null when not known."""
    figures: dict[str, str]
    """Named figures beside the bar (loss, L0, ...), as they are shown."""


class Failure(_Record):
    """Why a job failed."""

    code: str
    """Stable code; see the page of errors in the docs. ``neuronmap_error`` is a defect of ours; its traceback is in the log."""
    message: str
    """What happened."""
    hint: str
    """The next step; may be empty."""


class Job(_Record):
    """One job, as it stands in the table."""

    id: str
    """Eight hexadecimal digits."""
    number: int
    """Place in the order of submission; listings are paged by it."""
    kind: str
    """train, analyze, evaluate, compare or track."""
    title: str
    """What it does, in a few words."""
    args: dict[str, Any]
    """Its arguments; each kind has its own, checked when it was submitted."""
    state: str
    """queued, running, cancelling, cancelled, finished, failed or interrupted."""
    reason: str
    """Why it waits, or why it is in this state, in words; may be empty."""
    attempt: int
    """How many times it was started; each start has its own number, and only the newest may write."""
    device: str
    """cpu, cuda:N or mps."""
    memory_bytes: int
    """Memory it is expected to need there."""
    created: str
    """ISO 8601, UTC."""
    started: str | None
    """First start."""
    finished: str | None
    """Last end; null while it is queued or running."""
    heartbeat_age: float | None
    """Seconds since its process last reported; null when there is none."""
    worker: str | None
    """Its process, as host:pid; the last one's after the end."""
    progress: JobProgress | None
    """The newest; kept after the end."""
    notes: list[str]
    """The last twenty lines it said; all of them are in its log."""
    result: dict[str, Any] | None
    """What a finished job leaves, by kind."""
    error: Failure | None
    """Why a failed job failed."""
    run: str | None
    """Training only: name of the run's folder under ``runs/``."""
    idempotency_key: str | None
    """What the submitter gave to be safe from submitting twice."""
    resumes: bool
    """Whether it may be resumed, and that would make sense."""

    @classmethod
    def from_row(cls, row: RowMapping) -> Job:
        """From a row of the table (with ``heartbeat_age``); what a newer version may have put there is passed over."""
        held = row["state"] in HELD
        return cls(
            **{name: row[name] for name in ("id", "number", "kind", "title", "state", "reason", "attempt", "run")},
            **{name: row[name] for name in ("device", "memory_bytes", "idempotency_key")},
            args=row["args"] or {},
            created=stamp(row["created_at"]) or "",
            started=stamp(row["started_at"]),
            finished=None if row["state"] in ACTIVE else stamp(row["finished_at"]),
            heartbeat_age=row["heartbeat_age"] if held else None,
            worker=f"{row['host']}:{row['pid']}" if row["pid"] is not None else None,
            progress=_known(JobProgress, row["progress"]),
            notes=[str(note) for note in row["notes"] or []],
            result=row["result"],
            error=_known(Failure, row["error"]),
            resumes=row["state"] in STOPPED
            and row["kind"] in list_kinds()
            and (row["error"] or {}).get("code") not in _POINTLESS,
        )


class JobEvent(_Record):
    """Something that happened to a job. Events of all jobs have one rising number, so a reader asks for what came after it."""

    id: int
    """Rising; never used twice."""
    job: str
    """Id of the job."""
    at: str
    """ISO 8601, UTC."""
    kind: str
    """state (data: state, reason, attempt), progress (data: as ``JobProgress``) or note (data: text)."""
    data: dict[str, Any]


def stamp(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _known(model: type[_Record], value: Any) -> Any:
    """The record if it has the fields of this version, else None."""
    if not isinstance(value, dict) or not set(model.model_fields) <= set(value):
        return None
    return model.model_validate(value)
