"""A store is read exactly, and refused with the reason when it cannot be trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from token_sets import PlainTokens

from neuronmap.activations import ActivationStore, harvest, list_stores
from neuronmap.activations.store import seal
from neuronmap.errors import DamagedError, InputError, MismatchError, NeuronMapError
from neuronmap.models import LanguageModel, resolve_hook


@pytest.fixture(params=["float16", "int8"])
def store(request: pytest.FixtureRequest, model: LanguageModel, tokens: PlainTokens, tmp_path: Path) -> ActivationStore:
    hook = resolve_hook(model, 1)
    return harvest(model, tokens, [hook], root=tmp_path, shard_rows=37, dtype=request.param)[hook.name]


def test_reads_cross_shards_and_cast_into_a_given_tensor(store: ActivationStore) -> None:
    everything = store.read(0, store.num_rows)
    assert len(store.manifest["shards"]) > 5
    for start, stop in [(0, 1), (36, 38), (30, 120), (store.num_rows - 1, store.num_rows), (5, 5)]:
        out = torch.full((stop - start, store.width), 9.0, dtype=torch.float32)
        assert store.read(start, stop, out=out) is out
        assert torch.equal(out, everything[start:stop].float())
        origin = store.provenance(start, stop)
        assert [column.shape for column in origin] == [(stop - start,)] * 4


def test_shards_are_plain_little_endian_files(store: ActivationStore) -> None:
    dtype = {"float16": np.float16, "int8": np.int8}[store.row_format.name]
    raw = np.fromfile(store.path / "rows-00001.bin", dtype).reshape(37, store.width)
    expected = raw
    if store.row_format.name == "int8":
        expected = raw.astype(np.float32) * np.fromfile(store.path / "scales-00001.bin", np.float32)[:, None]
    np.testing.assert_array_equal(expected, store.read(37, 74).numpy())


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 10_000)])
def test_rows_outside_the_store_are_refused(store: ActivationStore, start: int, stop: int) -> None:
    with pytest.raises(InputError, match="were asked for"):
        store.read(start, stop)
    with pytest.raises(InputError, match="were asked for"):
        store.provenance(start, stop)


def test_writing_into_what_was_read_does_not_reach_the_disk(store: ActivationStore) -> None:
    before = store.read(0, 5)
    store.read(0, 5).zero_()
    assert torch.equal(ActivationStore.open(store.path, verify=True).read(0, 5), before)


def edit(change: Callable[[dict], None], *, sealed: bool = True) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(seal(manifest) if sealed else manifest))

    return apply


def flip(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return apply


def shorten(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-2])


@pytest.mark.parametrize(
    ("damage", "error", "reason"),
    [
        (shorten("rows-00002.bin"), DamagedError, r"rows-00002\.bin has (1,182 bytes, not 1,184|590 bytes, not 592)"),
        (shorten("index-00000.bin"), DamagedError, r"index-00000\.bin has"),
        (lambda folder: (folder / "rows-00000.bin").unlink(), DamagedError, "rows-00000.bin is missing"),
        (flip("statistics.safetensors"), DamagedError, "statistics.safetensors was changed"),
        (lambda folder: (folder / "manifest.json").write_text("{"), DamagedError, "not valid JSON"),
        (edit(lambda m: m.update(num_rows=1), sealed=False), DamagedError, "manifest.json was changed"),
        (edit(lambda m: m.update(complete=False)), DamagedError, "incomplete"),
        (edit(lambda m: m.update(format="other")), MismatchError, "format is 'other'"),
        (edit(lambda m: m.update(version=99)), MismatchError, "version 99; this NeuronMap reads versions 1, 2"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), MismatchError, "format is 'list'"),
        (lambda folder: (folder / "manifest.json").unlink(), InputError, "no activation store"),
        (lambda folder: (folder / "manifest.json").rename(folder / "journal.json"), DamagedError, "interrupted"),
        (lambda folder: shutil.rmtree(folder), InputError, "no activation store"),
    ],
)
def test_damaged_foreign_and_incomplete_stores_are_refused(
    store: ActivationStore, damage: Callable[[Path], None], error: type[NeuronMapError], reason: str
) -> None:
    damage(store.path)
    with pytest.raises(error, match=reason):
        ActivationStore.open(store.path)


@pytest.mark.parametrize("name", ["rows-00003.bin", "index-00000.bin"])
def test_a_flipped_bit_is_found_when_verifying(store: ActivationStore, name: str) -> None:
    ActivationStore.open(store.path, verify=True)
    flip(name)(store.path)
    with pytest.raises(DamagedError, match=f"{name} was changed"):
        ActivationStore.open(store.path, verify=True)


def test_stores_are_listed_with_their_problems_and_deleted(
    model: LanguageModel, tokens: PlainTokens, store: ActivationStore, tmp_path: Path
) -> None:
    broken = harvest(model, tokens, [resolve_hook(model, 0)], root=tmp_path)
    shorten("rows-00000.bin")(next(iter(broken.values())).path)
    (tmp_path / "unrelated").mkdir()
    bad, good = list_stores(tmp_path)
    assert (bad.store, "rows-00000.bin has" in bad.problem) == (None, True)
    assert good.problem == ""
    assert good.store is not None
    assert good.bytes_on_disk == good.store.bytes_on_disk == sum(f.stat().st_size for f in store.path.iterdir())
    good.store.delete()
    assert [entry.path for entry in list_stores(tmp_path)] == [bad.path]
    assert list_stores(tmp_path / "nowhere") == []
