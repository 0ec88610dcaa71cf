"""A store is reused only if its bytes are those that were harvested; looking costs once for each state of the files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from token_sets import Notes, PlainTokens

from neuronmap.activations import ActivationStore, harvest
from neuronmap.errors import DamagedError, UnwritablePathError
from neuronmap.models import LanguageModel, resolve_hook
from neuronmap.verified import VERIFIED


def reuse(model: LanguageModel, tokens: PlainTokens, root: Path) -> tuple[ActivationStore, bool]:
    """The store of one hook, and whether its files were read for checking."""
    hook, notes = resolve_hook(model, 1), Notes()
    store = harvest(model, tokens, [hook], root=root, shard_rows=41, progress=notes)[hook.name]
    return store, "Checking the digests" in notes.text


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["rows-00000.bin", "index-00002.bin"])
@pytest.mark.parametrize("record", [True, False])
def test_flipped_bytes_are_refused_on_reuse_every_time(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, name: str, record: bool
) -> None:
    store, _ = reuse(model, tokens, tmp_path)
    flip(store.path / name)
    if not record:
        (store.path / VERIFIED).unlink()
    for _ in range(2):
        with pytest.raises(DamagedError, match=f"{name} was changed") as caught:
            reuse(model, tokens, tmp_path)
        assert "Delete the folder and harvest again" in caught.value.hint
    store.delete()
    again, checked = reuse(model, tokens, tmp_path)
    assert not checked
    assert again.num_rows == store.num_rows


def test_digests_are_checked_once_for_each_state_of_the_files(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path
) -> None:
    store, checked = reuse(model, tokens, tmp_path)
    assert not checked
    assert not reuse(model, tokens, tmp_path)[1]  # the harvest left its record
    for change in (
        lambda: (store.path / VERIFIED).unlink(),
        lambda: (store.path / VERIFIED).write_text("{"),
        lambda: os.utime(store.path / "rows-00001.bin", ns=(1, 1)),  # a copied store
    ):
        change()
        assert reuse(model, tokens, tmp_path)[1]
        assert not reuse(model, tokens, tmp_path)[1]


def test_a_store_on_a_read_only_disk_is_checked_and_used(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = reuse(model, tokens, tmp_path)
    (store.path / VERIFIED).unlink()

    def refuse(path: Path, _value: object) -> None:
        raise UnwritablePathError(f"Cannot write {path}: Read-only file system.")

    monkeypatch.setattr("neuronmap.verified.write_json", refuse)
    again, checked = reuse(model, tokens, tmp_path)
    assert checked
    assert again.digest == store.digest


def test_what_a_killed_process_left_beside_its_record_is_removed(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path
) -> None:
    store, _ = reuse(model, tokens, tmp_path)
    files = sorted(file.name for file in store.path.iterdir())
    (store.path / VERIFIED).rename(store.path / f".{VERIFIED}.0123abcd")  # killed before the file had its name
    assert reuse(model, tokens, tmp_path)[1]
    assert sorted(file.name for file in store.path.iterdir()) == files
