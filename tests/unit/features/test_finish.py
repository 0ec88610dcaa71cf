"""The store's files: what is in them, that others can read them, that they are the same each time and never half there."""

from __future__ import annotations

import errno
import itertools
import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feature_states import World, random_world, state_of

from neuronmap.errors import AlreadyExistsError, DiskSpaceError, InputError, MismatchError
from neuronmap.features.directions.lens import LensFacts
from neuronmap.features.directions.map import FeatureMap
from neuronmap.features.directions.weights import WeightFacts
from neuronmap.features.storage.manifest import check_files, read_manifest
from neuronmap.features.storage.schema import EXAMPLE_KINDS, TABLES, arrow_schema
from neuronmap.features.storage.store import FeatureStore
from neuronmap.features.storage.text import Vocabulary
from neuronmap.features.summary import finish as finishing
from neuronmap.features.summary.finish import attach_table, finish
from neuronmap.features.summary.writing import rounded
from neuronmap.hashing import digest_file
from neuronmap.progress import SilentProgress

FACTS = {"sae": {"name": "tiny"}, "model": {"name": "none"}}


def vocabulary_of(world: World) -> Vocabulary:
    return Vocabulary(
        [f" t{token}".encode() for token in range(world.vocabulary)], [True] + [False] * (world.vocabulary - 1)
    )


def weights_of(world: World, entries: int = 3) -> WeightFacts:
    rng, num = np.random.default_rng(1), world.value_CTF.shape[2]

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=(num, *shape)).astype(np.float32)

    def ids() -> np.ndarray:
        return np.argsort(rng.random((num, world.vocabulary)), axis=1)[:, :entries].astype(np.int32)

    lens = LensFacts(
        world.vocabulary,
        *(floats(), floats(), floats(), np.full(num, np.nan, np.float32)),
        *(ids(), -np.sort(-floats(entries), axis=1), ids(), np.sort(floats(entries), axis=1)),
        *(rng.integers(0, 9, (num, 64)).astype(np.uint32), ids(), floats(entries)),
    )
    near = np.argsort(rng.random((num, num)), axis=1)[:, :entries].astype(np.int32)
    return WeightFacts(floats(), floats(), floats(), floats(), None, near, -np.sort(-floats(entries), axis=1), lens)


