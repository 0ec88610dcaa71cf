"""Stores in trouble: a full disk, a folder that cannot be written, a bucket out of reach; and what a location may be."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuronmap.errors import (
    ConfigError,
    DiskSpaceError,
    MissingDependencyError,
    ResourceError,
    UnwritablePathError,
)
from neuronmap.zoo.blobs import LocalBlobStore, ObjectBlobStore, blob_store
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import Manifest
from neuronmap.zoo.people.principal import LOCAL
from neuronmap.zoo.registry.registry import Registry

KEY = f"sha256/ab/{'ab' * 32}"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskSpaceError),
        (errno.EDQUOT, DiskSpaceError),
        (errno.EROFS, UnwritablePathError),
        (errno.EACCES, UnwritablePathError),
        (errno.EIO, UnwritablePathError),
    ],
)
def test_a_disk_that_fails_leaves_no_half_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, expected: type[Exception]
) -> None:
    store = LocalBlobStore(tmp_path)
    store.put("temporary/before", [b"before"])

    def failing(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(expected, match="zoo's store"):
            store.put(KEY, [b"some bytes"])
    assert [found.key for found in store.list()] == ["temporary/before"]
    store.put(KEY, [b"some bytes"])
    assert b"".join(store.get(KEY)) == b"some bytes"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself says ENOSPC: bytes go to /dev/full."""
    store = LocalBlobStore(tmp_path)
    opening = os.open

    def full(path: object, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            os.close(opening(path, flags, mode))  # type: ignore[arg-type]
            return opening("/dev/full", os.O_WRONLY)
        return opening(path, flags, mode)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(DiskSpaceError, match="No space left"):
            store.put(KEY, (b"x" * 100_000 for _ in range(20)))
    assert list(store.list()) == []


def test_a_folder_that_is_tidied_away_just_before_something_comes_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The neighbour in ``sha256/ab`` is removed, and the empty folder with it, between the making of the folder and the renaming."""
    store = LocalBlobStore(tmp_path)
    replacing, neighbour = os.replace, f"sha256/ab/{'ab' * 31}cd"
    store.put(neighbour, [b"old"])
    tidied = []

    def late(source: object, target: object) -> None:
        if not tidied:
            store.delete(neighbour)
            tidied.append(not (tmp_path / "sha256/ab").exists())
        replacing(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", late)
    store.put(KEY, [b"new"])
    assert tidied == [True]
    assert b"".join(store.get(KEY)) == b"new"


def test_a_file_that_is_removed_while_it_is_written_is_said_to_be(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path)

    def chunks() -> Iterator[bytes]:
        yield b"some"
        for found in store.list("temporary/"):
            store.delete(found.key)
        yield b" bytes"

    with pytest.raises(UnwritablePathError, match="removed from the zoo's store"):
        store.put(KEY, chunks())
    assert store.size(KEY) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    store.put(KEY, [b"x"])
    for folder in (tmp_path / "blobs", *(tmp_path / "blobs").rglob("*")):
        if folder.is_dir():
            folder.chmod(0o500)
    with pytest.raises(UnwritablePathError):
        store.put(f"sha256/cd/{'cd' * 32}", [b"y"])
    with pytest.raises(UnwritablePathError):
        store.delete(KEY)
    assert b"".join(store.get(KEY)) == b"x"


def test_a_store_whose_place_is_taken_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = LocalBlobStore(tmp_path / "file")
    with pytest.raises(UnwritablePathError):
        store.put(KEY, [b"x"])
    assert store.size(KEY) is None
    assert list(store.list()) == []


def test_a_full_disk_during_a_publication_leaves_it_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry.embedded(tmp_path / "zoo")
    data = b"some bytes"
    digest = Digest.of(data)
    _, written = Manifest.build(
        {
            "kind": "DATASET",
            "namespace": "ada",
            "name": "demo",
            "version": "1.0",
            "licence": "MIT",
            "created": "2026-11-26T00:00:00Z",
            "record": {"format": "text"},
            "files": [{"path": "a.txt", "digest": digest, "size": len(data), "media_type": "text/plain"}],
        }
    )
    key = registry.uploading.begin(LOCAL, "ada", len(data)).key
    upload = registry.uploading.start(LOCAL, key, digest, len(data))

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in (
        lambda: registry.uploading.append(LOCAL, upload.key, 0, [data]),
        lambda: registry.uploading.finish(LOCAL, upload.key),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(DiskSpaceError, match=r"(?s)No space left.*neuronmap zoo gc"):
                step()
        step()
    assert registry.publishing.publish(LOCAL, key, written).label == "1.0"
    assert registry.housekeeping.verify().sound
    registry.close()


def test_links_in_a_store_are_not_followed_when_it_is_listed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("x")
    store = LocalBlobStore(tmp_path / "blobs")
    store.put(KEY, [b"x"])
    (tmp_path / "blobs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "blobs" / "file").symlink_to(tmp_path / "elsewhere" / "secret")
    assert [found.key for found in store.list()] == [KEY]


# --- locations ----------------------------------------------------------------------------------------------------------------


def test_a_location_is_a_folder_or_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(blob_store(tmp_path), LocalBlobStore)
    assert isinstance(blob_store(str(tmp_path / "new")), LocalBlobStore)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very secret")
    store = blob_store("s3://bucket/a/prefix?endpoint=http://127.0.0.1:1&region=eu-west-1")
    assert str(store) == "s3://bucket/a/prefix"


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://host/bucket", "no place for blobs"),
        ("file:///etc", "no place for blobs"),
        ("memory:///", "no place for blobs"),
        ("s3://", "no object store"),
        ("s3:///prefix", "no object store"),
        ("s3://bucket#x", "no object store"),
        ("s3://key:secret@bucket", "no credentials"),
        ("s3://bucket?access_key_id=x", "'access_key_id' cannot be set"),
        ("s3://bucket?region=x&secret_access_key=y", "'secret_access_key' cannot be set"),
        ("s3://bucket?endpoint=file:///etc", "http or https"),
        ("s3://bucket?endpoint=http:///x", "http or https"),
        ("gs://bucket?region=x", "takes endpoint"),
        ("gs://bucket?account=x", "takes endpoint"),
        ("gs://bucket?endpoint=here", "http or https"),
        ("az://container?region=x", "takes account, endpoint"),
        ("az://container?account_key=x", "'account_key' cannot be set"),
    ],
)
def test_locations_that_are_refused(location: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        blob_store(location)
    assert "secret@" not in str(caught.value)


def test_a_bucket_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingDependencyError, match=r"neuronmap\[s3\]"):
        blob_store("s3://bucket")


@pytest.mark.parametrize(
    ("location", "variable", "message"),
    [
        ("az://container", None, "Account must be specified"),
        ("az://container?account=x", ("AZURE_STORAGE_ACCOUNT_KEY", "no base64!"), "Invalid Access Key"),
        ("gs://bucket", ("GOOGLE_SERVICE_ACCOUNT", "/nowhere/key.json"), "No such file"),
    ],
)
def test_credentials_that_cannot_be_right(
    location: str, variable: tuple[str, str] | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    if variable is not None:
        monkeypatch.setenv(*variable)
    with pytest.raises(ConfigError, match=message) as caught:
        blob_store(location)
    assert (variable[0] if variable else "AZURE_STORAGE_ACCOUNT_NAME") in caught.value.hint


SECRETS = {
    "s3://bucket?region=eu-west-1": {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "very secret"},
    "gs://bucket": {
        "GOOGLE_SERVICE_ACCOUNT_KEY": '{"client_email": "me", "private_key": "very secret", "private_key_id": "1",'
        ' "disable_oauth": true}'
    },
    "az://bucket?account=tester": {"AZURE_STORAGE_ACCOUNT_KEY": "dmVyeSBzZWNyZXQ="},
    "az://bucket/prefix?account=tester": {"AZURE_STORAGE_SAS_TOKEN": "sv=2021-12-02&sp=rwdl&sig=very%20secret"},
}


@pytest.mark.parametrize("url", SECRETS)
def test_a_bucket_out_of_reach(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY", raising=False)  # of an emulator that other tests started
    for name, value in SECRETS[url].items():
        monkeypatch.setenv(name, value)
    between = "&" if "?" in url else "?"
    store = ObjectBlobStore(f"{url}{between}endpoint=http://127.0.0.1:1", patience=0.2)
    for call in (
        lambda: store.put(KEY, [b"x"]),
        lambda: store.get(KEY),
        lambda: store.size(KEY),
        lambda: store.delete(KEY),
        lambda: list(store.list()),
        lambda: store.move(KEY, "temporary/x"),
    ):
        with pytest.raises(ResourceError, match=f"zoo's store {url[:2]}://bucket") as caught:
            call()
        assert "reach it" in caught.value.hint
        for secret in ("very secret", "very%20secret", "dmVyeSBzZWNyZXQ"):
            assert secret not in str(caught.value)
            assert secret not in str(caught.value.__cause__)


def test_plain_http_is_used_where_the_url_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ResourceError) as caught:
        list(blob_store("s3://bucket?region=eu-west-1").list())
    assert "?endpoint=http://" in caught.value.hint
