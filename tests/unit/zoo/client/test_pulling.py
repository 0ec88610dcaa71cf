"""Pulling from a zoo in a folder: whole or not at all, with warnings, by lock, verified."""

from __future__ import annotations

from pathlib import Path

import pytest
from zoos import Notes, files_below, package

from neuronmap.errors import AlreadyExistsError, DamagedError, InputError, MismatchError, NotInZooError
from neuronmap.zoo.client import pull_to_folder
from neuronmap.zoo.client.locking import read_lock
from neuronmap.zoo.client.zoo import Zoo
from neuronmap.zoo.digests import Digest


def blob(zoo: Zoo, data: bytes) -> Path:
    return Path(zoo.location, "blobs", Digest.of(data).key)


def test_a_folder_is_filled_once_and_left_alone(published: Zoo, tmp_path: Path) -> None:
    first = published.pull("ada/numbers", tmp_path / "target")
    again = published.pull("ada/numbers@1.0", tmp_path / "target")
    assert (first.digest, first.folder) == (again.digest, again.folder)
    (first.folder / "data.bin").write_bytes(b"mine")
    with pytest.raises(AlreadyExistsError):
        published.pull("ada/numbers", tmp_path / "target")
    assert (first.folder / "data.bin").read_bytes() == b"mine"
    published.pull("ada/numbers", tmp_path / "target", overwrite=True)
    assert (first.folder / "data.bin").read_bytes() != b"mine"
    assert files_below(tmp_path / "target") == {"README.md", "data.bin", ".neuronmap-zoo.json"}


