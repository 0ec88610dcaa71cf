"""The library's folder on disk: which bundles lie in it, the lock, and the hidden places where writers work."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from neuronmap import paths
from neuronmap.errors import ResourceError, UnwritablePathError
from neuronmap.saes.metadata import CONFIG_FILE, METRICS_FILE, WEIGHTS_FILE

__all__ = ["Fingerprint", "LibraryFolder", "fingerprint"]

_LOCK_SECONDS = 60.0
_LEFTOVER_SECONDS = 24 * 3600.0

Fingerprint = tuple[tuple[int, int], ...]


class LibraryFolder:
    """What the library needs of the file system.

    Args:
        root: the library's folder; need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def bundles(self) -> Iterator[tuple[str, Path]]:
        """Every bundle folder under the root; hidden folders are writers' business."""
        waiting: list[tuple[str, str]] = [("", str(self.root))]
        while waiting:
            prefix, folder = waiting.pop()
            try:
                with os.scandir(folder) as scan:
                    items = [item for item in scan if not item.name.startswith(".")]
            except (FileNotFoundError, NotADirectoryError):
                continue  # deleted while we looked, or no library yet
            if prefix and any(item.name in (CONFIG_FILE, WEIGHTS_FILE) for item in items):
                yield prefix, Path(folder)
                continue
            waiting += [
                (f"{prefix}/{item.name}" if prefix else item.name, item.path)
                for item in items
                if item.is_dir(follow_symlinks=False)
            ]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the library's lock: for renames only, never while data is written."""
        paths.new_folder(self.root)
        lock = filelock.FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except filelock.Timeout as error:
            raise ResourceError(
                f"The library {self.root} has been locked by another program for {_LOCK_SECONDS:.0f} seconds.",
                hint="End that program; a killed one frees the lock by itself.",
            ) from error
        except OSError as error:
            raise UnwritablePathError(f"Cannot lock {self.root}: {error.strerror or error}.") from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A hidden folder on the library's own disk; whatever is left in it goes."""
        folder = paths.new_folder(self.root / f".staging-{uuid.uuid4().hex}")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Clear away what writers killed more than a day ago left behind."""
        oldest = time.time() - _LEFTOVER_SECONDS
        for folder in self.root.glob(".staging-*"):
            try:
                if folder.stat().st_mtime < oldest:
                    shutil.rmtree(folder, ignore_errors=True)
            except FileNotFoundError:
                continue


def fingerprint(folder: Path) -> tuple[Fingerprint, int]:
    """(time and size of the files an entry is read from, bytes of all files); FileNotFoundError if the folder is gone."""
    marks = []
    for name in (CONFIG_FILE, WEIGHTS_FILE, METRICS_FILE):
        try:
            found = os.stat(folder / name)
            marks.append((found.st_mtime_ns, found.st_size))
        except FileNotFoundError:
            marks.append((0, -1))
    return tuple(marks), _total_bytes(str(folder))


def _total_bytes(folder: str) -> int:
    total = 0
    with os.scandir(folder) as scan:
        for item in scan:
            try:
                if item.is_dir(follow_symlinks=False):
                    total += _total_bytes(item.path)
                else:
                    total += item.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue  # replaced by another program just now
    return total
