"""``JobQueue``: what anybody may do with jobs: submit, look, cancel, resume, follow, tidy up."""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from neuronmap.database import Database, database_url
from neuronmap.errors import AlreadyExistsError, ConfigError, InputError, JobNotFoundError
from neuronmap.hashing import digest_json
from neuronmap.jobs.database import JOBS
from neuronmap.jobs.events import add_events, prune_events, read_events, state_event
from neuronmap.jobs.job import ACTIVE, ENDED, STATES, STOPPED, Job, JobEvent
from neuronmap.jobs.logs import home_id, remove_log
from neuronmap.jobs.tables import events, jobs, now

if TYPE_CHECKING:
    from neuronmap.jobs.checking import Checked

__all__ = ["JOBS_KEPT", "KEPT_DAYS", "JobQueue"]

KEPT_DAYS: Final = 30.0
"""How long an ended job is kept."""
JOBS_KEPT: Final = 1000
"""How many ended jobs are kept at most, the newest ones."""

_NOBODY = "waits for a server or a worker (neuronmap jobs work)"
_KEY_LENGTH = 200
_PAGE = 200

Jobs = list[Job]
Events = list[JobEvent]


class JobQueue:
    """The jobs of one database. Any number of processes and threads may use it at once.

    Args:
        database: where they are kept.

    Example:
        >>> with JobQueue.open() as queue:                                                       # doctest: +SKIP
        ...     job = queue.submit("evaluate", {"sae": "demo"})
        ...     queue.get(job.id).state
        'queued'
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, url: str | None = None) -> JobQueue:
        """Open the database, and make it or bring it up to date where needed.

        Args:
            url: ``sqlite:////absolute/path`` or ``postgresql+psycopg://user@host/name``; None for ``NEURONMAP_DATABASE``,
                else ``<home>/jobs.sqlite3``.

        Raises:
            ConfigError: no such kind of database.
            MismatchError: it was made by a newer NeuronMap.
            ResourceError, DamagedError: it cannot be reached, written or read.
            MissingDependencyError: PostgreSQL without psycopg.
        """
        return cls(Database(JOBS, database_url(JOBS, url)))

    def close(self) -> None:
        """Let go of the connections."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- submitting --------------------------------------------------------------------------------------------------

    def submit(self, kind: str, args: dict[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Check a job and put it into the queue.

        Args:
            kind: one of :func:`neuronmap.jobs.list_kinds`.
            args: its arguments, as plain JSON types; see the ``args`` of :func:`neuronmap.jobs.get_kind`.
            idempotency_key: any text of up to 200 characters. Submitting again with the same key gives the job that is there.

        Returns:
            The job; one with that key that is there already, whatever its state.

        Raises:
            ConfigError, InputError, NotInLibraryError, ModelError, DamagedError: what is wrong with the arguments.
            AlreadyExistsError: the SAE's name is taken, or another job is about to take it; or the key has other arguments.
        """
        if idempotency_key is not None and not 0 < len(idempotency_key) <= _KEY_LENGTH:
            raise ConfigError(
                f"An idempotency key has 1 to {_KEY_LENGTH} characters; this one has {len(idempotency_key)}."
            )
        try:
            digest = digest_json([kind, args])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The arguments of a job are plain JSON types: {error}.") from None
        if idempotency_key is not None and (found := self._with_key(idempotency_key, digest)) is not None:
            return found
        from neuronmap.jobs.checking import check

        checked = check(kind, args)
        self._require_unclaimed(kind, checked)
        try:
            return self._insert(kind, checked, digest, idempotency_key)
        except IntegrityError:
            # Another process has submitted with this key since.
            found = self._with_key(idempotency_key, digest) if idempotency_key is not None else None
            if found is None:
                raise
            return found

    def _insert(self, kind: str, checked: Checked, digest: str, key: str | None) -> Job:
        values: dict[str, Any] = {"id": secrets.token_hex(4), "home": home_id(), "kind": kind, "args_digest": digest}
        values |= {"title": checked.title, "args": checked.args, "idempotency_key": key, "reason": _NOBODY}
        needs = {"device": checked.device, "memory_bytes": checked.memory_bytes}
        with self.database.write() as connection:
            query = insert(jobs).values(**values, **needs, state="queued", created_at=now()).returning(jobs, _AGE)
            job = Job.from_row(connection.execute(query).mappings().one())
            add_events(self.database, connection, [(job.id, state_event("queued", _NOBODY, 0))])
        return job

    def _with_key(self, key: str, digest: str) -> Job | None:
        with self.database.read() as connection:
            query = select(jobs, _AGE).where(jobs.c.idempotency_key == key)
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        if row["args_digest"] != digest:
            raise AlreadyExistsError(
                f"The idempotency key {key!r} belongs to job {row['id']} ({row['title']}), which has other arguments.",
                hint="Submit with another key.",
            )
        return Job.from_row(row)

    def _require_unclaimed(self, kind: str, checked: Checked) -> None:
        """Two jobs that train an SAE of one name: the second would find that out after hours."""
        name = checked.args.get("name")
        if kind != "train" or name is None or checked.args.get("replace"):
            return
        with self.database.read() as connection:
            query = select(jobs.c.id, jobs.c.args).where(jobs.c.kind == kind, jobs.c.state.in_(ACTIVE))
            active = connection.execute(query.where(jobs.c.home == home_id())).all()
        for job, args in active:
            if (args or {}).get("name") == name:
                raise AlreadyExistsError(
                    f"Job {job} is about to train an SAE called '{name}'.",
                    hint="Choose another name, or cancel that job.",
                )

    # --- looking -----------------------------------------------------------------------------------------------------

    def get(self, job: str) -> Job:
        """The job with this id, or the only one whose id begins so.

        Raises:
            JobNotFoundError: there is none, or several.
        """
        with self.database.read() as connection:
            begins = jobs.c.id.startswith(job, autoescape=True)
            query = select(jobs, _AGE).where(begins).order_by(jobs.c.number.desc()).limit(5)
            found = [Job.from_row(row) for row in connection.execute(query).mappings()] if job else []
        exact = [one for one in found if one.id == job] or found
        if len(exact) == 1:
            return exact[0]
        if exact:
            raise JobNotFoundError(
                f"{job!r} fits several jobs: {', '.join(one.id for one in exact)}.", hint="Give more of the id."
            )
        raise JobNotFoundError(f"There is no job {job!r}.", hint="neuronmap jobs list shows them.")

    def list(
        self, *, state: str | None = None, kind: str | None = None, before: int | None = None, limit: int = 50
    ) -> Jobs:
        """Jobs, the newest first.

        Args:
            state: only in this state.
            kind: only of this kind.
            before: only those with smaller numbers: the ``number`` of the last job of the page before.
            limit: how many at most, 1 to 200.

        Raises:
            ConfigError: there is no such state, or the limit is out of range.
        """
        if state is not None and state not in STATES:
            raise ConfigError(f"There is no state {state!r} of a job; there are {', '.join(STATES)}.")
        query = select(jobs, _AGE).order_by(jobs.c.number.desc()).limit(_page(limit))
        for column, value in ((jobs.c.state, state), (jobs.c.kind, kind)):
            if value is not None:
                query = query.where(column == value)
        if before is not None:
            query = query.where(jobs.c.number < before)
        with self.database.read() as connection:
            return [Job.from_row(row) for row in connection.execute(query).mappings()]

    def events(self, *, after: int = 0, job: str | None = None, limit: int = 200) -> Events:
        """What happened since, in order.

        Args:
            after: number of the last event that is known; see :meth:`last_event`.
            job: whole id of one job; all of them when left out.
            limit: how many at most, 1 to 200.
        """
        with self.database.read() as connection:
            return read_events(connection, after, job, _page(limit))

    def last_event(self) -> int:
        """Number of the newest event; 0 if there is none."""
        with self.database.read() as connection:
            return int(connection.execute(select(func.coalesce(func.max(events.c.id), 0))).scalar_one())

    def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs there are, by kind and state."""
        query = select(jobs.c.kind, jobs.c.state, func.count()).group_by(jobs.c.kind, jobs.c.state)
        found: dict[str, dict[str, int]] = {}
        with self.database.read() as connection:
            for kind, state, count in connection.execute(query):
                found.setdefault(kind, {})[state] = count
        return found

    # --- changing ----------------------------------------------------------------------------------------------------

    def cancel(self, job: str) -> Job:
        """Cancel a job. One that waits is cancelled at once; one that runs saves first, within two seconds as a rule.

        Returns:
            The job as it is then; unchanged if it had ended already.

        Raises:
            JobNotFoundError.
        """
        found = self.get(job)
        with self.database.write() as connection:
            for state, values in (
                ("queued", {"state": "cancelled", "reason": "cancelled before it ran", "finished_at": now()}),
                ("running", {"state": "cancelling", "reason": "asked to stop; it saves first", "stop_at": now()}),
            ):
                query = update(jobs).where(jobs.c.id == found.id, jobs.c.state == state).values(**values)
                if connection.execute(query).rowcount:
                    event = state_event(str(values["state"]), str(values["reason"]), found.attempt)
                    add_events(self.database, connection, [(found.id, event)])
                    break
        return self.get(found.id)

    def resume(self, job: str) -> Job:
        """Put a cancelled, failed or interrupted job back into the queue: it goes on from what it has saved.

        Raises:
            JobNotFoundError.
            InputError: it is not in one of these states, or would fail in the same way again.
        """
        found = self.get(job)
        if not found.resumes:
            why = found.error.message if found.state in STOPPED and found.error is not None else ""
            raise InputError(
                f"Job {found.id} ({found.title}) is {found.state} and cannot be resumed{f': {why}' if why else '.'}",
                hint="Submit a new job with other settings." if why else "",
            )
        reason = "resumed"
        values = {"state": "queued", "reason": reason, "reason_host": None, "crashes": 0, "error": None}
        with self.database.write() as connection:
            query = update(jobs).where(jobs.c.id == found.id, jobs.c.state.in_(STOPPED)).values(**values)
            if connection.execute(query).rowcount:
                add_events(self.database, connection, [(found.id, state_event("queued", reason, found.attempt))])
        return self.get(found.id)

    def prune(self, *, days: float = KEPT_DAYS, keep: int = JOBS_KEPT) -> int:
        """Delete ended jobs that are old, with their logs, and old events. SAEs and runs stay.

        Supervisors do this once an hour with the defaults. Events of progress go an hour after their job's end, and of all
        events the newest 50,000 are kept.

        Args:
            days: those that ended longer ago.
            keep: how many ended jobs to keep at most, the newest ones.

        Returns:
            How many jobs went.

        Raises:
            ConfigError: a number below zero.
        """
        if days < 0 or keep < 0:
            raise ConfigError(f"days = {days}, keep = {keep}: neither may be below zero.")
        ended = jobs.c.state.in_(ENDED)
        with self.database.write() as connection:
            newest = select(jobs.c.number).where(ended).order_by(jobs.c.number.desc()).offset(keep).limit(1)
            last = func.coalesce(newest.scalar_subquery(), 0)
            old = or_(jobs.c.finished_at < now() - days * 86_400, jobs.c.number <= last)
            gone = connection.execute(delete(jobs).where(and_(ended, old)).returning(jobs.c.id)).scalars().all()
            prune_events(connection)
        for one in gone:
            remove_log(one)
        return len(gone)


_AGE = (now() - jobs.c.heartbeat_at).label("heartbeat_age")


def _page(limit: int) -> int:
    if not 1 <= limit <= _PAGE:
        raise ConfigError(f"limit = {limit}: 1 to {_PAGE} are given at a time.")
    return limit