def test_an_empty_folder_will_do_and_a_full_one_will_not(published: Zoo, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert published.pull("ada/numbers", tmp_path / "empty").folder.joinpath("data.bin").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(AlreadyExistsError):
        published.pull("ada/numbers", tmp_path / "full")
    assert files_below(tmp_path / "full") == {"notes.txt"}


def test_what_is_changed_in_a_pulled_folder_does_not_change_the_store(published: Zoo, tmp_path: Path) -> None:
    pulled = published.pull("ada/numbers", tmp_path / "target")
    with open(pulled.folder / "data.bin", "r+b") as file:
        file.write(b"changed in place")
    assert published.verify("ada/numbers").name == "ada/numbers@1.0"
    with pytest.raises(MismatchError, match=r"data\.bin has the digest"):
        published.verify_folder(pulled.folder)
    (pulled.folder / "more.txt").write_text("more")
    with pytest.raises(MismatchError, match=r"more\.txt is no file of it"):
        published.verify_folder(pulled.folder)


def test_a_damaged_store_gives_nothing(published: Zoo, tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    path = blob(published, data)
    path.chmod(0o600)
    path.write_bytes(data[:-1] + b"!")
    for call in (
        lambda: published.pull("ada/numbers", tmp_path / "target"),
        lambda: published.open_file("ada/numbers", "data.bin"),
        lambda: published.verify("ada/numbers"),
    ):
        with pytest.raises(DamagedError):
            call()
    assert not (tmp_path / "target").exists()
    assert not list(tmp_path.glob(".staging-*"))


def test_states(published: Zoo, tmp_path: Path) -> None:
    published.publish(package(tmp_path / "two", data=b"two"), "ada/numbers@1.1", licence="MIT")
    published.deprecate("ada/numbers@1.0", "too few", "ada/numbers@1.1")
    notes = Notes()
    old = published.pull("ada/numbers@1.0", tmp_path / "old", progress=notes)
    assert old.state == "deprecated"
    [warning] = old.warnings
    assert "too few" in warning
    assert "ada/numbers@1.1" in warning
    assert warning in notes.lines
    published.yank("ada/numbers@1.1", "wrong numbers")
    published.set_alias("ada/numbers@1.0", "stable")
    assert published.pull("ada/numbers", tmp_path / "latest").reference == "ada/numbers@1.0"
    yanked = published.pull("ada/numbers@1.1", tmp_path / "yanked", progress=notes)
    assert "wrong numbers" in yanked.warnings[0]
    pinned = published.pull(f"ada/numbers@{yanked.digest}", tmp_path / "pinned")
    assert pinned.state == "yanked"
    published.restore("ada/numbers@1.1")
    assert published.pull("ada/numbers", tmp_path / "newest").warnings == ()
    published.delete("ada/numbers@1.1", "gone")
    with pytest.raises(NotInZooError, match="gone"):
        published.pull("ada/numbers@1.1", tmp_path / "deleted")


def test_aliases(published: Zoo, tmp_path: Path) -> None:
    published.publish(package(tmp_path / "two", data=b"two"), "ada/numbers@1.1", licence="MIT")
    published.set_alias("ada/numbers@1.0", "production", expected="")
    with pytest.raises(MismatchError):
        published.set_alias("ada/numbers@1.1", "production", expected="")
    assert published.pull("ada/numbers@production", tmp_path / "a").reference == "ada/numbers@1.0"
    published.set_alias("ada/numbers@1.1", "production", expected="1.0", reason="better")
    assert [(one.before, one.after) for one in published.alias_log("ada/numbers")] == [("1.0", "1.1"), (None, "1.0")]
    published.remove_alias("ada/numbers", "production")
    with pytest.raises(NotInZooError):
        published.show("ada/numbers@production")


def test_into_the_home_folder(published: Zoo, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONMAP_ZOO", published.location)
    folder = pull_to_folder("zoo:ada/numbers@1.0", Notes())
    assert folder == home / "zoo/pulled" / published.show("ada/numbers").digest.hex
    (folder / "data.bin").write_bytes(b"damaged")
    assert pull_to_folder("ada/numbers", Notes()) == folder
    assert (folder / "data.bin").read_bytes() != b"damaged"


def test_a_lock_reproduces_the_bytes(published: Zoo, tmp_path: Path) -> None:
    made = package(tmp_path / "more", data=b"more")
    published.publish(made, "ada/more@1.0", licence="MIT", depends_on={"base": "ada/numbers"})
    lock = tmp_path / "neuronmap-zoo.lock"
    published.set_alias("ada/more@1.0", "stable")
    locked = published.lock(["ada/more@stable"], lock, dependencies=True)
    assert read_lock(lock) == locked
    assert [one.reference for one in locked.artefact] == ["ada/numbers@1.0", "ada/more@1.0"]
    published.publish(package(tmp_path / "newer", data=b"newer"), "ada/more@2.0", licence="MIT")
    published.set_alias("ada/more@2.0", "stable")
    first = published.pull_locked(lock, tmp_path / "pinned")
    again = published.pull_locked(lock, tmp_path / "pinned")
    assert [one.reference for one in first] == ["ada/numbers@1.0", "ada/more@1.0"]
    assert [one.folder for one in first] == [one.folder for one in again]
    assert (tmp_path / "pinned/ada/more/data.bin").read_bytes() == b"more"


def test_a_lock_that_was_changed_by_hand(published: Zoo, tmp_path: Path) -> None:
    lock = tmp_path / "neuronmap-zoo.lock"
    published.lock(["ada/numbers"], lock)
    text = lock.read_text()
    digest = published.show("ada/numbers").digest
    lock.write_text(text.replace(digest, "sha256:" + "0" * 64))
    with pytest.raises(NotInZooError):
        published.pull_locked(lock, tmp_path / "pinned")
    file = Digest.of(bytes(range(256)) * 100)
    lock.write_text(text.replace(file, "sha256:" + "0" * 64))
    with pytest.raises(MismatchError, match=r"data\.bin"):
        published.pull_locked(lock, tmp_path / "pinned")
    lock.write_text(text.replace('path = "data.bin"', 'path = "../data.bin"'))
    with pytest.raises(InputError, match="no lock file"):
        published.pull_locked(lock, tmp_path / "pinned")
    lock.write_text("= no toml")
    with pytest.raises(DamagedError):
        published.pull_locked(lock, tmp_path / "pinned")
    assert not (tmp_path / "pinned").exists()


def test_files_that_are_not_there(published: Zoo) -> None:
    with pytest.raises(NotInZooError, match=r"README\.md"):
        published.open_file("ada/numbers", "nothing.txt")
    with pytest.raises(InputError):
        published.open_file("ada/numbers", "../zoo.sqlite3")


def test_only_what_was_pulled_is_replaced(published: Zoo, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "inner").mkdir(parents=True)
    (precious / "inner" / "thesis.txt").write_text("years")
    with pytest.raises(AlreadyExistsError, match="was not pulled from a zoo"):
        published.pull("ada/numbers", precious, overwrite=True)
    assert files_below(precious) == {"inner/thesis.txt"}
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(AlreadyExistsError, match="is a file"):
        published.pull("ada/numbers", file, overwrite=True)
    pulled = published.pull("ada/numbers", tmp_path / "target").folder
    (pulled / "data.bin").write_bytes(b"changed")
    (pulled / "notes.txt").write_text("mine")
    with pytest.raises(AlreadyExistsError, match=r"what was not pulled: notes\.txt"):
        published.pull("ada/numbers", pulled, overwrite=True)
    assert (pulled / "notes.txt").read_text() == "mine"
    assert (pulled / "data.bin").read_bytes() == b"changed"
    with pytest.raises(AlreadyExistsError):
        published.pull("ada/numbers", published.location, overwrite=True)
    assert published.show("ada/numbers").label == "1.0"


def test_the_home_folder_is_never_replaced(published: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = published.pull("ada/numbers", tmp_path / "people" / "ada").folder
    (home / "data.bin").write_bytes(b"changed")
    monkeypatch.setenv("HOME", str(home))
    for folder in (home, home.parent):
        with pytest.raises(AlreadyExistsError, match="is the home folder, or around it"):
            published.pull("ada/numbers", folder, overwrite=True)
    assert (home / "data.bin").read_bytes() == b"changed"


def test_into_the_folder_where_one_stands(published: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    before = here.stat().st_ino
    monkeypatch.chdir(here)
    assert published.pull("ada/numbers", ".").folder == here
    assert here.stat().st_ino == before, "whoever stands in it still does"
    assert files_below(here) == {"README.md", "data.bin", ".neuronmap-zoo.json"}
    assert [path.name for path in here.iterdir() if path.is_dir()] == []
    assert published.pull("ada/numbers", ".", overwrite=True).folder == here, "the same again is no conflict"
    (here / "data.bin").write_bytes(b"changed")
    with pytest.raises(AlreadyExistsError, match="is the current folder"):
        published.pull("ada/numbers", ".", overwrite=True)


def test_an_empty_folder_is_as_empty_when_pulling_fails(published: Zoo, tmp_path: Path) -> None:
    path = blob(published, bytes(range(256)) * 100)
    path.chmod(0o600)
    path.write_bytes(b"!" * path.stat().st_size)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DamagedError):
        published.pull("ada/numbers", tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
