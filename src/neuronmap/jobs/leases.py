"""Who works on which job: claims, heartbeats and ends, each fenced by the attempt's number.

A process may write as long as its attempt is the newest and the job is held. When its lease is lost (it was believed dead, the job
was started again), every method here changes nothing and says so, and the process stops itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, func, or_, select, update

from neuronmap.database import Database
from neuronmap.jobs.events import add_events, state_event
from neuronmap.jobs.job import HELD, Job
from neuronmap.jobs.tables import jobs, now

__all__ = ["LEASE_S", "MOST_CRASHES", "Held", "Leases", "Stop"]

LEASE_S: Final = 30.0
"""Seconds without a heartbeat after which a job is taken to be abandoned."""
MOST_CRASHES: Final = 3
"""Processes that a job may lose before it fails."""

_CLAIM_LOCK = 16
_CANDIDATES = 100
"""Waiting jobs that a claim looks at."""
_REASON_KEPT_S = 15.0
"""How long one machine's word on why a job waits stands before another's may replace it."""


@dataclass(frozen=True)
class Held:
    """A job with a process, or about to get one.

    Attributes:
        job: the job.
        host, pid, pid_started: its process; no pid until it has reported.
        supervisor: who started it.
        lease_left: seconds until it counts as abandoned; negative after that.
        stopping: seconds since its process was asked to stop; None if it was not.
    """

    job: Job
    host: str
    pid: int | None
    pid_started: float | None
    supervisor: str
    lease_left: float
    stopping: float | None


@dataclass(frozen=True)
class Stop:
    """What a heartbeat finds: whether the process is asked to stop."""

    asked: bool


Fits = Callable[[Job, Sequence[Held]], str]
"""Says why a job cannot be started now, given those that are held on this machine; empty if it can."""


class Leases:
    """The side of the queue that supervisors and the processes of jobs see.

    Args:
        database: the queue's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- supervisors -------------------------------------------------------------------------------------------------

    def claim(self, home: str, host: str, supervisor: str, fits: Fits) -> Job | None:
        """Take the first waiting job that fits; of any number of processes that try, one gets it.

        Args:
            home: whose jobs; see :func:`neuronmap.jobs.logs.home_id`.
            host: this machine; claims of one machine take turns, so that they see each other's jobs.
            supervisor: who claims.
            fits: decides; its reason is kept with the job that waits.
        """
        if not self.waiting(home):
            return None
        with self._database.write() as connection:
            self._database.lock(connection, _CLAIM_LOCK + sum(host.encode()) % 1024)
            held = self._held(connection, jobs.c.host == host)
            events: list[Any] = []
            claimed = None
            for job in self._waiting(connection, home):
                reason = fits(job, held)
                if reason:
                    if self._says_why(connection, job, host, reason):
                        events.append((job.id, state_event("queued", reason, job.attempt)))
                    continue
                claimed = self._start(connection, job, host, supervisor)
                if claimed is not None:
                    events.append((job.id, state_event("running", "", claimed.attempt)))
                    break
            add_events(self._database, connection, events)
            return claimed

    def held(self, *where: Any) -> list[Held]:
        """Jobs that have a process or should have one."""
        with self._database.read() as connection:
            return self._held(connection, *where)

    def ask_stop(self, job: str, attempt: int) -> None:
        """Ask a job's process to stop; it looks four times a second."""
        with self._database.write() as connection:
            connection.execute(update(jobs).where(*_is(job, attempt)).values(stop_at=now()))

    def waiting(self, home: str) -> int:
        """How many jobs of a home wait."""
        query = select(func.count()).select_from(jobs).where(jobs.c.state == "queued", jobs.c.home == home)
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def adopt(self, job: str, attempt: int, supervisor: str) -> None:
        """Become the supervisor of a job whose own is gone."""
        with self._database.write() as connection:
            connection.execute(update(jobs).where(*_is(job, attempt)).values(supervisor=supervisor))

    def lost(self, job: str, attempt: int, why: str, failure: Mapping[str, str], *, lapsed: bool = False) -> str | None:
        """Record that a job's process ended without a word: start it again later, or give up after :data:`MOST_CRASHES`.

        Args:
            job, attempt: which.
            why: what is known of the end.
            failure: the error to keep when it is given up.
            lapsed: only if the lease has run out, by the database's clock, within this very transaction.

        Returns:
            The new state; None if there was nothing to do (it had ended, or another was first).
        """
        with self._database.write() as connection:
            condition = [*_is(job, attempt), *([jobs.c.lease_until < now()] if lapsed else [])]
            row = _locked(connection, *condition)
            if row is None:
                return None
            crashes = row["crashes"] + 1
            values: dict[str, Any] = {"crashes": crashes, "reason": why}
            if row["state"] == "cancelling":
                values.update(state="cancelled", finished_at=now())
            elif crashes >= MOST_CRASHES:
                values.update(state="failed", finished_at=now(), error=dict(failure))
            else:
                values.update(state="queued", reason=f"{why}; it will be started again", reason_host=None)
            return self._end(connection, job, attempt, values)

    def requeue(self, reason: str, *where: Any) -> list[str]:
        """Put interrupted jobs back into the queue; says which."""
        with self._database.write() as connection:
            found = connection.execute(
                update(jobs)
                .where(jobs.c.state == "interrupted", *where)
                .values(state="queued", reason=reason, reason_host=None)
                .returning(jobs.c.id, jobs.c.attempt)
            ).all()
            add_events(
                self._database, connection, [(row.id, state_event("queued", reason, row.attempt)) for row in found]
            )
            return [row.id for row in found]

    # --- the process of a job ----------------------------------------------------------------------------------------

    def take(self, job: str, attempt: int, host: str, pid: int, pid_started: float) -> Job | None:
        """Begin: say which process this is. None if the attempt is not the newest."""
        values = {"host": host, "pid": pid, "pid_started": pid_started}
        with self._database.write() as connection:
            taken = connection.execute(
                update(jobs).where(*_is(job, attempt)).values(**values, **_alive()).returning(jobs, _age())
            )
            row = taken.mappings().one_or_none()
            return Job.from_row(row) if row is not None else None

    def look(self, job: str, attempt: int) -> Stop | None:
        """Whether to stop; None if the lease is lost."""
        with self._database.read() as connection:
            row = connection.execute(select(jobs.c.stop_at).where(*_is(job, attempt))).one_or_none()
        return Stop(row.stop_at is not None) if row is not None else None

    def beat(
        self, job: str, attempt: int, entries: Sequence[tuple[str, dict[str, Any]]] = (), **values: Any
    ) -> Stop | None:
        """Extend the lease, and write progress, notes or other columns with it; None if the lease is lost."""
        with self._database.write() as connection:
            beaten = update(jobs).where(*_is(job, attempt)).values(**values, **_alive()).returning(jobs.c.stop_at)
            row = connection.execute(beaten).one_or_none()
            if row is None:
                return None
            add_events(self._database, connection, [(job, entry) for entry in entries])
            return Stop(row.stop_at is not None)

    def finish(self, job: str, attempt: int, state: str, reason: str = "", **values: Any) -> str | None:
        """End the attempt as finished, failed or interrupted; an interrupted one that was being cancelled is cancelled.

        Returns:
            The state it is in now; None if the lease is lost.
        """
        with self._database.write() as connection:
            row = _locked(connection, *_is(job, attempt))
            if row is None:
                return None
            if state == "interrupted" and row["state"] == "cancelling":
                state = "cancelled"
            ended = {"state": state, "reason": reason, "finished_at": now(), **values}
            return self._end(connection, job, attempt, ended)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _held(self, connection: Connection, *where: Any) -> list[Held]:
        left, stopping = (jobs.c.lease_until - now()).label("left"), (now() - jobs.c.stop_at).label("stopping")
        query = select(jobs, _age(), left, stopping).where(jobs.c.state.in_(HELD), *where).order_by(jobs.c.number)
        return [
            Held(
                job=Job.from_row(row),
                host=row["host"] or "",
                pid=row["pid"],
                pid_started=row["pid_started"],
                supervisor=row["supervisor"] or "",
                lease_left=row["left"] if row["left"] is not None else 0.0,
                stopping=row["stopping"],
            )
            for row in connection.execute(query).mappings()
        ]

    def _waiting(self, connection: Connection, home: str) -> list[Job]:
        query = select(jobs, _age()).where(jobs.c.state == "queued", jobs.c.home == home)
        found = connection.execute(query.order_by(jobs.c.number).limit(_CANDIDATES)).mappings()
        return [Job.from_row(row) for row in found]

    def _says_why(self, connection: Connection, job: Job, host: str, reason: str) -> bool:
        """Keep the reason if it is another one, and no other machine's of just now."""
        mine = or_(jobs.c.reason_host.is_(None), jobs.c.reason_host == host, jobs.c.reason_at < now() - _REASON_KEPT_S)
        written = (
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.state == "queued", jobs.c.reason != reason, mine)
            .values(reason=reason, reason_host=host, reason_at=now())
        )
        return connection.execute(written).rowcount > 0

    def _start(self, connection: Connection, job: Job, host: str, supervisor: str) -> Job | None:
        """The claim itself: one statement, which on PostgreSQL steps over a row that another transaction has in hand."""
        free = select(jobs.c.number).where(jobs.c.id == job.id, jobs.c.state == "queued")
        free = free.with_for_update(skip_locked=True)  # SQLite has no such words, and needs none
        fresh = {"stop_at": None, "pid": None, "pid_started": None, "progress": None, "error": None, "result": None}
        claimed = (
            update(jobs)
            .where(jobs.c.number == free.scalar_subquery())
            .values(state="running", attempt=jobs.c.attempt + 1, host=host, supervisor=supervisor, reason="", **fresh)
            .values(started_at=func.coalesce(jobs.c.started_at, now()), **_alive())
            .returning(jobs, _age())
        )
        row = connection.execute(claimed).mappings().one_or_none()
        return Job.from_row(row) if row is not None else None

    def _end(self, connection: Connection, job: str, attempt: int, values: dict[str, Any]) -> str:
        connection.execute(update(jobs).where(*_is(job, attempt)).values(**values, lease_until=None, stop_at=None))
        state: str = values["state"]
        add_events(self._database, connection, [(job, state_event(state, values["reason"], attempt))])
        return state


def _is(job: str, attempt: int) -> tuple[Any, ...]:
    """The fence: this attempt is the newest, and the job is held."""
    return (jobs.c.id == job, jobs.c.attempt == attempt, jobs.c.state.in_(HELD))


def _locked(connection: Connection, *where: Any) -> Mapping[str, Any] | None:
    """The row, kept from others until the transaction ends."""
    row = connection.execute(select(jobs).where(and_(*where)).with_for_update()).mappings().one_or_none()
    return dict(row) if row is not None else None


def _alive() -> dict[str, Any]:
    return {"heartbeat_at": now(), "lease_until": now() + LEASE_S}


def _age() -> Any:
    return (now() - jobs.c.heartbeat_at).label("heartbeat_age")
