"""Folders in a bucket that speaks S3: whole, by digest, replaced as a whole; what is longer than a part, and a bucket that is not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from neuronmap.errors import DamagedError, InputError, NeuronMapError
from neuronmap.objects import RemoteFolders
from neuronmap.progress import SilentProgress

QUIET = SilentProgress()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, one of them longer than a part of a multipart upload."""
    made = tmp_path / "made"
    (made / "inside").mkdir(parents=True)
    (made / "cfg.json").write_text("{}")
    (made / "inside" / "weights.bin").write_bytes(os.urandom(17 << 20))
    return made


def test_a_folder_goes_and_comes_back(s3: Callable[[], str], folder: Path, tmp_path: Path) -> None:
    place = RemoteFolders(s3())
    assert list(place.names()) == []
    listing = place.push("saes/a/b", folder, ["cfg.json", "inside/weights.bin"], QUIET)
    assert list(place.names()) == ["saes/a/b"]
    assert place.listing("saes/a/b") == listing
    back = place.pull(listing, tmp_path / "back", QUIET)
    assert (back / "inside" / "weights.bin").read_bytes() == (folder / "inside" / "weights.bin").read_bytes()

    (folder / "cfg.json").write_text('{"k": 4}')
    place.push("saes/a/b", folder, ["cfg.json"], QUIET)
    assert list(place.require("saes/a/b").files) == ["cfg.json"]
    assert (
        place.pull(listing, tmp_path / "old", QUIET).joinpath("cfg.json").read_text() == "{}"
    )  # as it was listed then
    with pytest.raises(InputError, match=r"no 'saes/c' in .*; there is saes/a/b"):
        place.require("saes/c")


def test_what_two_folders_have_in_common_lies_there_once(s3: Callable[[], str], folder: Path) -> None:
    place = RemoteFolders(s3())
    for name in ("one", "two"):
        place.push(name, folder, ["cfg.json", "inside/weights.bin"], QUIET)
    keys = [found.key for found in place.store.list()]
    assert len([key for key in keys if key.startswith("blobs/")]) == 2
    assert sorted(place.names()) == ["one", "two"]


def test_a_bucket_that_is_not_there(s3: Callable[[], str], folder: Path) -> None:
    url = s3().replace("s3://zoo/", "s3://nowhere/")
    with pytest.raises(NeuronMapError, match="the store s3://nowhere"):
        RemoteFolders(url).push("one", folder, ["cfg.json"], QUIET)


def test_changed_bytes_are_found_on_both_sides_and_sent_again(
    s3: Callable[[], str], folder: Path, tmp_path: Path
) -> None:
    place = RemoteFolders(s3())
    listing = place.push("one", folder, ["cfg.json"], QUIET)
    (key,) = [found.key for found in place.store.list("blobs/")]
    place.store.put(key, [b"[]"])
    with pytest.raises(DamagedError, match="other bytes") as refused:
        place.fetch(listing, "cfg.json", tmp_path)
    assert "--again" in refused.value.hint
    place.push("one", folder, ["cfg.json"], QUIET)
    with pytest.raises(DamagedError):
        place.fetch(listing, "cfg.json", tmp_path)
    place.push("one", folder, ["cfg.json"], QUIET, again=True)
    file = place.fetch(listing, "cfg.json", tmp_path)
    assert file.read_text() == "{}"

    file.write_text("[]")  # of the same size
    for other in (place, RemoteFolders(place.store)):
        assert other.fetch(listing, "cfg.json", tmp_path).read_text() == "{}"
    before = file.stat().st_ino
    assert place.fetch(listing, "cfg.json", tmp_path).stat().st_ino == before


def test_what_is_missing_is_said_in_words(s3: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NeuronMapError) as refused:
        list(RemoteFolders(s3().replace("s3://zoo/", "s3://nowhere/")).names())
    assert refused.value.hint == "Does the bucket exist?"
    assert "<" not in refused.value.message
