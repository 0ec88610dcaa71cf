"""Whatever stops a harvest, running it again ends with the bytes of an uninterrupted one."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from test_harvest import folder_bytes
from token_sets import Notes, PlainTokens

from neuronmap.activations import ActivationStore, harvest, list_stores, writer
from neuronmap.errors import DamagedError, DiskSpaceError
from neuronmap.models import LanguageModel, capture, resolve_hook

SETTINGS: dict[str, Any] = {"batch_tokens": 32, "shard_rows": 41}


def run(model: LanguageModel, tokens: PlainTokens, root: Path, progress: Any = None) -> dict[str, ActivationStore]:
    hooks = [resolve_hook(model, 0, "mlp"), resolve_hook(model, 1)]
    return harvest(model, tokens, hooks, root=root, progress=progress, **SETTINGS)


def all_bytes(stores: dict[str, ActivationStore]) -> dict[str, dict[str, str]]:
    return {name: folder_bytes(store.path) for name, store in stores.items()}


@pytest.fixture
def expected(model: LanguageModel, tokens: PlainTokens, tmp_path: Path) -> dict[str, dict[str, str]]:
    return all_bytes(run(model, tokens, tmp_path / "whole"))


def stop_after(monkeypatch: pytest.MonkeyPatch, calls: int, error: BaseException) -> None:
    """Let the model run ``calls`` more times, then raise."""
    left = [calls]

    def limited(*args: Any, **rest: Any) -> Any:
        if left[0] == 0:
            raise error
        left[0] -= 1
        return capture(*args, **rest)

    monkeypatch.setattr("neuronmap.activations.extract.capture", limited)


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 9, 12])
def test_ctrl_c_anywhere_then_again_gives_the_same_bytes(
    model: LanguageModel,
    tokens: PlainTokens,
    tmp_path: Path,
    expected: dict[str, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    calls: int,
) -> None:
    root = tmp_path / "stopped"
    stop_after(monkeypatch, calls, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(model, tokens, root)
    monkeypatch.undo()
    os.environ["NEURONMAP_HOME"] = str(tmp_path)
    notes = Notes()
    assert all_bytes(run(model, tokens, root, notes)) == expected
    # one call calibrates (23 contexts in one batch), each of the others does 2 contexts
    done = max(calls - 1, 0) * 2
    assert notes.advanced == (23 - done) * 16
    assert ("Continuing the interrupted harvest" in notes.text) == (calls >= 1)


@pytest.mark.parametrize("writes", [0, 1, 2, 3, 7, 18, 33, 45])
def test_a_full_disk_says_so_and_the_harvest_continues_when_there_is_room(
    model: LanguageModel,
    tokens: PlainTokens,
    tmp_path: Path,
    expected: dict[str, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    writes: int,
) -> None:
    root, left, real = tmp_path / "full", [writes], writer.write_fully

    def filling(file: Any, data: memoryview) -> None:
        if left[0] == 0:
            real(file, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        real(file, data)

    monkeypatch.setattr(writer, "write_fully", filling)
    with pytest.raises(DiskSpaceError, match="disk is full") as caught:
        run(model, tokens, root)
    assert "continues where it stopped" in caught.value.hint
    for entry in list_stores(root):
        assert "incomplete" in entry.problem
    monkeypatch.setattr(writer, "write_fully", real)
    assert all_bytes(run(model, tokens, root)) == expected


def test_no_room_even_for_the_journal_is_the_same_error(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = writer.write_json, [6]

    def filling(path: Path, value: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise DiskSpaceError("No space left")
        real(path, value)

    monkeypatch.setattr(writer, "JOURNAL_SECONDS", 0.0)
    monkeypatch.setattr(writer, "write_json", filling)
    with pytest.raises(DiskSpaceError, match="activations could not be written"):
        run(model, tokens, tmp_path / "full")
    monkeypatch.setattr(writer, "write_json", real)
    assert all_bytes(run(model, tokens, tmp_path / "full")) == expected


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from pathlib import Path
from token_sets import PlainTokens, tiny_model
from neuronmap.activations import harvest, writer
from neuronmap.models import resolve_hook
from neuronmap.progress import SilentProgress
writer.JOURNAL_SECONDS = 0.01
model = tiny_model()
hooks = [resolve_hook(model, 0, "mlp"), resolve_hook(model, 1)]
print("ready", flush=True)
harvest(model, PlainTokens(400, 16), hooks, root=Path(sys.argv[2]), batch_tokens=32, shard_rows=41,
        progress=SilentProgress())
print("done", flush=True)
"""


