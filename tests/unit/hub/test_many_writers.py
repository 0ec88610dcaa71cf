"""Several processes write at once, and writers are killed: nobody ever sees half a bundle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from bundles import make_bundle

from neuronmap.hub import SAEModelHub

WRITER = """
import sys, time
from neuronmap.errors import AlreadyExistsError
from neuronmap.hub import SAEModelHub
root, number, start, *bundles = sys.argv[1:]
hub = SAEModelHub(root)
while time.time() < float(start):
    time.sleep(0.001)
refused = 0
for turn in range(5):
    hub.register(bundles[0], name="same/one")              # everybody the same: idempotent
    hub.register(bundles[int(number)], name=f"own/{number}-{turn}")
    try:
        hub.register(bundles[int(number)], name=f"fought-over/{turn}")  # everybody another: one wins
    except AlreadyExistsError:
        refused += 1
    hub.add_tags("same/one", f"tag-{number}-{turn}")
    hub.delete(f"own/{number}-{turn}")
print(refused)
"""

# The writer dies by SIGKILL at a chosen call: while copying, before the rename, or while holding the lock.
DYING = """
import os, signal, sys, shutil
from neuronmap.hub import SAEModelHub, folder
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
where, root, bundle = sys.argv[1:]
if where == "copying":
    def copy(reading, writing, length):
        writing.write(reading.read(1000)); writing.flush(); die()
    shutil.copyfileobj = copy
elif where == "fsync":
    os.fsync = die
elif where == "rename":
    os.rename = die
SAEModelHub(root).register(bundle, name="victim")
"""


def test_eight_writers_at_once_lose_nothing(hub: SAEModelHub, tmp_path: Path) -> None:
    bundles = [make_bundle(tmp_path / f"b{number}", seed=number) for number in range(8)]
    start = time.time() + 3
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(hub.root), str(number), str(start), *map(str, bundles)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    problems: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        reader = SAEModelHub(hub.root)
        while not stop.is_set():
            problems.extend(entry.problem for entry in reader.list() if entry.problem)

    watcher = threading.Thread(target=watch)
    watcher.start()
    outputs = [writer.communicate(timeout=120) for writer in writers]
    stop.set()
    watcher.join()
    assert [(writer.returncode, errors) for writer, (_, errors) in zip(writers, outputs, strict=True)] == [(0, "")] * 8
    assert problems == []
    # Of eight writers that fight over a name one wins and seven are refused, five times over.
    assert sum(int(out) for out, _ in outputs) == 35
    assert sorted(entry.id for entry in hub.list()) == [*(f"fought-over/{turn}" for turn in range(5)), "same/one"]
    assert set(hub.get("same/one").tags) == {f"tag-{number}-{turn}" for number in range(8) for turn in range(5)}
    for entry in hub.list():
        hub.verify(entry.id)
    assert list(hub.root.glob(".staging-*")) == []


@pytest.mark.parametrize("where", ["copying", "fsync", "rename"])
def test_a_killed_writer_leaves_no_half_bundle(where: str, hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    before = hub.register(make_bundle(tmp_path / "other", seed=5), name="before")
    ran = subprocess.run([sys.executable, "-c", DYING, where, str(hub.root), str(bundle)], timeout=60, check=False)
    assert ran.returncode == -signal.SIGKILL
    assert hub.list() == [before]
    assert len(list(hub.root.glob(".staging-*"))) == 1
    assert hub.register(bundle, name="victim").id == "victim"
    assert hub.verify("victim")


def test_what_killed_writers_left_is_cleared_after_a_day(hub: SAEModelHub, tmp_path: Path) -> None:
    old, young = hub.root / ".staging-old", hub.root / ".staging-young"
    for folder in (old, young):
        make_bundle(folder / "bundle")
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    hub.register(make_bundle(tmp_path / "b"))
    assert not old.exists()
    assert young.exists()
