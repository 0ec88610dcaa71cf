"""The caches of searches: what belongs to no analysis goes, and above a size what was not used for longest."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.unit.web.conftest import made_app

from neuronmap.errors import ConfigError
from neuronmap.hub import SAEModelHub
from neuronmap.hub.analyses import delete_analysis, list_analyses, open_analysis
from neuronmap.paths import cache_folder
from neuronmap.web import caches
from neuronmap.web.views.example_index import example_index, index_folder
from neuronmap.web.views.semantic_index import SemanticIndex

ENCODER = "sha256:" + "0" * 64


def long_ago(path: Path, seconds: float = 1e6) -> Path:
    os.utime(path, (time.time() - seconds,) * 2)
    return path


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> str:
    """The digest of an encoder, so that the tests do not need the real one to be installed."""
    monkeypatch.setattr("neuronmap.web.views.semantic_index.encoder_digest", lambda: ENCODER)
    return ENCODER


def made_caches(library: Path, encoder: str) -> tuple[Path, Path]:
    """The two caches of the analysis of ``first``, as searches make them."""
    store = open_analysis(SAEModelHub(library).get("first"))
    assert example_index(store, wait=60.0) is not None
    index = SemanticIndex.of(store, encoder)
    for block in index.missing:
        index.write(block, np.eye(len(block), index.width, dtype=np.float32))
    index.join()
    return index_folder(store.key), index.path


def test_what_belongs_to_no_analysis_is_dropped(library: Path, encoder: str) -> None:
    examples, vectors = (long_ago(part) for part in made_caches(library, encoder))
    stray = [cache_folder("examples") / "0123456789abcdef-1", cache_folder("examples") / ".staging-ab"]
    stray.append(cache_folder("semantic") / "0123.parts")
    for folder in stray:
        folder.mkdir()
        (folder / "text.npy").write_bytes(b"x")
        long_ago(folder)
    stray.append(cache_folder("semantic") / "4567.npy")
    stray[-1].write_bytes(b"x")
    long_ago(stray[-1])
    assert set(caches.drop_orphans([library])) == set(stray)
    assert examples.is_dir()
    assert vectors.is_file()
    entry = SAEModelHub(library).get("first")
    delete_analysis(entry, list_analyses(entry)[0].name)
    assert set(caches.drop_orphans([library])) == {examples, vectors}


def test_what_was_used_lately_or_may_be_of_a_missing_disk_stays(library: Path, encoder: str, tmp_path: Path) -> None:
    examples, _ = made_caches(library, encoder)
    shutil.rmtree(library / "first" / "analyses")
    assert caches.drop_orphans([library]) == []  # used in the last hour
    long_ago(examples)
    assert caches.drop_orphans([library, tmp_path / "not-mounted"]) == []
    assert examples.is_dir()


def test_above_its_size_the_least_recently_used_goes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del home
    monkeypatch.setenv(caches.SWITCH, str(3 * 250 / 2**30))
    assert (caches.most_bytes("examples"), caches.most_bytes("semantic")) == (500, 250)
    parts = []
    for age in range(4):
        part = cache_folder("semantic") / f"{age}.npy"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(b"x" * 100)
        parts.append(long_ago(part, 100.0 * (age + 1)))
    caches.touch(parts[3])  # the oldest is used again
    assert caches.bound("semantic") == [parts[2], parts[1]]
    assert caches.bound("semantic") == []
    monkeypatch.setenv(caches.SWITCH, "0")
    assert caches.bound("semantic", keep=parts[0]) == [parts[3]]


@pytest.mark.parametrize("said", ["much", "-1", "nan", "inf"])
def test_a_size_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv(caches.SWITCH, said)
    with pytest.raises(ConfigError, match="NEURONMAP_SEARCH_CACHE"):
        caches.most_bytes("semantic")
    monkeypatch.delenv(caches.SWITCH)
    assert caches.most_bytes("examples") + caches.most_bytes("semantic") == 12 << 30


def test_building_one_bounds_its_cache_and_using_one_counts(
    library: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(caches.SWITCH, "0")
    old = [cache_folder("examples") / "old", cache_folder("semantic") / "old.npy"]
    old[0].mkdir(parents=True)
    (old[0] / "text.npy").write_bytes(b"x" * 10)
    old[1].parent.mkdir(parents=True)
    old[1].write_bytes(b"x" * 10)
    for part in old:
        long_ago(part)
    examples, vectors = made_caches(library, encoder)
    assert not any(part.exists() for part in old)
    assert examples.is_dir()  # what was just made stays, whatever its size
    long_ago(vectors)
    store = open_analysis(SAEModelHub(library).get("first"))
    SemanticIndex.of(store, encoder).vectors()
    assert time.time() - vectors.stat().st_mtime < 100


def test_a_server_tidies_when_it_has_started(library: Path) -> None:
    del library
    stray = cache_folder("examples") / "0123456789abcdef-1"
    stray.mkdir(parents=True)
    long_ago(stray)
    with TestClient(made_app(supervise=True), base_url="http://localhost") as client:
        assert client.get("/api/health").status_code == 200
        until = time.monotonic() + 20
        while stray.exists() and time.monotonic() < until:
            time.sleep(0.05)
    assert not stray.exists()