def made(world: World, folder: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {"weights": weights_of(world), "facts": FACTS, "progress": SilentProgress(), **changes}
    return finish(state_of(world), world.tokens, vocabulary_of(world), folder, **given)


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(contexts=48, features=30)


@pytest.fixture(scope="module")
def store(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    num = world.value_CTF.shape[2]
    place = np.linspace(0, 1, num, dtype=np.float32)
    place[0] = np.nan
    feature_map = FeatureMap(place, -place, np.arange(num, dtype=np.int32) % 3 - 1, "pca", "drawn by hand")
    return made(world, tmp_path_factory.mktemp("stores") / "store", feature_map=feature_map)


def same_schema(found: pa.Schema, wanted: pa.Schema) -> bool:
    """Names, types and descriptions; Parquet gives the entries of a list a name of its own."""
    return found.equals(wanted) and [field.metadata for field in found] == [field.metadata for field in wanted]


def test_every_file_has_the_schema_and_is_listed(store: Path) -> None:
    manifest = read_manifest(store)
    check_files(store, manifest, verify=True)
    missing = {"hints", "clusters"}
    tables = {table.file for name, table in TABLES.items() if name not in missing}
    assert set(manifest["files"]) == tables | {"tokens.npy", "kept.npy"}
    assert {file.name for file in store.iterdir()} == set(manifest["files"]) | {"manifest.json"}
    for name in TABLES.keys() - missing:
        file = pq.ParquetFile(store / TABLES[name].file)
        assert same_schema(file.schema_arrow, arrow_schema(name))
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        assert all(size == TABLES[name].row_group for size in sizes[:-1])


def test_the_store_opens(store: Path, world: World) -> None:
    with FeatureStore.open(store, verify=True) as opened:
        assert opened.num_features == world.value_CTF.shape[2]
        assert opened.facts["sae"] == {"name": "tiny"}
        assert opened.facts["pass"]["hook"] == "layer.3"
        assert opened.facts["notes"] == {"map": "drawn by hand"}
        feature = int(np.argmax((world.value_CTF > 0).sum(axis=(0, 1)) == 20)) or 3
        example = opened.examples(feature, "top")[0]
        assert example.activation == world.value_CTF[:, :, feature].max()
        assert opened.overview["rows"] == world.row_CT.sum()


def test_numbers_of_features(store: Path, world: World) -> None:
    frame = pd.read_parquet(store / "features.parquet")
    rows = int(world.row_CT.sum())
    weights = weights_of(world)
    assert frame["feature"].tolist() == list(range(world.value_CTF.shape[2]))
    for feature, row in frame.iterrows():
        values = np.array([value for *_, value in world.firings(feature)])
        assert row["firings"] == len(values)
        assert row["density"] == pytest.approx(len(values) / rows)
        assert row["density_low"] <= row["density"] <= row["density_high"]
        assert row["sum"] == pytest.approx(values.sum())
        assert row["decoder_norm"] == weights.decoder_norm_F[feature]
        assert row["nearest"] == weights.neighbours_FN[feature, 0]
        assert row["top_promoted"] == weights.lens.promoted_FN[feature, 0]
        assert row["top_promoted_text"] == f" t{row['top_promoted']}"
        if len(values):
            assert [row["mean"], row["std"], row["max"]] == pytest.approx(
                [values.mean(), values.std(), values.max()], abs=1e-6
            )
            early = sum(position * 16 // world.ids_CT.shape[1] == 0 for _, position, _ in world.firings(feature))
            assert row["early_share"] == pytest.approx(early / len(values))
            assert row["top_token_text"] == f" t{int(row['top_token'])}"
        else:
            assert row["status"] == "never"
            for name in ("mean", "std", "max", "q50", "top_token", "top_token_text", "token_entropy", "coactive"):
                assert pd.isna(row[name]), name
            assert row["sum"] == 0
    assert frame["threshold"].isna().all()
    assert frame["logit_kurtosis"].isna().all()
    assert frame["cluster"].isna().tolist() == [True] + [False] * (len(frame) - 1)


def test_details_are_the_arrays(store: Path, world: World) -> None:
    state, weights = state_of(world), weights_of(world)
    for row in pq.read_table(store / "details.parquet").to_pylist():
        feature = row["feature"]
        assert row["histogram"] == state.features["histogram"][feature].tolist()
        assert row["positions"] == state.features["positions"][feature].tolist()
        assert [entry["feature"] for entry in row["neighbours"]] == weights.neighbours_FN[feature].tolist()
        found = [entry["value"] for entry in row["suppressed"]]
        assert found == pytest.approx(weights.lens.suppressed_logit_FN[feature], rel=2**-13)
        assert [entry["token"] for entry in row["input_tokens"]] == weights.lens.input_tokens_FN[feature].tolist()
        assert row["logit_histogram"] == weights.lens.histogram_F64[feature].tolist()


def test_examples_are_ordered_and_true(store: Path, world: World) -> None:
    rows = pq.read_table(store / "examples.parquet").to_pylist()
    keys = [(row["feature"], EXAMPLE_KINDS.index(row["kind"]), row["group"], row["rank"]) for row in rows]
    assert keys == sorted(set(keys))
    assert {row["kind"] for row in rows} == set(EXAMPLE_KINDS)
    for row in rows:
        value = world.value_CTF[row["sequence"], row["position"], row["feature"]]
        assert row["activation"] == value
        assert (value == 0) == (row["kind"] in ("random", "hard"))
        for offset, activation in zip(row["offsets"], row["activations"], strict=True):
            true = world.value_CTF[row["sequence"], row["position"] + offset, row["feature"]]
            assert activation == pytest.approx(true, rel=2**-10)
    assert 0 not in {row["feature"] for row in rows}  # never fired: nothing to show


def test_the_index_from_tokens_to_features(store: Path, world: World) -> None:
    state = state_of(world)
    rows = pq.read_table(store / "token_features.parquet").to_pylist()
    count_V = np.bincount(world.ids_CT[world.row_CT], minlength=world.vocabulary)
    expected = {}
    for feature in range(world.value_CTF.shape[2]):
        sampled = state.features["sample"][feature][: state.features["sample_count"][feature]]
        hits = world.ids_CT[sampled["sequence"], sampled["position"]]
        for token in np.unique(hits):
            count = int((hits == token).sum())
            share = count / len(sampled)
            of_token = min(1.0, share * state.features["firings"][feature] / count_V[token])
            mean = sampled["value"][hits == token].astype(np.float64).mean()
            expected[int(token), feature] = (count, share, of_token, mean)
    assert len(rows) == len(expected) > 100  # no feature hits more tokens than are kept
    for row in rows:
        found = [row[name] for name in ("count", "share_of_feature", "share_of_token", "mean")]
        assert found == pytest.approx(expected[row["token"], row["feature"]], rel=2**-12)
    places = [(row["token"], row["rank"]) for row in rows]
    assert places == sorted(set(places))
    for before, after in itertools.pairwise(rows):
        if before["token"] == after["token"]:
            assert before["share_of_token"] >= after["share_of_token"]
            assert after["rank"] == before["rank"] + 1
        else:
            assert after["rank"] == 0


def test_the_index_from_promoted_tokens_to_features(store: Path, world: World) -> None:
    lens = weights_of(world).lens
    rows = pq.read_table(store / "promoted.parquet").to_pylist()
    assert len(rows) == lens.promoted_FN.size
    for row in rows:
        assert lens.promoted_FN[row["feature"], row["place"]] == row["token"]
        assert row["logit"] == pytest.approx(lens.promoted_logit_FN[row["feature"], row["place"]], rel=2**-13)
    keys = [(row["token"], -row["logit"]) for row in rows]
    assert keys == sorted(keys)


def test_contexts_and_documents(store: Path, world: World) -> None:
    np.testing.assert_array_equal(np.load(store / "tokens.npy"), world.ids_CT)
    kept = np.unpackbits(np.load(store / "kept.npy"), axis=1, count=world.ids_CT.shape[1])
    np.testing.assert_array_equal(kept.astype(bool), world.row_CT)
    for row in pq.read_table(store / "documents.parquet").to_pylist():
        assert row["id"] == f"file.jsonl:{row['document']}"
        assert world.document_CT[row["sequence"], row["position"]] == row["document"]
    assert np.load(store / "tokens.npy").dtype == np.uint16


@pytest.mark.parametrize("table", sorted(TABLES.keys() - {"hints", "clusters"}))
def test_pandas_polars_and_duckdb_read_the_same(store: Path, table: str) -> None:
    path = store / TABLES[table].file
    arrow = pq.read_table(path)
    expected = arrow.to_pylist()
    assert json.dumps(pl.read_parquet(path).to_dicts(), default=str) == json.dumps(expected, default=str)
    assert len(pd.read_parquet(path)) == len(expected)
    with duckdb.connect() as connection:
        names = ", ".join(f'"{name}"' for name in arrow.column_names)
        found = connection.execute(f"select {names} from '{path}'").fetchall()
    plain = [tuple(row.values()) for row in expected]
    assert json.dumps(found, default=str) == json.dumps(plain, default=str)


def test_the_same_state_gives_the_same_bytes(store: Path, world: World, tmp_path: Path, monkeypatch: Any) -> None:
    num = world.value_CTF.shape[2]
    place = np.linspace(0, 1, num, dtype=np.float32)
    place[0] = np.nan
    feature_map = FeatureMap(place, -place, np.arange(num, dtype=np.int32) % 3 - 1, "pca", "drawn by hand")
    monkeypatch.setattr(finishing, "_CHUNK", 7)  # the chunks do not show either
    again = made(world, tmp_path / "again", feature_map=feature_map)
    first, second = read_manifest(store), read_manifest(again)
    assert first["files"] == second["files"]
    for name in ("created", "digest"):
        first.pop(name), second.pop(name)
    assert first == second


def test_a_store_without_weights_says_nothing_of_them(world: World, tmp_path: Path) -> None:
    folder = made(world, tmp_path / "store", weights=None)
    assert "promoted.parquet" not in read_manifest(folder)["files"]
    frame = pd.read_parquet(folder / "features.parquet")
    for name in ("decoder_norm", "nearest", "logit_std", "top_promoted_text", "map_x", "cluster"):
        assert frame[name].isna().all()
    assert all(len(entries) == 0 for entries in pd.read_parquet(folder / "details.parquet")["promoted"])
    FeatureStore.open(folder, verify=True).close()


def test_a_table_is_attached_and_replaced(world: World, tmp_path: Path) -> None:
    folder = made(world, tmp_path / "store")
    before = read_manifest(folder)
    for label in ("one", "two"):
        table = pa.table({"cluster": [1, 0], "size": [4, 3], "label": ["", label], "x": [1.0, 0.5], "y": [None, 0.0]})
        attach_table(folder, "clusters", table)
        manifest = read_manifest(folder)
        check_files(folder, manifest, verify=True)
        assert manifest["files"].keys() == before["files"].keys() | {"clusters.parquet"}
        assert pq.read_table(folder / "clusters.parquet")["label"].to_pylist() == [label, ""]
        assert same_schema(pq.read_schema(folder / "clusters.parquet"), arrow_schema("clusters"))
    assert {file.name for file in folder.iterdir()} == set(manifest["files"]) | {"manifest.json"}


def test_an_interrupted_attachment_leaves_a_whole_store(world: World, tmp_path: Path, monkeypatch: Any) -> None:
    folder = made(world, tmp_path / "store")
    table = pa.table({"cluster": [0], "size": [3], "label": ["a"], "x": [0.5], "y": [0.0]})
    attach_table(folder, "clusters", table)
    whole = finishing.write_manifest
    for fails_at in (1, 2):
        calls = iter(range(1, 9))

        def failing(*arguments: Any, calls: Any = calls, fails_at: int = fails_at) -> Any:
            if next(calls) == fails_at:
                raise KeyboardInterrupt
            return whole(*arguments)

        monkeypatch.setattr(finishing, "write_manifest", failing)
        with pytest.raises(KeyboardInterrupt):
            attach_table(folder, "clusters", table.set_column(2, "label", [["b"]]))
        check_files(folder, read_manifest(folder), verify=True)
        monkeypatch.undo()
    attach_table(folder, "clusters", table)
    assert read_manifest(folder)["files"]["clusters.parquet"]["sha256"] == digest_file(folder / "clusters.parquet")


def test_what_cannot_be_attached(store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no feature store"):
        attach_table(tmp_path / "none" / "here", "clusters", pa.table({}))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"'features' cannot be attached.*hints, clusters, promoted"):
        attach_table(store, "features", pa.table({"feature": [1]}))
    with pytest.raises(InputError, match="has the columns cluster; it must have cluster, size"):
        attach_table(store, "clusters", pa.table({"cluster": [1]}))
    with pytest.raises(InputError, match="does not fit its schema"):
        attach_table(
            store, "clusters", pa.table({"cluster": ["x"], "size": [3], "label": ["a"], "x": [0.5], "y": [0.0]})
        )
    FeatureStore.open(store, verify=True).close()


def test_what_does_not_belong_together_is_refused(world: World, tmp_path: Path) -> None:
    state, vocabulary = state_of(world), vocabulary_of(world)
    given: dict[str, Any] = {"weights": None, "facts": {}, "progress": SilentProgress()}
    other = random_world(contexts=20, features=30)
    with pytest.raises(MismatchError, match="contexts 20 where the pass had 48"):
        finish(state, other.tokens, vocabulary, tmp_path / "store", **given)
    with pytest.raises(MismatchError, match="a vocabulary of 2 where the pass saw tokens up to 39"):
        finish(state, world.tokens, Vocabulary([b"a", b"b"], [False, False]), tmp_path / "store", **given)
    with pytest.raises(MismatchError, match="weights of 12 features where the pass had 30"):
        finish(state, world.tokens, vocabulary, tmp_path / "store", **{**given, "weights": weights_of(random_world())})
    state.token_count_V[5] += 1
    with pytest.raises(MismatchError, match="rows by token differ"):
        finish(state, world.tokens, vocabulary, tmp_path / "store", **given)
    state.done_G[0] = False
    with pytest.raises(InputError, match="1 of 1 blocks are missing"):
        finish(state, world.tokens, vocabulary, tmp_path / "store", **given)
    assert list(tmp_path.iterdir()) == []


def test_the_vocabulary_may_hold_more_than_the_text(world: World, tmp_path: Path) -> None:
    """Features promote tokens that the text lacks; their text is in the store, and they count no rows."""
    more = Vocabulary(
        [*(f" t{token}".encode() for token in range(world.vocabulary)), b" unseen"], [False] * (world.vocabulary + 1)
    )
    made = finish(
        state_of(world), world.tokens, more, tmp_path / "store", weights=None, facts={}, progress=SilentProgress()
    )
    with FeatureStore.open(made, verify=True) as store:
        assert store.vocabulary.text_of(world.vocabulary) == " unseen"
        counts = store.tables.read("vocabulary", ["count"])["count"].to_pylist()
        assert len(counts) == store.manifest["vocabulary"] == world.vocabulary + 1
        assert counts[-1] == 0
        assert sum(counts) == store.manifest["rows"]


def test_an_existing_folder_is_not_touched(world: World, store: Path) -> None:
    before = digest_file(store / "manifest.json")
    with pytest.raises(AlreadyExistsError, match="exists already"):
        made(world, store)
    assert digest_file(store / "manifest.json") == before


def test_a_full_disk_leaves_nothing(world: World, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(finishing, "write_table", full)
    with pytest.raises(DiskSpaceError, match="No space left while writing"):
        made(world, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_rounding_keeps_thirteen_bits() -> None:
    values = np.array([0.0, -0.0, 1.0, np.pi, -1e-30, 65504.0, np.inf, np.nan, 3e38], np.float32)
    found = rounded(values)
    np.testing.assert_allclose(found, values, rtol=2**-13)
    assert (found.view(np.uint32)[:-2] & 0x7FF == 0).all()
    rng = np.random.default_rng(0)
    many = rng.lognormal(size=1000).astype(np.float32)
    assert (np.abs(rounded(many) / many - 1) <= 2**-13).all()
