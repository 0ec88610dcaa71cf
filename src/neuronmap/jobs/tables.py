"""The two tables, and the database's own clock. The migrations make them; a test holds both together.

Every time is in seconds since 1970 by the clock of the database, so that leases mean the same on every machine.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Double, ForeignKey, Index, Integer, MetaData, String, Table, Text

from neuronmap.database import now

__all__ = ["events", "jobs", "metadata", "now"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself for INTEGER alone
_JSON = JSON(none_as_null=True)

jobs = Table(
    "jobs",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", String(16), nullable=False, unique=True),
    Column("home", String(40), nullable=False),  # whose library and runs it works on
    Column("kind", String(40), nullable=False),
    Column("title", Text, nullable=False),
    Column("args", _JSON, nullable=False),
    Column("args_digest", String(80), nullable=False),  # of what was submitted, for the idempotency key
    Column("idempotency_key", String(200), unique=True),
    Column("state", String(20), nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("reason_host", String(255)),  # which machine said why it waits, and when
    Column("reason_at", Double),
    Column("attempt", Integer, nullable=False, server_default="0"),  # the fencing token
    Column("crashes", Integer, nullable=False, server_default="0"),  # processes lost since it was submitted or resumed
    Column("device", String(40), nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("heartbeat_at", Double),
    Column("lease_until", Double),
    Column("stop_at", Double),  # when its process was asked to stop
    Column("host", String(255)),
    Column("pid", Integer),
    Column("pid_started", Double),
    Column("supervisor", String(300)),
    Column("progress", _JSON),
    Column("notes", _JSON),
    Column("result", _JSON),
    Column("error", _JSON),
    Column("run", Text),
    Index(None, "state", "number"),
    sqlite_autoincrement=True,
)

events = Table(
    "job_events",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("job", String(16), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("data", _JSON, nullable=False),
    Index(None, "job", "id"),
    sqlite_autoincrement=True,  # a number is never used again, not even after the newest rows were deleted
)
