"""Checks a store's digests once for each state of its files, not at every reuse.

``verified.json`` beside the manifest keeps name, size and modification time of the files whose digests were found
right. It says nothing about the rows: without it the digests are just checked again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuronmap.activations.store import MANIFEST, ActivationStore
from neuronmap.errors import DamagedError, DiskSpaceError, UnwritablePathError
from neuronmap.paths import human_bytes, read_json, write_json
from neuronmap.progress import Progress

__all__ = ["VERIFIED", "open_verified", "remember_verified"]

VERIFIED = "verified.json"


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
    if _recorded(path) == state:
        return store
    progress.note(f"Checking the digests of {human_bytes(store.bytes_on_disk)} in {path}.")
    store = ActivationStore.open(path, verify=True)
    _write(path, state)  # as before the check: a file changed meanwhile is checked again
    return store


def remember_verified(path: Path) -> None:
    """Record that the files of a store are as its manifest says, because it was just written."""
    _write(path, _state(path))


def _state(path: Path) -> dict[str, Any]:
    files = [path / MANIFEST, *sorted(path.glob("*.bin"))]
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _recorded(path: Path) -> Any:
    try:
        return read_json(path / VERIFIED)
    except (OSError, DamagedError):
        return None


def _write(path: Path, state: dict[str, Any]) -> None:
    try:
        write_json(path / VERIFIED, state)
    except (UnwritablePathError, DiskSpaceError):
        return  # a store on a read-only or full disk is good all the same; it is checked again next time
