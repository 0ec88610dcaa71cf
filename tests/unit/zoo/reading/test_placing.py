"""Files of versions, put where they can be read: links to a folder's blobs, copies from an object store within a bound."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from neuronmap.errors import DamagedError, InputError, ResourceError, ZooOfflineError
from neuronmap.zoo.blobs import LocalBlobStore, ObjectBlobStore
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.reading import ReadingFolder
from neuronmap.zoo.views import FileView

VERSION, OTHER = Digest.of(b"a manifest"), Digest.of(b"another")


class Bucket(ObjectBlobStore):
    """An object store in memory, by obstore; it remembers what was read, and may wait meanwhile."""

    def __init__(self) -> None:
        memory = pytest.importorskip("obstore.store", reason="the library for object stores is not installed")
        super().__init__("s3://zoo/blobs?region=us-east-1")
        self._store = memory.MemoryStore()
        self.read: list[str] = []
        self.going_on = threading.Event()
        self.going_on.set()

    def get(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.read.append(key)
        assert self.going_on.wait(10)
        return super().get(key, start, end)


def put(store: LocalBlobStore | ObjectBlobStore, data: bytes, path: str = "tokens.npy") -> FileView:
    digest = Digest.of(data)
    store.put(digest.key, [data])
    return FileView(path=path, digest=digest, size=len(data), media_type="application/octet-stream")


def held(folder: ReadingFolder) -> int:
    """Bytes that were fetched and are kept."""
    return sum(one.stat().st_size for one in (folder.root / "blobs").iterdir())


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def test_a_blob_of_a_folder_is_linked_and_not_copied(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    file = put(store, b"some tokens")
    reading = ReadingFolder(store, tmp_path / "reading", most_bytes=0)
    for _ in range(2):
        placed = reading.place(VERSION, file)
        assert placed == reading.folder(VERSION) / "tokens.npy"
        assert placed.read_bytes() == b"some tokens"
        assert os.readlink(placed) == str(tmp_path / "blobs" / file.digest.key)
    assert [one.name for one in (tmp_path / "reading").iterdir()] == ["versions"]
    store.delete(file.digest.key)
    assert not placed.exists()  # deleted in the zoo: the bytes are gone here, too
    with pytest.raises(DamagedError, match="lost"):
        reading.place(VERSION, file)


def test_a_blob_of_another_size_is_not_read(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    file = put(store, b"some tokens").model_copy(update={"size": 3})
    with pytest.raises(DamagedError, match="11 bytes, not 3"):
        ReadingFolder(store, tmp_path / "reading", most_bytes=0).place(VERSION, file)


@pytest.mark.parametrize("path", ["../tokens.npy", "folder/tokens.npy"])
def test_files_of_folders_are_not_placed(tmp_path: Path, path: str) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    with pytest.raises(InputError):
        ReadingFolder(store, tmp_path / "reading", most_bytes=0).place(VERSION, put(store, b"x", path))
    assert not (tmp_path / "reading").exists()


def test_a_blob_of_a_bucket_is_fetched_once_for_all_versions_that_have_it(tmp_path: Path, bucket: Bucket) -> None:
    file, reading = put(bucket, b"some tokens"), ReadingFolder(bucket, tmp_path, most_bytes=100)
    for version in (VERSION, VERSION, OTHER):
        assert reading.place(version, file).read_bytes() == b"some tokens"
    assert bucket.read == [file.digest.key]
    assert held(reading) == 11


def test_what_was_not_used_for_longest_goes(tmp_path: Path, bucket: Bucket) -> None:
    reading = ReadingFolder(bucket, tmp_path, most_bytes=100)
    files = [put(bucket, letter * 40, f"{letter.decode()}.npy") for letter in (b"a", b"b", b"c")]
    placed = {}
    for number, file in enumerate(files[:2]):
        placed[file.path] = reading.place(VERSION, file)
        os.utime(placed[file.path], (number, number))
    os.utime(placed["a.npy"], (9, 9))  # b is the oldest now
    reading.place(VERSION, files[2])
    assert held(reading) == 80
    assert [path for path, link in placed.items() if link.exists()] == ["a.npy"]
    assert reading.place(VERSION, files[1]).read_bytes() == b"b" * 40  # it is fetched again
    assert held(reading) == 80


def test_what_is_larger_than_all_that_may_be_kept_is_not_fetched(tmp_path: Path, bucket: Bucket) -> None:
    with pytest.raises(ResourceError, match=r"101 B.*at most 100 B"):
        ReadingFolder(bucket, tmp_path, most_bytes=100).place(VERSION, put(bucket, b"x" * 101))
    assert bucket.read == []


def test_many_who_ask_at_once_make_one_fetch(tmp_path: Path, bucket: Bucket) -> None:
    file, reading = put(bucket, b"some tokens"), ReadingFolder(bucket, tmp_path, most_bytes=100)
    bucket.going_on.clear()
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(reading.place, VERSION, file) for _ in range(6)]
        while not bucket.read:
            time.sleep(0.01)
        time.sleep(0.05)
        bucket.going_on.set()
        assert {one.result(10).read_bytes() for one in asked} == {b"some tokens"}
    assert bucket.read == [file.digest.key]


def test_who_would_wait_too_long_is_told_to_come_again(tmp_path: Path, bucket: Bucket) -> None:
    file, reading = put(bucket, b"some tokens"), ReadingFolder(bucket, tmp_path, most_bytes=10_000, patience=0.05)
    bucket.going_on.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(reading.place, VERSION, file)
        while not bucket.read:
            time.sleep(0.01)
        with pytest.raises(ZooOfflineError, match="on its way"):
            reading.place(VERSION, file)
        bucket.going_on.set()
        assert first.result(10).exists()


def test_threads_are_left_for_others(tmp_path: Path, bucket: Bucket) -> None:
    """A slow store does not take all threads of a server."""
    files = [put(bucket, bytes([number]) * 10, f"{number}.npy") for number in range(9)]
    reading = ReadingFolder(bucket, tmp_path, most_bytes=10_000)
    bucket.going_on.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(reading.place, VERSION, file) for file in files[:8]]
        while len(bucket.read) < len({file.digest.hex[:2] for file in files[:8]}):
            time.sleep(0.01)
        with pytest.raises(ZooOfflineError):
            reading.place(VERSION, files[8])
        bucket.going_on.set()
        assert all(one.result(10).exists() for one in waiting)
    assert reading.place(VERSION, files[8]).exists()


@pytest.mark.parametrize("data", [b"other bytes", b"some", b"some tokens and more"])
def test_other_bytes_than_were_published_are_not_kept(tmp_path: Path, bucket: Bucket, data: bytes) -> None:
    file, reading = put(bucket, b"some tokens"), ReadingFolder(bucket, tmp_path, most_bytes=100)
    bucket.put(file.digest.key, [data])
    with pytest.raises(DamagedError, match="other bytes"):
        reading.place(VERSION, file)
    assert held(reading) == 0
    assert list((tmp_path / "fetching").iterdir()) == []
    bucket.put(file.digest.key, [b"some tokens"])
    assert reading.place(VERSION, file).exists()


def test_what_a_killed_process_left_takes_no_room_for_ever(tmp_path: Path, bucket: Bucket) -> None:
    reading = ReadingFolder(bucket, tmp_path, most_bytes=100)
    (tmp_path / "fetching").mkdir()
    left = tmp_path / "fetching" / "left"
    left.write_bytes(b"x" * 90)
    os.utime(left, (0, 0))
    reading.place(VERSION, put(bucket, b"y" * 90))
    assert not left.exists()


def test_what_is_forgotten_is_gone(tmp_path: Path, bucket: Bucket) -> None:
    file, reading = put(bucket, b"some tokens"), ReadingFolder(bucket, tmp_path, most_bytes=100)
    reading.place(VERSION, file)
    reading.forget(VERSION)
    reading.forget(OTHER)
    assert held(reading) == 0
    assert not reading.folder(VERSION).exists()
