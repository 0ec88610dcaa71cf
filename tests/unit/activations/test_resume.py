"""Whatever stops a harvest, running it again ends with the bytes of an uninterrupted one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from test_harvest import folder_bytes
from token_sets import Notes, PlainTokens, tuned_with

from neuronmap.activations import ActivationStore, harvest, list_stores, writer
from neuronmap.errors import DamagedError, DiskSpaceError
from neuronmap.models import LanguageModel, capture, resolve_hook

SETTINGS: dict[str, Any] = {"batch_tokens": 32, "shard_rows": 41}


def run(model: LanguageModel, tokens: PlainTokens, root: Path, progress: Any = None) -> dict[str, ActivationStore]:
    hooks = [resolve_hook(model, 0, "mlp"), resolve_hook(model, 1)]
    return harvest(model, tokens, hooks, root=root, progress=progress, **SETTINGS)


def all_bytes(stores: dict[str, ActivationStore]) -> dict[str, dict[str, str]]:
    return {name: folder_bytes(store.path) for name, store in stores.items()}


@pytest.fixture(params=["auto", "int8"])
def stored_as(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Stores with and without a file of scales."""
    monkeypatch.setitem(SETTINGS, "dtype", request.param)
    return str(request.param)


@pytest.fixture
def expected(stored_as: str, model: LanguageModel, tokens: PlainTokens, tmp_path: Path) -> dict[str, dict[str, str]]:
    return all_bytes(run(model, tokens, tmp_path / "whole"))


@contextmanager
def ctrl_c_after(calls: int) -> Iterator[None]:
    """Let the model run ``calls`` more times, then press Ctrl-C; it must come out at the caller."""
    left = [calls]

    def limited(*args: Any, **rest: Any) -> Any:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return capture(*args, **rest)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the caller's body)
        patch.setattr("neuronmap.activations.extract.capture", limited)
        yield


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 9, 12])
def test_ctrl_c_anywhere_then_again_gives_the_same_bytes(
    model: LanguageModel,
    tokens: PlainTokens,
    tmp_path: Path,
    expected: dict[str, dict[str, str]],
    calls: int,
) -> None:
    root = tmp_path / "stopped"
    with ctrl_c_after(calls):
        run(model, tokens, root)
    notes = Notes()
    assert all_bytes(run(model, tokens, root, notes)) == expected
    # one call calibrates (23 contexts in one batch), each of the others does 2 contexts
    done = max(calls - 1, 0) * 2
    assert notes.advanced == (23 - done) * 16
    assert ("Continuing the interrupted harvest" in notes.text) == (calls >= 1)


