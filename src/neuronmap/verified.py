"""What is remembered of files whose digests were found right, so that each state of a file is checked once and not at every opening.

``verified.json`` beside a store's manifest keeps size, modification time and inode of its files; the inode, since a copy may take over
the times. It is no part of the store: without it, or where it cannot be written, the digests are checked again.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from neuronmap.errors import DamagedError, DiskSpaceError, UnwritablePathError
from neuronmap.paths import read_json, write_json

__all__ = ["VERIFIED", "file_states", "read_record", "write_record"]

VERIFIED = "verified.json"


def file_states(files: Iterable[Path]) -> dict[str, list[Any]]:
    """Size, modification time in ns and inode of each file, by name; files that are gone are left out: what reads them says so."""
    found: dict[str, list[Any]] = {}
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        found[file.name] = [status.st_size, status.st_mtime_ns, status.st_ino]
    return found


def read_record(folder: Path) -> dict[str, Any]:
    """What was written last; empty where there is nothing that can be read."""
    try:
        found = read_json(folder / VERIFIED)
    except (OSError, DamagedError):
        return {}
    return found if isinstance(found, dict) else {}


def write_record(folder: Path, states: dict[str, Any]) -> None:
    """Remember the states of files that were found right, as they were before the check: one changed meanwhile is then checked again."""
    for aside in folder.glob(f".{VERIFIED}.*"):  # of a process that was killed while it wrote here
        with suppress(OSError):
            aside.unlink()
    try:
        write_json(folder / VERIFIED, states)
    except (UnwritablePathError, DiskSpaceError):
        return  # a store on a read-only or full disk is good all the same; it is checked again next time
