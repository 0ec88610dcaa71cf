"""A folder that is filled for hours and survives a kill: what its journal vouches for is gone on with.

``.unfinished-<name>`` lies beside the folder it becomes, with ``journal.json`` in it once there is something to lose; hidden files in it
are work files, or what a killed process was about to rename, and go before it gets its name. One process at a time works in it (a lock
beside it); a second one fills a folder of its own, from the start, and the first to end wins.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from neuronmap.errors import DamagedError
from neuronmap.paths import new_folder, read_json, staging_folder

__all__ = ["JOURNAL", "unfinished_folder"]

JOURNAL = "journal.json"


@contextmanager
def unfinished_folder(
    target: Path, key: str, usable: Callable[[Path, dict[str, Any]], bool]
) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """A folder to fill that becomes ``target`` at the end, and what an interrupted filling left in it.

    Args:
        target: the finished folder.
        key: digest of everything that decides its content; a journal of another key is thrown away.
        usable: whether what a journal speaks of is in the folder; if not, it is thrown away too.

    Yields:
        The folder, and its journal, or None to start anew. Without a journal the folder is removed when the body raises; with one it
        stays.

    Raises:
        OSError: ``target`` exists meanwhile.
    """
    lock = FileLock(target.parent / f".unfinished-{target.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with staging_folder(target) as staging:
            yield staging, None
        return
    folder = target.parent / f".unfinished-{target.name}"
    done = False
    try:
        journal = _journal(folder, key)
        if journal is not None and not usable(folder, journal):
            journal = None
        if journal is None:
            shutil.rmtree(folder, ignore_errors=True)
        yield new_folder(folder), journal
        done = True
        for file in folder.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        for work in [folder / JOURNAL, *folder.glob(".*")]:
            work.unlink(missing_ok=True)
        os.rename(folder, target)
    finally:
        if done or not (folder / JOURNAL).is_file():
            shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: filelock sees a file that is gone
        lock.release()


def _journal(folder: Path, key: str) -> dict[str, Any] | None:
    if not (folder / JOURNAL).is_file():
        return None
    try:
        journal = read_json(folder / JOURNAL)
    except DamagedError:
        return None
    return journal if isinstance(journal, dict) and journal.get("key") == key else None
