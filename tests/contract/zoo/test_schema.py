"""The tables: the migrations make what the code uses, on both databases, and databases of every release open."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from neuronmap.database import Database, database_url
from neuronmap.errors import MismatchError
from neuronmap.zoo.blobs import LocalBlobStore
from neuronmap.zoo.database import ZOO
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import LOCAL
from neuronmap.zoo.registry.registry import Registry
from neuronmap.zoo.search.query import CompatibilityQuery, Query
from neuronmap.zoo.tables import metadata

DATA = Path(__file__).parents[2] / "data"
RELEASED = sorted(DATA.glob("zoo-[0-9]*.sql"))
RELEASED_POSTGRESQL = sorted(DATA.glob("zoo-postgresql-*.sql"))


def include(name: str | None, kind: str, parents: Any) -> bool:
    """All but what full text search has of its own."""
    del kind, parents
    return name is None or not (name.startswith("zoo_search_text") or name.endswith("text_vector"))


def test_the_migrations_make_the_tables_that_the_code_uses(given: Any) -> None:
    with given.registry.database.read() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": include, "version_table": ZOO.version_table},
        )
        assert compare_metadata(context, metadata) == []


def test_the_version_written_down_is_the_newest_migration(given: Any) -> None:
    files = sorted((ZOO.migrations / "versions").glob("m*.py"))
    assert files[-1].name[1:5] == ZOO.head
    with given.registry.database.read() as connection:
        assert connection.scalar(text(f"SELECT version_num FROM {ZOO.version_table}")) == ZOO.head


def test_a_database_of_a_newer_version_is_refused(given: Any) -> None:
    with given.registry.database.write() as connection:
        connection.execute(text(f"UPDATE {ZOO.version_table} SET version_num = '9999'"))
    try:
        with pytest.raises(MismatchError, match=r"the zoo.*newer NeuronMap.*9999"):
            given.again()
    finally:
        with given.registry.database.write() as connection:
            connection.execute(text(f"UPDATE {ZOO.version_table} SET version_num = '{ZOO.head}'"))


def test_the_index_of_texts_is_whole_after_everything_that_changes_it(given: Any) -> None:
    if not given.registry.database.is_sqlite:
        pytest.skip("PostgreSQL keeps the column by itself")
    given.publish(b"one", draft=True, title="alpha")
    given.publish(b"two", draft=True, title="beta")
    given.registry.publishing.release(LOCAL, Reference.parse("ada/demo@1.0"))
    given.publish(b"three", version="2.0")
    given.registry.changing.yank(LOCAL, Reference.parse("ada/demo@2.0"), "bad")
    given.registry.changing.delete(LOCAL, Reference.parse("ada/demo@1.0"), "bad")
    with given.registry.database.write() as connection:
        connection.execute(text("UPDATE zoo_search_documents SET title = 'gamma', body = 'gamma'"))
        connection.execute(text("INSERT INTO zoo_search_text (zoo_search_text, rank) VALUES ('integrity-check', 1)"))
        found = connection.scalar(text("SELECT count(*) FROM zoo_search_text WHERE zoo_search_text MATCH 'gamma'"))
    assert found == 1


@pytest.fixture(params=[*RELEASED, *RELEASED_POSTGRESQL], ids=lambda path: path.stem)
def released(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database as a release left it, not yet opened by this one."""
    dump = request.param
    if dump in RELEASED:
        made = sqlite3.connect(tmp_path / "zoo.sqlite3")
        made.executescript(dump.read_text())
        made.close()
        return f"sqlite:///{tmp_path / 'zoo.sqlite3'}"
    url: str = request.getfixturevalue("new_database")()
    import psycopg

    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        connection.execute(dump.read_bytes())
    return url


def test_a_database_of_an_earlier_release(tmp_path: Path, released: str) -> None:
    """It opens, and everything in it is found, pulled, verified and built upon."""
    store = LocalBlobStore(tmp_path / "blobs")
    for data in (b"the first", b"the second"):
        store.put(Digest.of(data).key, [data])
    registry = Registry(Database(ZOO, database_url(ZOO, released)), store)
    view = registry.show(LOCAL, Reference.parse("ada/gpt2-l8"))
    assert (view.label, view.aliases, [one.label for one in view.depends_on]) == ("2.0", ("production",), ["1.0"])
    old = registry.show(LOCAL, Reference.parse("ada/gpt2-l8@1.0"))
    assert (old.state, old.reason, old.successor, old.used_by) == ("deprecated", "old", "ada/gpt2-l8@2.0", 1)
    for reference, data in (("ada/gpt2-l8@1.0", b"the first"), ("ada/gpt2-l8@production", b"the second")):
        registry.manifest(LOCAL, Reference.parse(reference))
        assert b"".join(registry.blob(LOCAL, Reference.parse(reference), "a.txt")[2]) == data
    query = Query(q="lovelace resid", model="gpt2", metric=("l0<40",), tag=("residual",))
    assert [hit.reference for hit in registry.search(LOCAL, query).hits] == []  # ł is a letter of its own
    query = query.model_copy(update={"q": "łovelace resid"})
    assert [hit.reference for hit in registry.search(LOCAL, query).hits] == ["ada/gpt2-l8@2.0"]
    assert registry.compatible(LOCAL, CompatibilityQuery(model="gpt2", layer=8)).total == 1
    assert [move.reason for move in registry.changing.alias_log(LOCAL, "ada", "gpt2-l8")] == ["better"]
    assert len(registry.lineage(LOCAL, Reference.parse("ada/gpt2-l8")).nodes) == 2
    assert registry.housekeeping.verify().checked == 2
    assert registry.housekeeping.collect(grace=0).blobs == 0
    assert registry.changing.restore(LOCAL, Reference.parse("ada/gpt2-l8@1.0")).state == "published"
    with registry.database.read() as connection:
        assert connection.scalar(text(f"SELECT version_num FROM {ZOO.version_table}")) == ZOO.head
        options = {"include_name": include, "version_table": ZOO.version_table}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        assert connection.scalar(text("SELECT max(id) FROM zoo_audit")) == 5, "numbers go on where they were"
    registry.close()


def test_there_is_a_database_of_every_migration() -> None:
    numbers = {file.name[1:5] for file in (ZOO.migrations / "versions").glob("m*.py")}
    for dumps in (RELEASED, RELEASED_POSTGRESQL):
        assert {path.stem.rpartition("-")[2] for path in dumps} == numbers
