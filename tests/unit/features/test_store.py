"""A store gives back what was written, and refuses what is damaged, with the name of the file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_stores import (
    BYTES,
    CONFIG,
    CONTEXTS,
    FEATURES,
    feature_rows,
    hint_rows,
    small_store,
    small_tables,
    write_store,
)

from neuronmap.errors import DamagedError, InputError, MismatchError, UnwritablePathError
from neuronmap.features.storage import migrations, schema
from neuronmap.features.storage.manifest import MANIFEST, check_files, file_facts, read_manifest, seal, write_manifest
from neuronmap.features.storage.schema import EXAMPLE_KINDS, TABLES, arrow_schema
from neuronmap.features.storage.store import FeatureStore
from neuronmap.features.storage.text import Piece
from neuronmap.features.summary.writing import write_table
from neuronmap.hashing import digest_file
from neuronmap.paths import write_json
from neuronmap.verified import VERIFIED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_store(tmp_path / "analysis")


@pytest.fixture
def store(folder: Path) -> FeatureStore:
    return FeatureStore.open(folder, verify=True)


# --- what is in it -----------------------------------------------------------------------------------------------


def test_the_manifest_says_what_was_analysed(store: FeatureStore) -> None:
    assert (store.num_features, store.num_contexts, store.context_length) == (len(FEATURES), CONTEXTS, 10)
    assert store.key == "sha256:" + "a" * 64
    assert store.config == CONFIG
    assert store.facts["corpus"]["name"] == "made-up"
    assert store.overview == {"alive": 4}
    assert len(store.edges) == 65
    assert "8 features" in repr(store)


def test_a_feature_has_numbers_details_and_hint(store: FeatureStore) -> None:
    record = store.feature(6)
    assert {name: record.row[name] for name in feature_rows()[6]} == feature_rows()[6]
    assert record.details["histogram"] == [6] * 64
    assert record.hint is not None
    assert record.hint["class"] == "topic"
    assert record.label == "cities: berlin, paris"
    assert (record.alive, store.feature(5).alive, store.feature(4).alive) == (True, False, True)
    assert store.feature(np.int64(6)).row == record.row


def test_a_store_without_hints_has_features_without_labels(tmp_path: Path) -> None:
    record = FeatureStore.open(small_store(tmp_path / "s", without=("hints",))).feature(0)
    assert record.hint is None
    assert record.label == ""


@pytest.mark.parametrize(("feature", "near"), [(8, 7), (-1, 0), (10**12, 7)])
def test_an_unknown_feature_is_refused_with_the_range_and_the_nearest(
    store: FeatureStore, feature: int, near: int
) -> None:
    for read in (store.feature, store.examples):
        with pytest.raises(InputError, match=rf"(?s)no feature {feature}: features are 0 to 7\..*alive is {near}\."):
            read(feature)


@pytest.mark.parametrize("feature", ["7", 1.0, None])
def test_what_is_no_number_is_no_feature(store: FeatureStore, feature: Any) -> None:
    with pytest.raises(InputError, match="is not the number of a feature"):
        store.feature(feature)


def test_the_nearest_alive_feature(store: FeatureStore) -> None:
    assert np.flatnonzero(store.alive).tolist() == [0, 1, 4, 6, 7]
    assert [store.nearest_alive(2), store.nearest_alive(3), store.nearest_alive(4)] == [1, 4, 4]
    assert [store.nearest_alive(4, step=1), store.nearest_alive(4, step=-1)] == [6, 1]
    assert [store.nearest_alive(7, step=1), store.nearest_alive(0, step=-1)] == [None, None]


# --- examples and text -------------------------------------------------------------------------------------------


def test_examples_are_windows_of_their_contexts(store: FeatureStore) -> None:
    late, early, quiet = store.examples(0)
    assert [(one.kind, one.rank) for one in (late, early, quiet)] == [("top", 0), ("top", 1), ("random", 0)]
    assert (late.start, late.peak, late.token_ids.tolist()) == (6, 3, [7, 8, 9, 0])  # cut off at the context's end
    assert late.activations.tolist() == [1.5, 0, 0, 4.0]  # the peak as it was, not as rounded
    assert (early.start, early.token_ids.tolist(), early.activations.tolist()) == (0, [0, 1, 2, 3], [0, 2, 0.25, 0])
    assert not quiet.activations.any()
    assert late.activations.dtype == np.float32
    assert store.examples(2) == []
    assert [one.kind for one in store.examples(0, "random")] == ["random"]
    with pytest.raises(InputError, match="Kinds: top, quantile, bin, random, hard"):
        store.examples(0, "best")


def test_pieces_of_an_example_keep_characters_whole(store: FeatureStore) -> None:
    late = store.examples(0)[0]
    assert late.pieces() == [Piece("é", 0, 2), Piece("\n", 2, 3), Piece("<s>", 3, 4, special=True)]
    assert [piece.shown for piece in late.pieces()] == ["é", "↵", "⟨s⟩"]
    assert late.text == "é\n<s>"


def test_a_character_across_the_windows_edge_is_shown_whole(tmp_path: Path) -> None:
    tables = small_tables()
    row = {"feature": 0, "kind": "top", "group": 0, "rank": 0, "sequence": 0, "position": 5, "activation": 1.0}
    tables["examples"] = pa.Table.from_pylist([{**row, "offsets": [0], "activations": [1.0]}], arrow_schema("examples"))
    ids = np.array([[1, 7, 8, 1, 1, 1, 1, 7, 8, 1]] * CONTEXTS, "<u2")
    example = FeatureStore.open(write_store(tmp_path / "s", tables, ids, np.ones(ids.shape, bool))).examples(0)[0]
    assert example.token_ids.tolist() == [8, 1, 1, 1, 1, 7]
    assert [(piece.text, piece.start, piece.stop) for piece in example.pieces()] == [
        ("é", 0, 1),
        *(("a", place, place + 1) for place in range(1, 5)),
        ("é", 5, 6),
    ]


def test_contexts_masks_and_documents(store: FeatureStore) -> None:
    assert store.context(3).tolist() == [3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert store.kept(3).tolist() == [False] + [True] * 9
    places = [(0, 0), (0, 1), (1, 3), (1, 4), (3, 9), (4, 0), (5, 9)]
    assert [store.document_of(*place) for place in places] == [
        "", "a.txt", "a.txt", "b.jsonl:7", "b.jsonl:7", "c.txt", "c.txt",
    ]  # fmt: skip
    assert store.examples(0)[0].document == "b.jsonl:7"
    for ask in (store.context, store.kept, lambda sequence: store.document_of(sequence, 0)):
        with pytest.raises(InputError, match="contexts are 0 to 5"):
            ask(6)
    with pytest.raises(InputError, match="has 10 tokens"):
        store.document_of(0, 10)


def test_the_vocabulary_is_that_of_the_store(store: FeatureStore) -> None:
    assert [store.vocabulary.bytes_of(token) for token in range(store.vocabulary.size)] == BYTES
    assert store.vocabulary.is_special(0)


def test_wide_vocabularies_have_wide_tokens(tmp_path: Path) -> None:
    tables = small_tables()
    store = FeatureStore.open(
        write_store(tmp_path / "s", tables, np.full((2, 4), 100_000, "<u4"), np.ones((2, 4), bool))
    )
    assert store.context(1).tolist() == [100_000] * 4


# --- property: what is written is read ---------------------------------------------------------------------------


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of an Arrow type, nulls left to the caller."""
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: values_of(field.type) for field in kind})
    if pa.types.is_list(kind):
        return st.lists(values_of(kind.value_type), max_size=5)
    if pa.types.is_dictionary(kind):
        return st.sampled_from(EXAMPLE_KINDS)
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_binary(kind):
        return st.binary(max_size=4)
    if pa.types.is_string(kind):
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    if pa.types.is_floating(kind):
        return st.floats(width=32, allow_nan=False)
    if pa.types.is_signed_integer(kind):
        return st.integers(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
    return st.integers(0, 2**kind.bit_width - 1)


def rows_of(name: str, keys: list[int]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of a table, its first column as given."""
    first, *others = arrow_schema(name)
    one = {field.name: st.none() | values_of(field.type) for field in others}
    return st.tuples(*(st.fixed_dictionaries({first.name: st.just(key), **one}) for key in keys)).map(list)


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_row_that_is_written_is_read(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    tables = small_tables()
    count = data.draw(st.integers(1, 5))
    for name in ("features", "details", "hints"):
        tables[name] = pa.Table.from_pylist(data.draw(rows_of(name, list(range(count)))), arrow_schema(name))
    for name in ("token_features", "promoted"):
        keys = sorted(data.draw(st.lists(st.integers(0, 9), max_size=8)))
        tables[name] = pa.Table.from_pylist(data.draw(rows_of(name, keys)), arrow_schema(name))
    ids = np.zeros((1, 3), "<u2")
    row_group = data.draw(st.integers(1, 4))
    folder = write_store(tmp_path_factory.mktemp("p") / "s", tables, ids, np.ones((1, 3), bool), row_group)
    with FeatureStore.open(folder, verify=True) as store:
        for feature in range(count):
            record = store.feature(feature)
            assert record.row == tables["features"].slice(feature, 1).to_pylist()[0]
            assert record.details == tables["details"].slice(feature, 1).to_pylist()[0]
            assert record.hint == tables["hints"].slice(feature, 1).to_pylist()[0]
        for name in ("token_features", "promoted"):
            for token in range(10):
                written = [row for row in tables[name].to_pylist() if row["token"] == token]
                assert store.tables.rows(name, token).to_pylist() == written
        for name, content in tables.items():
            assert store.tables.read(name).equals(content)


@given(
    counts=st.lists(st.integers(0, 7), min_size=8, max_size=8),
    row_group=st.integers(1, 9),
    drawn=st.randoms(use_true_random=False),
)
@settings(max_examples=30, deadline=None)
def test_examples_are_found_wherever_row_groups_are_cut(
    counts: list[int], row_group: int, drawn: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = []
    for feature, count in enumerate(counts):
        for rank in range(count):
            position = drawn.randrange(10)
            places = [place - position for place in range(10) if place != position and -3 <= place - position <= 2]
            offsets = sorted(drawn.sample(places, drawn.randrange(len(places) + 1)))
            rows.append(
                {"feature": feature, "kind": drawn.choice(EXAMPLE_KINDS), "group": rank % 3, "rank": rank, "sequence": 0,
                 "position": position, "activation": rank + 0.5, "offsets": offsets, "activations": [0.25] * len(offsets)}
            )  # fmt: skip
    tables = {**small_tables(), "examples": pa.Table.from_pylist(rows, arrow_schema("examples"))}
    ids = np.arange(10, dtype="<u2")[None]
    folder = write_store(tmp_path_factory.mktemp("p") / "s", tables, ids, np.ones((1, 10), bool), row_group)
    with FeatureStore.open(folder) as store:
        for feature, count in enumerate(counts):
            found = store.examples(feature)
            assert len(found) == count
            order = [(EXAMPLE_KINDS.index(one.kind), one.group, one.rank) for one in found]
            assert order == sorted(order)
            for one in found:
                row = next(row for row in rows if (row["feature"], row["rank"]) == (feature, one.rank))
                dense = np.zeros(10, np.float32)
                dense[[one.position + offset for offset in row["offsets"]]] = 0.25
                dense[one.position] = row["activation"]
                low, high = max(0, one.position - 3), min(10, one.position + 3)
                assert one.token_ids.tolist() == list(range(low, high))
                assert one.activations.tolist() == dense[low:high].tolist()


# --- damage ------------------------------------------------------------------------------------------------------

DATA_FILES = [*(TABLES[name].file for name in small_tables()), "tokens.npy", "kept.npy"]


@pytest.mark.parametrize("name", DATA_FILES)
def test_a_missing_or_cut_file_is_named_at_once(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(DamagedError, match=rf"{name} has [\d,]+ bytes, not"):
        FeatureStore.open(folder)
    (folder / name).unlink()
    with pytest.raises(DamagedError, match=f"{name} is missing"):
        FeatureStore.open(folder)


@given(name=st.sampled_from(DATA_FILES), where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(max_examples=40, deadline=None)
def test_any_changed_byte_is_found_by_verifying(
    name: str, where: float, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = small_store(tmp_path_factory.mktemp("p") / "s")
    data = bytearray((folder / name).read_bytes())
    data[int(where * len(data))] ^= flip
    (folder / name).write_bytes(data)
    with pytest.raises(DamagedError, match=f"{name} was changed"):
        FeatureStore.open(folder, verify=True)


@pytest.mark.parametrize("name", DATA_FILES)
@pytest.mark.parametrize("opened_before", [False, True])
def test_a_changed_file_of_the_same_size_is_refused_by_name(folder: Path, name: str, opened_before: bool) -> None:
    if opened_before:
        FeatureStore.open(folder).close()
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    for _ in range(2):
        with pytest.raises(DamagedError, match=f"{name} was changed"):
            FeatureStore.open(folder)


def test_digests_are_checked_once_for_each_state_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return digest_file(path)

    monkeypatch.setattr("neuronmap.features.storage.manifest.digest_file", counted)
    FeatureStore.open(folder)
    assert sorted(read) == sorted(DATA_FILES)
    read.clear()
    FeatureStore.open(folder)
    assert read == []
    os.utime(folder / "hints.parquet", ns=(0, 0))
    FeatureStore.open(folder)
    assert read == ["hints.parquet"]
    read.clear()
    FeatureStore.open(folder, verify=True)
    assert sorted(read) == sorted(DATA_FILES)
    read.clear()
    for content in ("[1]", "no JSON"):
        (folder / VERIFIED).write_text(content)
        FeatureStore.open(folder)
    assert sorted(read) == sorted(2 * DATA_FILES)
    assert VERIFIED not in read_manifest(folder)["files"]


def test_a_copy_is_checked_anew_though_it_has_the_times_of_the_original(folder: Path, tmp_path: Path) -> None:
    FeatureStore.open(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")  # with verified.json
    status = (copy / "tokens.npy").stat()
    data = bytearray((copy / "tokens.npy").read_bytes())
    data[-1] ^= 1
    (copy / "tokens.npy").write_bytes(data)
    os.utime(copy / "tokens.npy", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DamagedError, match=r"tokens\.npy was changed"):
        FeatureStore.open(copy)


def test_what_was_checked_before_is_not_believed_of_another_manifest(folder: Path) -> None:
    FeatureStore.open(folder)
    manifest = read_manifest(folder)
    manifest["files"]["tokens.npy"] = {**manifest["files"]["tokens.npy"], "sha256": "0" * 64}
    write_manifest(folder, manifest, ())
    with pytest.raises(DamagedError, match=r"tokens\.npy was changed"):
        FeatureStore.open(folder)


def test_a_store_that_cannot_be_written_opens_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, value: Any) -> None:
        raise UnwritablePathError(f"Cannot write {path}.")

    monkeypatch.setattr("neuronmap.verified.write_json", refused)
    for _ in range(2):
        assert FeatureStore.open(folder).num_features == len(FEATURES)
    assert not (folder / VERIFIED).exists()


def test_a_table_attached_while_the_store_is_opened_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader holds the manifest of before; it reads the new one instead of crying damage."""
    attached: list[str] = []

    def slow(path: Path) -> str:
        if not attached:
            attached.append(path.name)
            write_table(folder, "hints", small_tables()["hints"].slice(0, 1))
            write_manifest(folder, read_manifest(folder), ["hints.parquet"])
        return digest_file(path)

    monkeypatch.setattr("neuronmap.features.storage.manifest.digest_file", slow)
    store = FeatureStore.open(folder)
    assert attached
    assert store.manifest == read_manifest(folder)


@pytest.mark.parametrize("name", ["features.parquet", "tokens.npy", "kept.npy", "examples.parquet"])
def test_an_unreadable_file_is_named_when_it_is_read(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x" * (folder / name).stat().st_size)
    write_manifest(folder, read_manifest(folder), [name])  # as it was written, so no digest tells
    store = FeatureStore.open(folder)
    with pytest.raises(DamagedError, match=f"{name} cannot be read"):
        _ = (store.feature(0), store.kept(0), store.examples(0))


def test_a_table_of_other_columns_is_refused(folder: Path) -> None:
    pq.write_table(pa.table({"feature": [0]}), folder / "hints.parquet")
    write_manifest(folder, read_manifest(folder), ["hints.parquet"])
    with pytest.raises(DamagedError, match=r"hints\.parquet does not have the columns.*differs in .*class"):
        FeatureStore.open(folder).feature(0)


def test_tokens_of_another_shape_are_refused(folder: Path) -> None:
    np.save(folder / "tokens.npy", np.zeros((CONTEXTS, 9), "<u2"))
    write_manifest(folder, read_manifest(folder), ["tokens.npy"])
    with pytest.raises(DamagedError, match=r"tokens.npy holds uint16 \(6, 9\), not \(6, 10\)"):
        FeatureStore.open(folder).context(0)


def test_a_missing_row_is_damage(tmp_path: Path) -> None:
    tables = small_tables()
    tables["details"] = tables["details"].slice(0, 3)
    store = FeatureStore.open(write_store(tmp_path / "s", tables, np.zeros((1, 3), "<u2"), np.ones((1, 3), bool)))
    with pytest.raises(DamagedError, match=r"details\.parquet has 0 rows of feature 5"):
        _ = store.feature(5).details


@pytest.mark.parametrize("field", ["rows", "features", "key", "edges", "overview"])
def test_a_changed_manifest_is_refused(folder: Path, field: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest[field] = 7
    write_json(folder / MANIFEST, manifest)
    with pytest.raises(DamagedError, match="its seal is broken"):
        FeatureStore.open(folder)
    write_json(folder / MANIFEST, seal({name: value for name, value in manifest.items() if name != field}))
    with pytest.raises(DamagedError, match=f"lacks {field}"):
        FeatureStore.open(folder)


def test_a_manifest_cannot_point_outside_the_folder(folder: Path) -> None:
    manifest = read_manifest(folder)
    manifest["files"]["../other"] = file_facts(folder / "kept.npy")
    write_json(folder / MANIFEST, seal(manifest))
    with pytest.raises(DamagedError, match=r"lacks \.\./other"):
        FeatureStore.open(folder)


def test_other_folders_are_told_apart(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="no feature store"):
        FeatureStore.open(tmp_path / "nothing")
    write_json(folder / MANIFEST, {"format": "neuronmap-activations", "version": 1})
    with pytest.raises(MismatchError, match="its format is 'neuronmap-activations'"):
        FeatureStore.open(folder)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(DamagedError, match="not valid JSON"):
        FeatureStore.open(folder)


def test_a_table_that_is_not_there_is_named_with_its_maker(tmp_path: Path) -> None:
    store = FeatureStore.open(small_store(tmp_path / "s", without=("promoted",)))
    with pytest.raises(InputError, match=r"(?s)no promoted tokens .*language model"):
        store.tables.read("promoted")
    with pytest.raises(InputError, match="no map of features"):
        store.tables.read("clusters")
    with pytest.raises(InputError, match="There are: features"):
        store.tables.read("rows")
    with pytest.raises(InputError, match="no column hight"):
        store.tables.read("features", ["hight"])


# --- versions ----------------------------------------------------------------------------------------------------


def make_old(folder: Path) -> None:
    """Turn a store into one of an invented version 0, in which the status was a number and kept.npy was called mask.npy."""
    features = pq.read_table(folder / "features.parquet")
    number = [["never", "rare", "alive", "dense"].index(status) for status in features["status"].to_pylist()]
    pq.write_table(features.set_column(1, "status", [number]), folder / "features.parquet")
    (folder / "kept.npy").rename(folder / "mask.npy")
    manifest = {**read_manifest(folder), "version": 0}
    manifest["num_rows"] = manifest.pop("rows")
    write_manifest(folder, manifest, ["features.parquet", "kept.npy", "mask.npy"])


def from_zero(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    features = pq.read_table(folder / "features.parquet")
    names = ["never", "rare", "alive", "dense"]
    status = pa.array([names[number] for number in features["status"].to_pylist()])
    pq.write_table(
        features.set_column(1, arrow_schema("features").field("status"), status), folder / "features.parquet"
    )
    (folder / "mask.npy").rename(folder / "kept.npy")
    rows = manifest.pop("num_rows")
    return {**manifest, "rows": rows}


def test_there_is_a_migration_from_every_older_version() -> None:
    assert sorted(migrations.MIGRATIONS) == list(range(1, schema.VERSION))


def test_an_old_store_is_brought_up_to_date(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = FeatureStore.open(folder)
    expected = [before.feature(feature).row for feature in range(8)]
    make_old(folder)
    monkeypatch.setitem(migrations.MIGRATIONS, 0, from_zero)
    store = FeatureStore.open(folder, verify=True)
    assert store.manifest["version"] == schema.VERSION
    assert [store.feature(feature).row for feature in range(8)] == expected
    assert store.kept(0).tolist() == [False] + [True] * 9
    assert "mask.npy" not in store.manifest["files"]
    assert not (folder / "mask.npy").exists()
    monkeypatch.delitem(migrations.MIGRATIONS, 0)
    assert FeatureStore.open(folder).key == before.key  # it is version 1 on disk now
    left = [path.name for path in folder.parent.iterdir() if path.name != folder.name]
    assert [name for name in left if not name.endswith(".lock")] == []


def test_several_threads_migrate_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_old(folder)
    calls = []

    def counted(work: Path, manifest: dict[str, Any]) -> dict[str, Any]:
        calls.append(work)
        return from_zero(work, manifest)

    monkeypatch.setitem(migrations.MIGRATIONS, 0, counted)
    found = []
    threads = [threading.Thread(target=lambda: found.append(FeatureStore.open(folder).key)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(calls) == 1


def test_a_failed_migration_leaves_the_old_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_old(folder)
    shutil.copytree(folder, folder.with_name("copy"))

    def breaks(work: Path, manifest: dict[str, Any]) -> dict[str, Any]:
        (work / "features.parquet").unlink()
        raise KeyError("gone")

    monkeypatch.setitem(migrations.MIGRATIONS, 0, breaks)
    with pytest.raises(KeyError, match="gone"):
        FeatureStore.open(folder)
    for file in folder.with_name("copy").iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes()
    assert not list(folder.parent.glob(".staging-*"))


def test_a_damaged_old_store_is_not_sealed_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_old(folder)
    data = bytearray((folder / "tokens.npy").read_bytes())
    data[-1] ^= 1
    (folder / "tokens.npy").write_bytes(data)
    monkeypatch.setitem(migrations.MIGRATIONS, 0, from_zero)
    with pytest.raises(DamagedError, match=r"tokens\.npy was changed"):
        FeatureStore.open(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_versions_without_a_way_are_refused(folder: Path, version: Any) -> None:
    write_json(folder / MANIFEST, seal({**read_manifest(folder), "version": version}))
    with pytest.raises(MismatchError, match=rf"has version {version!r}; this NeuronMap reads version 1"):
        FeatureStore.open(folder)


# --- manifest ----------------------------------------------------------------------------------------------------


def test_sealing_again_takes_in_new_and_lost_files(folder: Path) -> None:
    (folder / "hints.parquet").unlink()
    (folder / "clusters.parquet").write_bytes(b"x")
    write_manifest(folder, read_manifest(folder), ["hints.parquet", "clusters.parquet"])
    files = read_manifest(folder)["files"]
    assert "hints.parquet" not in files
    assert files["clusters.parquet"] == file_facts(folder / "clusters.parquet")
    check_files(folder, read_manifest(folder), verify=True)


# --- without NeuronMap -------------------------------------------------------------------------------------------


def test_pandas_polars_and_duckdb_read_the_files(folder: Path) -> None:
    import duckdb
    import pandas as pd
    import polars as pl

    labels = [row["label"] for row in hint_rows()]
    assert pd.read_parquet(folder / "hints.parquet")["label"].tolist() == labels
    assert pl.read_parquet(folder / "hints.parquet")["label"].to_list() == labels
    with duckdb.connect(":memory:") as connection:
        joined = f"'{folder}/features.parquet' JOIN '{folder}/hints.parquet' USING (feature)"
        found = connection.execute(f"SELECT label FROM {joined} WHERE status = 'dense'").fetchall()
        assert found == [("everywhere",)]
        for name in TABLES:
            if (folder / TABLES[name].file).exists():
                rows = connection.execute(f"SELECT count(*) FROM '{folder}/{TABLES[name].file}'").fetchone()
                assert rows == (len(pl.read_parquet(folder / TABLES[name].file)),)
                assert rows == (len(pd.read_parquet(folder / TABLES[name].file)),)
    assert np.load(folder / "tokens.npy").shape == (6, 10)
    assert np.unpackbits(np.load(folder / "kept.npy"), axis=1, count=10).sum() == 54


def test_reading_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys\n"
        "from neuronmap.features.storage.store import FeatureStore\n"
        f"with FeatureStore.open({str(folder)!r}) as store:\n"
        "    store.feature(0).details, store.examples(0)[0].pieces(), store.queries.select('status=alive')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_no_changed_byte_of_a_table_is_read_as_another_value(folder: Path) -> None:
    """Pages carry checksums, so without reading every digest at each start nothing false is shown."""
    manifest = read_manifest(folder)
    expected = small_tables()["features"]
    write_table(folder, "features", expected)
    write_manifest(folder, manifest, ["features.parquet"])
    file, noticed = folder / "features.parquet", 0
    sound = file.read_bytes()
    for place in np.random.default_rng(0).choice(len(sound), 200, replace=False).tolist():
        changed = bytearray(sound)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        try:
            with FeatureStore.open(folder) as store:
                assert store.tables.read("features").to_pylist() == expected.to_pylist(), place
        except DamagedError as error:
            noticed += "features.parquet" in error.message
    assert noticed > 20  # the rest are bytes that reading has no use for: statistics, names of the writer
