"""Caches: what lies there is told and nothing in use goes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from neuronmap.errors import ConfigError, UnwritablePathError
from neuronmap.hub import caches
from neuronmap.hub.caches import clean_caches, list_caches

DAY = 86_400


def made(home: Path, kind: str, name: str, size: int = 100, days: float = 10) -> Path:
    """An entry with one file, last used so many days ago."""
    folder = home / "cache" / kind / name
    folder.mkdir(parents=True)
    (folder / "rows.bin").write_bytes(bytes(size))
    then = time.time() - days * DAY
    for path in (folder / "rows.bin", folder):
        os.utime(path, (then, then))
    return folder


def names(entries):
    return sorted(entry.name for entry in entries)


def test_entries_are_listed_by_kind_the_largest_first(home):
    assert list_caches() == []
    made(home, "tokens", "small", 10)
    made(home, "tokens", "large", 1000)
    made(home, "activations", "rows", 5)
    (home / "cache" / "tokens" / ".small.lock").touch()
    made(home, "of-a-plugin", "mine")
    found = list_caches()
    assert [(entry.kind, entry.name) for entry in found] == [
        ("activations", "rows"), ("tokens", "large"), ("tokens", "small"), ("of-a-plugin", "mine"),
    ]  # fmt: skip
    assert [entry.size_bytes for entry in found] == [5, 1000, 10, 100]
    assert all(abs(time.time() - entry.last_used - 10 * DAY) < 60 for entry in found)
    assert names(list_caches(["tokens"])) == ["large", "small"]
    assert list_caches(["remote"]) == [], "known, and empty"
    with pytest.raises(ConfigError, match=r"no cache 'nope'"):
        list_caches(["nope"])


def test_what_was_read_lately_stays_although_it_was_written_long_ago(home):
    read, written = made(home, "tokens", "read", days=100), made(home, "tokens", "written", days=100)
    old = time.time() - 100 * DAY
    os.utime(read / "rows.bin", (time.time() - 2 * DAY, old))
    done = clean_caches(["tokens"], unused_days=30)
    assert (names(done.removed), names(done.recent)) == (["written"], ["read"])
    assert read.is_dir()
    assert not written.exists()


def test_looking_at_a_manifest_is_no_use(home):
    folder = made(home, "tokens", "one")
    (folder / "manifest.json").write_text(
        '{"format": "neuronmap-tokens", "report": {"corpus": "sotu", "part": "all", "tokens": 1234}}'
    )
    then = time.time() - 10 * DAY
    os.utime(folder / "manifest.json", (time.time(), then))
    os.utime(folder, (then, then))
    (entry,) = list_caches()
    assert entry.what == "sotu/all, 1,234 tokens"
    assert time.time() - entry.last_used > 9 * DAY
    (folder / "manifest.json").write_text('["damaged"')
    assert list_caches()[0].what == ""


def test_nothing_goes_without_being_asked_for(home):
    folder = made(home, "tokens", "one")
    other = made(home, "models", "one")
    done = clean_caches(["tokens"], dry_run=True)
    assert names(done.removed) == ["one"]
    assert folder.is_dir()
    assert names(clean_caches(["tokens"]).removed) == ["one"]
    assert not folder.exists()
    assert other.is_dir(), "of another cache"
    for days in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="number of days"):
            clean_caches(["models"], unused_days=days)


@pytest.mark.parametrize("how", ["opened", "mapped"])
@pytest.mark.parametrize("moved", [False, True], ids=["here", "on another disk"])
def test_what_another_process_has_open_stays(home, tmp_path, how, moved):
    if moved:  # people move a cache and leave a link
        (tmp_path / "disk").mkdir()
        (home / "cache").mkdir()
        (home / "cache" / "activations").symlink_to(tmp_path / "disk", target_is_directory=True)
    folder = made(home, "activations", "used", size=4096)
    free = made(home, "activations", "free")
    code = {
        "opened": "file = open(sys.argv[1], 'rb')",
        "mapped": "import numpy; rows = numpy.memmap(sys.argv[1], mode='r')",
    }[how]
    line = f"import sys; {code}; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", line, str(folder / "rows.bin")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        then = time.time() - 10 * DAY
        os.utime(folder / "rows.bin", (then, then))  # a file system that keeps no time of reading
        done = clean_caches(["activations"])
        assert (names(done.in_use), names(done.removed)) == (["used"], ["free"])
        assert np.fromfile(folder / "rows.bin", np.uint8).size == 4096
        assert not free.exists()
        reader.communicate("")
    assert names(clean_caches(["activations"], unused_days=0).removed) == ["used"]


@pytest.mark.parametrize("lock", [".{}.lock", ".unfinished-{}.lock", "{}/.lock"])
def test_what_is_being_made_stays(home, lock):
    folder = made(home, "tokens", "one")
    rest = made(home, "tokens", ".unfinished-one")
    with FileLock(home / "cache" / "tokens" / lock.format("one")):
        os.utime(folder, (0, 0))
        done = clean_caches(["tokens"])
        assert "one" in names(done.in_use)
        assert folder.is_dir()
        assert rest.is_dir() == lock.startswith(".")
    done = clean_caches(["tokens"])
    assert "one" in names(done.removed)
    assert not folder.exists()
    assert not rest.exists()


def test_a_link_goes_and_not_what_it_leads_to(home, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model.bin").write_bytes(bytes(1000))
    link = home / "cache" / "models" / "linked"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    os.utime(link, (0, 0), follow_symlinks=False)
    (done,) = clean_caches(["models"]).removed
    assert done.size_bytes == 0
    assert not link.is_symlink()
    assert (tmp_path / "elsewhere" / "model.bin").is_file()


def test_an_interrupted_removal_is_found_and_ended(home, monkeypatch):
    folder = made(home, "tokens", "one")

    def stopped(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(caches.shutil, "rmtree", stopped)
        with pytest.raises(UnwritablePathError, match="one"):
            clean_caches(["tokens"])
    assert not folder.exists(), "renamed first: nobody finds half of it"
    (entry,) = list_caches()
    assert (entry.name[:7], entry.what) == (".going-", "left by something interrupted")
    assert len(clean_caches(["tokens"], unused_days=0).removed) == 1
    assert list_caches() == []


def test_every_cache_is_described():
    """A cache that is added says there what it holds."""
    code = "".join(file.read_text(encoding="utf-8") for file in Path(caches.__file__).parents[1].rglob("*.py"))
    assert set(re.findall(r'cache_folder\("([\w-]+)"\)', code)) <= set(caches.CACHES)
