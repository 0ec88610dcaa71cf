"""A database of ours: a SQLite file by default, PostgreSQL where several machines share one.

SQLite runs in WAL mode with foreign keys on. A transaction that writes begins with BEGIN IMMEDIATE: one that read first and then
wrote would be refused at once instead of waiting its turn. Transactions are short; nothing is computed inside one.
"""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Double, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from neuronmap import paths
from neuronmap.errors import ConfigError, DamagedError, MismatchError, MissingDependencyError, ResourceError

__all__ = ["Database", "Holding", "database_url", "now"]

_BUSY_MS = 20_000


@dataclass(frozen=True)
class Holding:
    """What a database holds, and how it is set up.

    Attributes:
        name: in messages ("jobs": "the database of jobs").
        variable: environment variable with its URL.
        file: of the SQLite database, under the home folder.
        migrations: folder of Alembic's migrations.
        head: the newest of them. Their names are numbers with leading zeros, so a greater one belongs to a newer NeuronMap.
        version_table: where Alembic writes down which were run: two holdings may share a PostgreSQL database.
        lock: PostgreSQL: its advisory locks begin here.
        elsewhere: what is not lost with it, for the message on a damaged file.
        private: SQLite: the file is its owner's alone (0600), also one that was there before; not where it lies in a folder in which
            others may write, who share it on purpose.
    """

    name: str
    variable: str
    file: str
    migrations: Path
    head: str
    version_table: str
    lock: int
    elsewhere: str = ""
    private: bool = False


def database_url(holding: Holding, url: str | None = None) -> URL:
    """Where it is kept: as given, else as the environment says, else a file under the home folder.

    Raises:
        ConfigError: it is neither SQLite nor PostgreSQL, or cannot be read as a URL.
        MissingDependencyError: PostgreSQL without psycopg.
    """
    given = url or os.environ.get(holding.variable)
    if not given:
        return URL.create("sqlite", database=str(paths.home() / holding.file))
    hint = f"{holding.variable}=postgresql+psycopg://user@host/name or sqlite:////absolute/path.sqlite3; unset: the home folder."
    try:
        found = make_url(given)
    except ArgumentError:
        raise ConfigError(
            f"The database of {holding.name} cannot be read as a URL ({len(given)} characters).", hint=hint
        ) from None
    if found.drivername in ("postgresql", "postgres"):
        found = found.set(drivername="postgresql+psycopg")
    if found.drivername == "postgresql+psycopg":
        try:
            import psycopg  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise MissingDependencyError(
                f"A PostgreSQL database of {holding.name} needs psycopg.", hint='pip install "neuronmap[postgres]"'
            ) from error
        return found
    if found.drivername != "sqlite" or found.database in (None, "", ":memory:"):
        shown = found.render_as_string(hide_password=True)
        raise ConfigError(f"{shown} cannot hold {holding.name}: a SQLite file or PostgreSQL is needed.", hint=hint)
    return found


class Database:
    """One database, with its tables as this version needs them.

    Args:
        holding: what it holds.
        url: see :func:`database_url`.

    Raises:
        MismatchError: a newer NeuronMap has used it.
        ResourceError: it cannot be reached or written.
        DamagedError: the file is not a database.
    """

    def __init__(self, holding: Holding, url: URL) -> None:
        self.holding, self.url = holding, url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            file = Path(str(url.database)).absolute()
            paths.new_folder(file.parent)
            if holding.private:
                _keep_private(file)
        self.engine = _engine(url, self.is_sqlite)
        self.close = weakref.finalize(self, self.engine.dispose)
        try:
            self._bring_up_to_date()
        except OperationalError as error:
            raise ResourceError(
                f"The database of {holding.name} {self} cannot be used: {_first_line(error)}.",
                hint=f"Check that it runs and may be written, or unset {holding.variable} for a file in the home folder.",
            ) from error
        except DatabaseError as error:
            raise DamagedError(
                f"The database of {holding.name} {self} cannot be read: {_first_line(error)}.",
                hint=f"Move it away; a new one is made. {holding.elsewhere}".rstrip(),
            ) from error

    def __str__(self) -> str:
        return str(self.url.database) if self.is_sqlite else self.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes; on SQLite it waits for its turn first."""
        with self.engine.connect().execution_options(neuronmap_writes=True) as connection, connection.begin():
            yield connection

    def lock(self, connection: Connection, name: int) -> None:
        """Let one transaction at a time pass here, until it ends. On SQLite a writing transaction is alone anyway."""
        if not self.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self.holding.lock + name})

    def _bring_up_to_date(self) -> None:
        with self.read() as connection:
            if self._version(connection) == self.holding.head:
                return
        with self.write() as connection:
            self.lock(connection, 0)
            if self._version(connection) == self.holding.head:  # another process was first
                return
            from alembic import command
            from alembic.config import Config

            config = Config()
            config.set_main_option("script_location", str(self.holding.migrations).replace("%", "%%"))
            config.attributes["connection"] = connection
            config.attributes["version_table"] = self.holding.version_table
            command.upgrade(config, "head")

    def _version(self, connection: Connection) -> str | None:
        """The newest migration that was run here; None for an empty database."""
        table = self.holding.version_table
        if not inspect(connection).has_table(table):
            return None
        found = connection.execute(text(f"SELECT version_num FROM {table}")).scalar()
        if found is not None and str(found) > self.holding.head:
            raise MismatchError(
                f"The database of {self.holding.name} {self} was made by a newer NeuronMap (its version is {found}, this one knows "
                f"{self.holding.head}).",
                hint=f"Update NeuronMap, or set {self.holding.variable} to another database.",
            )
        return None if found is None else str(found)


def _keep_private(file: Path) -> None:
    """Make a database's files readable by their owner alone: SQLite gives those beside it the mode of the file itself."""
    if os.name != "posix" or file.parent.stat().st_mode & 0o022:
        return
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError:
        return  # SQLite says why it cannot be opened
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
        with suppress(FileNotFoundError, PermissionError):  # another user's: theirs to change
            file.with_name(name).chmod(0o600)


def _engine(url: URL, is_sqlite: bool) -> Engine:
    engine = create_engine(url, json_serializer=_to_json, pool_pre_ping=not is_sqlite)
    if is_sqlite:
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
    return engine


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _set_up(connection: Any, record: Any) -> None:
    """A new connection to SQLite: transactions are begun by us alone."""
    del record
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = NORMAL")
    patience = time.monotonic() + _BUSY_MS / 1000
    while cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except connection.OperationalError:  # two at once: this statement does not wait by itself
            if time.monotonic() > patience:
                raise
            time.sleep(0.02)
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("neuronmap_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0].rstrip(".")


class now(FunctionElement[float]):  # noqa: N801 - reads as SQL does
    """The database's clock, in seconds since 1970; it moves on within a transaction."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite(element: Any, compiler: Any, **keywords: Any) -> str:
    del element, compiler, keywords
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql(element: Any, compiler: Any, **keywords: Any) -> str:
    del element, compiler, keywords
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
