"""What every store of blobs promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuronmap.errors import ResourceError
from neuronmap.zoo.blobs import BlobStore, ObjectBlobStore, blob_store, probe

KEY = f"sha256/ab/{'ab' * 32}"
PART = 16 << 20


@pytest.fixture(params=["folder", "s3", "azure"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return blob_store(tmp_path / "blobs")
    new: Callable[[], str] = request.getfixturevalue(request.param)
    return blob_store(new())


def whole(store: BlobStore, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(store.get(key, start, end))


def test_an_object_is_read_as_it_was_written(store: BlobStore) -> None:
    assert store.size(KEY) is None
    assert store.put(KEY, [b"some", b"", b" bytes"]) == 10
    assert store.size(KEY) == 10
    assert whole(store, KEY) == b"some bytes"


@pytest.mark.parametrize(
    ("start", "end"), [(0, 4), (2, 7), (5, None), (9, 10), (0, 0), (3, 3), (8, 99), (10, None), (50, 60), (7, 2)]
)
def test_a_part_of_an_object(store: BlobStore, start: int, end: int | None) -> None:
    store.put(KEY, [b"0123456789"])
    assert whole(store, KEY, start, end) == b"0123456789"[start : end if end is None else max(end, start)]


def test_an_object_may_be_empty(store: BlobStore) -> None:
    assert store.put(KEY, []) == 0
    assert store.size(KEY) == 0
    assert whole(store, KEY) == b""


def test_what_is_not_there_is_said_by_the_call(store: BlobStore) -> None:
    for bounds in ((0, None), (0, 5), (3, 3)):
        with pytest.raises(FileNotFoundError):
            store.get(KEY, *bounds)
    with pytest.raises(FileNotFoundError):
        store.move(KEY, "temporary/x")
    store.delete(KEY)
    assert list(store.list()) == []
    assert list(store.list("incoming/nothing/")) == []


@pytest.mark.parametrize("error", [ValueError("mine"), OSError(5, "my disk"), FileNotFoundError("my file")])
@pytest.mark.parametrize("before", [0, 5, PART + 5])
def test_an_error_of_the_sender_goes_on_and_nothing_is_written(store: BlobStore, before: int, error: Exception) -> None:
    def sender() -> Iterator[bytes]:
        yield b"x" * before
        raise error

    with pytest.raises(type(error)) as caught:
        store.put(KEY, sender())
    assert caught.value is error
    assert store.size(KEY) is None
    assert list(store.list()) == []


def test_a_failed_writer_leaves_what_was_there(store: BlobStore) -> None:
    store.put("temporary/x", [b"before"])

    def sender() -> Iterator[bytes]:
        yield b"after"
        raise KeyError("mine")

    with pytest.raises(KeyError):
        store.put("temporary/x", sender())
    assert whole(store, "temporary/x") == b"before"


def test_an_object_can_be_replaced(store: BlobStore) -> None:
    store.put("temporary/x", [b"before"])
    store.put("temporary/x", [b"after"])
    assert whole(store, "temporary/x") == b"after"


def test_more_than_one_part_arrives_whole(store: BlobStore) -> None:
    piece = bytes(range(256)) * 4096
    assert store.put(KEY, (piece for _ in range(18))) == 18 << 20
    assert store.size(KEY) == 18 << 20
    assert whole(store, KEY) == piece * 18
    at = PART - 3
    assert whole(store, KEY, at, at + 6) == (piece * 18)[at : at + 6]


def test_a_long_object_can_be_written_from_what_is_read(store: BlobStore) -> None:
    """As pieces of an upload are joined."""
    piece = bytes(range(256)) * 4096
    store.put("incoming/a/0", (piece for _ in range(17)))
    store.put("incoming/a/1", (piece for _ in range(3)))

    def joined() -> Iterator[bytes]:
        yield from store.get("incoming/a/0")
        yield from store.get("incoming/a/1", 5)

    assert store.put(KEY, joined()) == (20 << 20) - 5
    assert whole(store, KEY) == piece * 17 + (piece * 3)[5:]


def test_moving_replaces_and_leaves_nothing_behind(store: BlobStore) -> None:
    store.put("temporary/x", [b"same"])
    store.move("temporary/x", KEY)
    assert store.size("temporary/x") is None
    store.put("temporary/y", [b"same"])
    store.move("temporary/y", KEY)  # it is there already
    assert whole(store, KEY) == b"same"
    assert [found.key for found in store.list()] == [KEY]


def test_listing_by_a_whole_part_of_the_key(store: BlobStore) -> None:
    for key in ("incoming/a/0000", "incoming/a/0004", "incoming/ab/0000", KEY):
        store.put(key, [b"1234"])
    assert sorted(found.key for found in store.list("incoming/a/")) == ["incoming/a/0000", "incoming/a/0004"]
    assert len(list(store.list("incoming/"))) == 3
    everything = list(store.list())
    assert len(everything) == 4
    assert {found.size for found in everything} == {4}
    assert all(abs(found.modified - everything[0].modified) < 60 for found in everything)


def test_deleting_can_be_repeated(store: BlobStore) -> None:
    store.put(KEY, [b"x"])
    store.delete(KEY)
    store.delete(KEY)
    assert store.size(KEY) is None


def test_a_reader_that_began_sees_what_it_began_with(store: BlobStore) -> None:
    store.put("temporary/x", [b"a" * 3_000_000])
    reading = store.get("temporary/x")
    first = next(reading)
    store.put("temporary/x", [b"b" * 3_000_000])
    assert set(first + b"".join(reading)) == {ord("a")}


@pytest.mark.parametrize("key", ["../outside", "sha256/../../outside", "/etc/passwd", "a//b", "", "."])
def test_a_key_that_is_not_ours_is_a_fault_of_ours(store: BlobStore, key: str) -> None:
    with pytest.raises(ValueError, match="no key of ours"):
        store.put(key, [b"x"])


def test_what_is_too_long_to_be_copied_is_sent_again(bucket: Callable[[], str]) -> None:
    store = ObjectBlobStore(bucket())
    store.most_copy = 10
    store.put("temporary/x", [b"more than ten bytes"])
    store.move("temporary/x", KEY)
    assert whole(store, KEY) == b"more than ten bytes"
    assert store.size("temporary/x") is None


def test_no_parts_are_left_when_a_sender_fails(s3: Callable[[], str]) -> None:
    import boto3

    url = s3()

    def sender() -> Iterator[bytes]:
        yield b"x" * (PART * 2)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        ObjectBlobStore(url).put(KEY, sender())
    client = boto3.client("s3", endpoint_url=url.partition("endpoint=")[2].partition("&")[0], region_name="us-east-1")
    assert "Uploads" not in client.list_multipart_uploads(Bucket="zoo")
    client.close()


def test_a_store_that_works_is_probed_without_a_trace(store: BlobStore) -> None:
    probe(store)
    probe(store, write=True)
    assert list(store.list()) == []


def test_a_bucket_that_does_not_exist_is_known_by_asking(bucket: Callable[[], str]) -> None:
    lost = blob_store(bucket().replace("://zoo/", "://no-such-bucket/"))
    assert lost.size(KEY) is None  # as if it were empty
    for write in (False, True):
        with pytest.raises(ResourceError, match="no-such-bucket"):
            probe(lost, write=write)
