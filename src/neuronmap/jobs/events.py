"""The events of jobs: written in order, read from a place onwards, and let go when they are old."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, func, insert, select

from neuronmap.database import Database
from neuronmap.jobs.job import ENDED, JobEvent, stamp
from neuronmap.jobs.tables import events, jobs, now

__all__ = ["EVENTS_KEPT", "PROGRESS_KEPT_S", "add_events", "prune_events", "read_events", "state_event"]

EVENTS_KEPT: Final = 50_000
"""Newest events that pruning leaves."""
PROGRESS_KEPT_S: Final = 3600.0
"""How long the progress of an ended job is kept as events; the last of it stays in the job itself."""

_EVENTS_LOCK = 1
Entry = tuple[str, dict[str, Any]]


def state_event(state: str, reason: str, attempt: int) -> Entry:
    """What an event of a changed state (or reason) says."""
    return ("state", {"state": state, "reason": reason, "attempt": attempt})


def add_events(database: Database, connection: Connection, entries: Sequence[tuple[str, Entry]]) -> None:
    """Add events as the last thing of a transaction.

    PostgreSQL gives out numbers before a transaction ends, so a reader could see 8 and never 7. One transaction at a time
    takes numbers here, and keeps the lock until all see them.

    Args:
        database: whose lock it is.
        connection: in a transaction that writes.
        entries: (job id, (kind, data)), in order.
    """
    if not entries:
        return
    database.lock(connection, _EVENTS_LOCK)
    connection.execute(
        insert(events).values(at=now()), [{"job": job, "kind": kind, "data": data} for job, (kind, data) in entries]
    )


def read_events(connection: Connection, after: int, job: str | None, limit: int) -> list[JobEvent]:
    """Events with greater numbers than ``after``, in order."""
    query = select(events).where(events.c.id > after).order_by(events.c.id).limit(limit)
    if job is not None:
        query = query.where(events.c.job == job)
    return [
        JobEvent(id=row["id"], job=row["job"], at=stamp(row["at"]) or "", kind=row["kind"], data=row["data"] or {})
        for row in connection.execute(query).mappings()
    ]


def prune_events(connection: Connection) -> int:
    """Delete what is past :data:`PROGRESS_KEPT_S` or :data:`EVENTS_KEPT`; says how many went."""
    ended = select(jobs.c.id).where(jobs.c.state.in_(ENDED), jobs.c.finished_at < now() - PROGRESS_KEPT_S)
    gone = connection.execute(delete(events).where(and_(events.c.kind == "progress", events.c.job.in_(ended)))).rowcount
    oldest = select(events.c.id).order_by(events.c.id.desc()).offset(EVENTS_KEPT).limit(1).scalar_subquery()
    return gone + connection.execute(delete(events).where(events.c.id <= func.coalesce(oldest, 0))).rowcount