def test_sigterm_saves_what_is_done_like_ctrl_c(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, received = [0], []

    def stopped(*args: Any, **rest: Any) -> Any:
        calls[0] += 1
        if calls[0] == 6:  # one call calibrates, four did 2 contexts each
            os.kill(os.getpid(), signal.SIGTERM)
        return capture(*args, **rest)

    def own(number: int, _frame: Any) -> None:
        received.append(number)

    root, before = tmp_path / "stopped", signal.signal(signal.SIGTERM, own)
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012 (patched within)
            patch.setattr("neuronmap.activations.extract.capture", stopped)
            run(model, tokens, root)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == []
    notes = Notes()
    assert all_bytes(run(model, tokens, root, notes)) == expected
    assert notes.advanced == (23 - 8) * 16


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


@contextmanager
def contexts_a_pass() -> Iterator[list[int]]:
    """How many contexts each forward pass took."""
    seen: list[int] = []

    def watched(model: LanguageModel, ids_BT: Any, *args: Any, **rest: Any) -> Any:
        seen.append(len(ids_BT))
        return capture(model, ids_BT, *args, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuronmap.activations.extract.capture", watched)
        yield seen


def test_a_harvest_goes_on_in_passes_of_the_size_it_was_begun_with(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, expected: Any
) -> None:
    """Also after the measured settings changed: another size could round the last bits differently."""
    root, hooks = tmp_path / "stopped", [resolve_hook(model, 0, "mlp"), resolve_hook(model, 1)]
    with ctrl_c_after(4):
        run(model, tokens, root)
    tuned_with(batch_tokens=80)
    notes = Notes()
    with contexts_a_pass() as seen:
        stores = harvest(model, tokens, hooks, root=root, shard_rows=41, dtype=SETTINGS["dtype"], progress=notes)
    assert seen == [2] * 8 + [1]
    assert all_bytes(stores) == expected
    assert "Not bit for bit" not in notes.text


def test_a_size_that_is_asked_for_goes_before_the_one_it_was_begun_with(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path
) -> None:
    """As after running out of memory; the store holds the same rows."""
    root, hook = tmp_path / "stopped", resolve_hook(model, 1)
    with ctrl_c_after(3):
        harvest(model, tokens, [hook], root=root, batch_tokens=64, dtype="float32")
    notes = Notes()
    with contexts_a_pass() as seen:
        store = harvest(model, tokens, [hook], root=root, batch_tokens=16, dtype="float32", progress=notes)[hook.name]
    assert seen == [1] * 15
    assert "was begun with batch_contexts 4 and goes on with 1" in notes.text
    assert store.manifest["batch_contexts"] == 1
    whole = harvest(model, tokens, [hook], root=tmp_path / "whole", dtype="float32")[hook.name]
    torch.testing.assert_close(store.read(0, store.num_rows), whole.read(0, whole.num_rows), rtol=1e-5, atol=1e-5)


def test_measured_tokens_a_pass_are_used(model: LanguageModel, tokens: PlainTokens, tmp_path: Path) -> None:
    tuned_with(batch_tokens=80)
    with contexts_a_pass() as seen:
        store = harvest(model, tokens, [resolve_hook(model, 1)], root=tmp_path)["model.layers.1:out"]
    assert seen == [23, 5, 5, 5, 5, 3]  # calibration has a size of its own
    assert store.manifest["batch_contexts"] == 5


def test_what_calibration_has_seen_is_not_computed_again(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = [resolve_hook(model, 0, "mlp"), resolve_hook(model, 1)]
    with contexts_a_pass() as seen:
        once = harvest(model, tokens, hooks, root=tmp_path / "once")
    monkeypatch.setattr("neuronmap.activations.extract._KEPT_BYTES", 0)
    with contexts_a_pass() as seen_without:
        twice = harvest(model, tokens, hooks, root=tmp_path / "twice")
    assert (seen, seen_without) == ([23], [23, 23])
    assert all_bytes(once) == all_bytes(twice)


HARVEST_AND_KILL = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from pathlib import Path
from token_sets import PlainTokens, tiny_model
from neuronmap.activations import harvest, writer
from neuronmap.models import resolve_hook
from neuronmap.progress import SilentProgress
writer.JOURNAL_SECONDS = 0.01
model, tokens = tiny_model(), PlainTokens(240, 16)
hooks = [resolve_hook(model, 0, "mlp"), resolve_hook(model, 1)]

def work(root):
    harvest(model, tokens, hooks, root=root, batch_tokens=32, shard_rows=41, dtype="int8", progress=SilentProgress())

whole, warm, killed = (Path(sys.argv[2], name) for name in ("whole", "warm", "killed"))
work(whole)  # what is loaded on the way is there in the children
begun = time.monotonic()
work(warm)
seconds = time.monotonic() - begun
chance, kills = random.Random(3), 0
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        work(killed)
        os._exit(0)
    time.sleep(chance.uniform(0.02, 0.12) * seconds)
    os.kill(pid, signal.SIGKILL)
    kills += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
work(killed)
print(kills)
"""


@pytest.mark.slow
def test_sigkill_at_random_moments_then_again_gives_the_same_bytes(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", HARVEST_AND_KILL, str(Path(__file__).parent), str(tmp_path)]
    child = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    assert int(child.stdout) >= 3, child.stdout
    one, two = (
        {entry.path.name: folder_bytes(entry.path) for entry in list_stores(tmp_path / kind) if entry.store}
        for kind in ("whole", "killed")
    )
    assert one == two
    assert len(one) == 2


def test_a_partial_store_whose_data_is_gone_is_harvested_again(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, expected: Any
) -> None:
    root = tmp_path / "stopped"
    with ctrl_c_after(8):
        run(model, tokens, root)
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
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, expected: Any
) -> None:
    root = tmp_path / "stopped"
    for layer, component, calls in ((0, "mlp", 4), (1, "residual", 9)):
        with ctrl_c_after(calls):
            harvest(model, tokens, [resolve_hook(model, layer, component)], root=root, **SETTINGS)
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
