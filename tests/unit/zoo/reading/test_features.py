"""A published feature store: the same facts as from its folder, only the files that are asked for, and nothing that an attacker likes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.web.zoo.test_pages import put, sae

from neuronmap.errors import DamagedError, MismatchError
from neuronmap.features.storage.manifest import MANIFEST, read_manifest, seal, write_manifest
from neuronmap.features.storage.store import FeatureStore
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import LOCAL
from neuronmap.zoo.reading import PublishedStore, ReadingFolder, holds_features
from neuronmap.zoo.registry.registry import Registry
from neuronmap.zoo.search.query import Query
from neuronmap.zoo.views import VersionView

sys.path.append(os.fspath(Path(__file__).parents[2] / "features"))

from made_stores import small_store

RECORD = {"analysis": "features", "format": "neuronmap-features", "model": {"name": "tiny"}}


def publish(registry: Registry, folder: Path, name: str, **more: Any) -> VersionView:
    """The files of a folder as an analysis, whatever they are."""
    contents = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "verified.json"}
    [parent] = registry.search(LOCAL, Query(kind="SAE_MODEL")).hits
    needs = [{"digest": parent.digest, "role": "sae"}]
    values = {"kind": "ANALYSIS_RESULT", "name": name, "version": "1.0", "record": RECORD, "depends_on": needs}
    return put(registry, {**values, **more}, contents)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    made = Registry.embedded(tmp_path_factory.mktemp("zoo"))
    sae(made, "first", "1.0")
    yield made
    made.close()


@pytest.fixture
def reading(registry: Registry, tmp_path: Path) -> ReadingFolder:
    return ReadingFolder(registry.store, tmp_path / "reading", most_bytes=0)


def opened(registry: Registry, reading: ReadingFolder, folder: Path, name: str) -> PublishedStore:
    return PublishedStore.of(reading, publish(registry, folder, name))


def test_it_says_what_its_folder_says_and_reads_what_is_asked_for(
    registry: Registry, reading: ReadingFolder, tmp_path: Path
) -> None:
    folder = small_store(tmp_path / "store")
    version = publish(registry, folder, "small")
    here = reading.folder(version.digest)
    with PublishedStore.of(reading, version) as store, FeatureStore.open(folder) as known:
        assert {one.name for one in here.iterdir()} == {MANIFEST}
        assert list(store.queries.select("status=alive")) == list(known.queries.select("status=alive"))
        assert {one.name for one in here.iterdir()} == {MANIFEST, "features.parquet", "hints.parquet"}
        for feature in range(8):
            assert store.feature(feature).row == known.feature(feature).row
            assert store.feature(feature).details == known.feature(feature).details
            assert [one.text for one in store.examples(feature)] == [one.text for one in known.examples(feature)]
        assert store.queries.firing_on(" the").features == known.queries.firing_on(" the").features
        assert "promoted.parquet" not in {one.name for one in here.iterdir()}
        assert [one.document for one in store.examples(0)] == [one.document for one in known.examples(0)]
        assert all(one.is_symlink() for one in here.iterdir())


def test_its_connection_reads_no_files_and_loads_no_extensions(
    registry: Registry, reading: ReadingFolder, tmp_path: Path
) -> None:
    import duckdb

    (tmp_path / "secret.csv").write_text("a\n1\n")
    with opened(registry, reading, small_store(tmp_path / "store"), "closed") as store:
        connection = store.queries._connection
        for query in (
            f"SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')",
            f"SELECT * FROM '{tmp_path / 'secret.csv'}'",
            f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
            f"ATTACH '{tmp_path / 'out.db'}'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(query)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["reading", "secret.csv", "store"]


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A store with a manifest that was changed and sealed again."""
    manifest = read_manifest(folder)
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(seal(manifest)))
    return folder


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "more-features": lambda m: m.update(features=10**12),
    "no-features": lambda m: m.update(features=0),
    "negative": lambda m: m.update(contexts=-1),
    "long": lambda m: m.update(contexts=2**31, context_length=2**16),
    "edges": lambda m: m.update(edges=[0.0] * 65),
    "few-edges": lambda m: m.update(edges=[0.0, 1.0]),
    "edge-texts": lambda m: m.update(edges=["0"] * 65),
    "config": lambda m: m["config"].update(before=10**9),
    "config-unknown": lambda m: m["config"].update(surprise=1),
    "created": lambda m: m.update(created=7),
    "climbing": lambda m: m["files"].update({"../../zoo.sqlite3": {"bytes": 1, "sha256": "sha256:0"}}),
    "absolute": lambda m: m["files"].update({"/etc/passwd": {"bytes": 1, "sha256": "sha256:0"}}),
    "facts-of-files": lambda m: m["files"].update({"features.parquet": 7}),
    "other-file": lambda m: m["files"]["features.parquet"].update(sha256="sha256:" + "0" * 64),
    "not-published": lambda m: m["files"].update({"promoted.parquet": m["files"]["hints.parquet"]}),
    "not-listed": lambda m: m["files"].pop("details.parquet"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_manifest_that_does_not_hold_is_damage(
    registry: Registry, reading: ReadingFolder, tmp_path: Path, name: str
) -> None:
    folder = changed(small_store(tmp_path / "store", without=("promoted",)), CHANGES[name])
    with pytest.raises(DamagedError):
        opened(registry, reading, folder, f"manifest-{name}")
    placed = reading.root.rglob("*")
    assert {one.name for one in placed if one.is_symlink()} == {MANIFEST}


@pytest.mark.parametrize("text", [b"[]", b"7", b'{"format": "neuronmap-features", "version": 1}'])
def test_a_manifest_that_is_none(registry: Registry, reading: ReadingFolder, tmp_path: Path, text: bytes) -> None:
    """What is no JSON at all is refused when it is published."""
    folder = small_store(tmp_path / "store")
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises((DamagedError, MismatchError)):
        opened(registry, reading, folder, f"none-{len(text)}")


def test_a_store_of_another_version_is_not_read(registry: Registry, reading: ReadingFolder, tmp_path: Path) -> None:
    folder = changed(small_store(tmp_path / "store"), lambda manifest: manifest.update(version=99))
    with pytest.raises(MismatchError, match="99"):
        opened(registry, reading, folder, "later")


def test_what_is_no_feature_store(registry: Registry, reading: ReadingFolder, tmp_path: Path) -> None:
    folder = small_store(tmp_path / "store")
    (folder / "details.parquet").unlink()
    less = publish(registry, folder, "less")
    other = publish(registry, small_store(tmp_path / "other"), "other", record={**RECORD, "format": "saebench"})
    for version in (less, other):
        assert not holds_features(version)
        with pytest.raises(MismatchError, match="holds no feature store"):
            PublishedStore.of(reading, version)


def test_a_table_with_more_rows_than_the_manifest_says_is_not_read(
    registry: Registry, reading: ReadingFolder, tmp_path: Path
) -> None:
    """A few hundred KB that would be gigabytes in memory."""
    folder = small_store(tmp_path / "store")
    table = pq.read_table(folder / "features.parquet")
    many = pa.table({name: table[name].slice(0, 1).combine_chunks().take([0] * 200_000) for name in table.column_names})
    pq.write_table(many.cast(table.schema), folder / "features.parquet", compression="zstd")
    write_manifest(folder, read_manifest(folder), ["features.parquet"])
    with opened(registry, reading, folder, "bomb") as store, pytest.raises(DamagedError, match="200,000 rows, not 8"):
        _ = store.queries


def test_a_part_that_is_too_large_is_not_read(
    registry: Registry, reading: ReadingFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuronmap.zoo.reading import features

    monkeypatch.setattr(features, "_MOST_GROUP_VALUES", 100)  # the histograms have 512 values
    with opened(registry, reading, small_store(tmp_path / "store"), "part") as store:
        with pytest.raises(DamagedError, match=r"details\.parquet has a part that is too large"):
            _ = store.feature(0).details
        assert store.feature(0).row["max"] == 4.0


def test_a_blob_that_is_lost_is_said(registry: Registry, reading: ReadingFolder, tmp_path: Path) -> None:
    version = publish(registry, small_store(tmp_path / "store", key="sha256:" + "b" * 64, overview={"lost": 1}), "lost")
    digest = next(file.digest for file in version.files if file.path == MANIFEST)
    registry.store.delete(digest.key)
    with pytest.raises(DamagedError, match="lost"):
        PublishedStore.of(reading, registry.show(LOCAL, Reference.parse("ada/lost@1.0")))
