"""Activation stores and other folders in a bucket: whole or not at all, byte for byte, fetched as they are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from token_sets import PlainTokens

from neuronmap.activations import ActivationStore, harvest
from neuronmap.activations.remote import RemoteActivationStore, push_store
from neuronmap.errors import DamagedError, InputError, MismatchError
from neuronmap.models import resolve_hook
from neuronmap.objects import RemoteFolders
from neuronmap.progress import SilentProgress
from neuronmap.zoo.blobs import LocalBlobStore

QUIET = SilentProgress()


@pytest.fixture
def place(tmp_path: Path) -> RemoteFolders:
    """A bucket that is a folder; tests/contract has the same with S3."""
    return RemoteFolders(LocalBlobStore(tmp_path / "bucket"))


@pytest.fixture
def store(tiny_llama, tmp_path: Path) -> ActivationStore:
    """Three shards."""
    hook = resolve_hook(tiny_llama, 1, "residual")
    return harvest(tiny_llama, PlainTokens(20, 16), [hook], root=tmp_path / "stores", shard_rows=100, progress=QUIET)[
        hook.name
    ]


def fetched(store: ActivationStore) -> list[str]:
    return sorted(file.name for file in store.path.iterdir() if file.name.endswith(".bin"))


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_rows_and_their_origins_come_back_shard_by_shard(dtype, tiny_llama, place, tmp_path) -> None:
    hook = resolve_hook(tiny_llama, 1, "residual")
    made = harvest(
        tiny_llama,
        PlainTokens(20, 16),
        [hook],
        root=tmp_path / "stores",
        shard_rows=100,
        dtype=dtype,
        progress=QUIET,
    )[hook.name]
    listing = push_store(made, place, QUIET)
    assert list(place.names()) == [f"activations/{made.path.name}"]
    shutil.rmtree(made.path.parent)
    found = RemoteActivationStore.find(place, made.path.name, tmp_path / "cache")
    assert found is not None
    assert (found.num_rows, found.digest) == (made.num_rows, made.digest)
    assert fetched(found) == []
    first = found.read(101, 103)
    kinds = ["rows", "scales"] if dtype == "int8" else ["rows"]
    assert fetched(found) == [f"{kind}-00001.bin" for kind in kinds]
    assert found.provenance(0, 5).context.tolist() == [0] * 5
    assert "index-00000.bin" in fetched(found)
    rows = found.read(0, found.num_rows)
    torch.testing.assert_close(rows[101:103], first, rtol=0, atol=0)
    whole = place.pull(listing, tmp_path / "pulled", QUIET)
    again = ActivationStore.open(whole, verify=True)
    torch.testing.assert_close(again.read(0, again.num_rows), rows, rtol=0, atol=0)


def test_there_is_none(place) -> None:
    assert RemoteActivationStore.find(place, "layer-1234") is None
    with pytest.raises(InputError, match=r"no 'a/b' in .*; there is nothing"):
        place.require("a/b")


def test_bytes_that_changed_in_the_bucket_get_no_name(store, place, tmp_path) -> None:
    listing = push_store(store, place, QUIET)
    digest = listing.files["rows-00001.bin"].digest.removeprefix("sha256:")
    blob = tmp_path / "bucket" / "blobs" / digest[:2] / digest
    blob.write_bytes(b"x" * blob.stat().st_size)
    found = RemoteActivationStore.find(place, store.path.name, tmp_path / "cache")
    assert found is not None
    found.read(0, 100)
    with pytest.raises(DamagedError, match=r"rows-00001.bin .* has other bytes"):
        found.read(90, 110)
    assert fetched(found) == ["rows-00000.bin"]
    with pytest.raises(DamagedError):
        place.pull(listing, tmp_path / "pulled", QUIET)
    assert not (tmp_path / "pulled").exists()
    blob.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        found.read(90, 110)


@pytest.mark.parametrize("path", ["../escape.bin", "/etc/passwd", "a/../b", ".hidden", "a\\b", ""])
def test_a_listing_that_names_other_places_is_refused(path, store, place, tmp_path) -> None:
    from neuronmap.hashing import sealed

    push_store(store, place, QUIET)
    file = tmp_path / "bucket" / "folders" / "activations" / store.path.name / "files.json"
    body = json.loads(file.read_text())
    body["files"][path] = body["files"].pop("rows-00001.bin")
    file.write_text(json.dumps(sealed(body, "listing_digest")))
    with pytest.raises(DamagedError, match="no file of a folder"):
        place.listing(f"activations/{store.path.name}")
    file.write_text(json.dumps(body | {"size": 1}))
    with pytest.raises(DamagedError, match="was changed"):
        place.listing(f"activations/{store.path.name}")
    file.write_text(json.dumps(sealed(body | {"version": 2}, "listing_digest")))
    with pytest.raises(MismatchError, match="version 2"):
        place.listing(f"activations/{store.path.name}")


def test_a_store_without_one_of_its_shards_is_refused(store, place, tmp_path) -> None:
    names = [file.name for file in store.path.iterdir() if file.name not in ("rows-00001.bin", "verified.json")]
    place.push(f"activations/{store.path.name}", store.path, names, QUIET)
    with pytest.raises(DamagedError, match=r"rows-00001\.bin is missing or changed"):
        RemoteActivationStore.find(place, store.path.name, tmp_path / "cache")


def test_what_is_there_does_not_travel_again(store, place, tmp_path) -> None:
    push_store(store, place, QUIET)
    blobs = {file: file.stat().st_mtime_ns for file in (tmp_path / "bucket" / "blobs").rglob("*") if file.is_file()}
    push_store(store, place, QUIET)
    assert blobs == {file: file.stat().st_mtime_ns for file in blobs}


def test_a_push_that_breaks_off_leaves_no_folder(store, place, monkeypatch) -> None:
    putting, calls = place.store.put, []

    def failing(key, chunks):
        calls.append(key)
        if len(calls) == 3:
            raise OSError("broken off")
        return putting(key, chunks)

    monkeypatch.setattr(place.store, "put", failing)
    with pytest.raises(OSError, match="broken off"):
        push_store(store, place, QUIET)
    assert list(place.names()) == []
    push_store(store, place, QUIET)
    assert list(place.names()) == [f"activations/{store.path.name}"]