def child(root: Path) -> subprocess.Popen[str]:
    here = str(Path(__file__).parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", CHILD, here, str(root)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)


def test_sigkill_at_random_moments_then_again_gives_the_same_bytes(tmp_path: Path) -> None:
    whole = child(tmp_path / "whole")
    assert whole.stdout is not None
    assert whole.stdout.readline() == "ready\n"
    begun = time.monotonic()
    assert whole.communicate()[0] == "done\n"
    seconds = time.monotonic() - begun
    chance, kills = random.Random(3), 0
    for _ in range(12):
        process = child(tmp_path / "killed")
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(chance.uniform(0.05, 0.6) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        said = process.communicate()[0]
        if said == "done\n":
            break
    else:
        last = child(tmp_path / "killed")
        assert last.communicate()[0] == "ready\ndone\n"
    assert kills >= 1
    for kind in ("whole", "killed"):
        assert all(entry.store is not None for entry in list_stores(tmp_path / kind))
    one, two = (
        {entry.path.name: folder_bytes(entry.path) for entry in list_stores(tmp_path / kind)}
        for kind in ("whole", "killed")
    )
    assert one == two
    assert len(one) == 2


def test_a_partial_store_whose_data_is_gone_is_harvested_again(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "stopped"
    stop_after(monkeypatch, 8, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(model, tokens, root)
    monkeypatch.undo()
    with pytest.raises(DamagedError, match="interrupted"):
        ActivationStore.open(next(path for path in root.iterdir() if path.is_dir()))
    for path in root.iterdir():
        if path.is_dir():
            (path / "rows-00000.bin").unlink()
    notes = Notes()
    assert all_bytes(run(model, tokens, root, notes)) == expected
    assert "its journal counts" in notes.text
    assert "Harvesting it again from the start" in notes.text


def test_stores_interrupted_at_different_places_are_finished_together(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "stopped"
    for layer, component, calls in ((0, "mlp", 4), (1, "residual", 9)):
        stop_after(monkeypatch, calls, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            harvest(model, tokens, [resolve_hook(model, layer, component)], root=root, **SETTINGS)
        monkeypatch.undo()
    assert all_bytes(run(model, tokens, root)) == expected


def test_a_second_harvest_of_the_same_store_waits_and_reuses(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = resolve_hook(model, 1)
    first = harvest(model, tokens, [hook], root=tmp_path)[hook.name]
    aside = tmp_path / "aside"
    first.path.rename(aside)
    lock = FileLock(tmp_path / f".{first.path.name}.lock", thread_local=False)
    lock.acquire()
    notes, found = Notes(), {}
    waiting = threading.Thread(
        target=lambda: found.update(harvest(model, tokens, [hook], root=tmp_path, progress=notes))
    )
    waiting.start()
    while "waiting for it" not in notes.text:
        time.sleep(0.01)
    aside.rename(first.path)  # the other process finished
    monkeypatch.setattr("neuronmap.activations.extract.capture", None)  # any forward pass would fail
    lock.release()
    waiting.join(30)
    assert found[hook.name].num_rows == first.num_rows
    assert "Reusing" in notes.text


def test_leftovers_of_a_kill_after_the_manifest_are_tidied(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, expected: Any
) -> None:
    stores = run(model, tokens, tmp_path / "again")
    for store in stores.values():
        (store.path / "journal.json").write_text("{}")
        (store.path / "record-00000.json").write_text("{}")
        (store.path / ".manifest.json.abc").write_text("{}")
    assert all_bytes(run(model, tokens, tmp_path / "again")) == expected
