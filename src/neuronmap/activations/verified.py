"""Checks a store's digests once for each state of its files, not at every reuse.

The record is that of :mod:`neuronmap.verified`; it says nothing about the rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuronmap.activations.store import MANIFEST, ActivationStore
from neuronmap.paths import human_bytes
from neuronmap.progress import Progress
from neuronmap.verified import file_states, read_record, write_record

__all__ = ["open_verified", "remember_verified"]


def open_verified(path: Path, progress: Progress) -> ActivationStore:
    """Open a store whose digests are right: checked now, or checked before and unchanged since.

    Args:
        path: the store's folder.
        progress: is told when files have to be read (about a second per GB).

    Raises:
        DamagedError: names the file that is missing, resized or changed.
        InputError: if there is no store in the folder.
        MismatchError: if it was written in a format this version does not know.
    """
    store = ActivationStore.open(path)
    state = _state(path)
    if read_record(path) == state:
        return store
    progress.note(f"Checking the digests of {human_bytes(store.bytes_on_disk)} in {path}.")
    store = ActivationStore.open(path, verify=True)
    write_record(path, state)
    return store


def remember_verified(path: Path) -> None:
    """Record that the files of a store are as its manifest says, because it was just written."""
    write_record(path, _state(path))


def _state(path: Path) -> dict[str, Any]:
    return file_states([path / MANIFEST, *sorted(path.glob("*.bin"))])
