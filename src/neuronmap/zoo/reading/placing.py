"""Files of published versions, put where they can be read.

<root>/versions/<hex>/<name>     links; <hex> is of the version's manifest
<root>/blobs/<hex>               of an object store: what was fetched; the least recently used goes above a size
<root>/fetching/<hex>.<random>   on their way
<root>/locks/<two digits>        one fetch at a time of what begins with them; also between processes

Where the blobs are files of this machine, the links lead to them and nothing is copied. Links, not further names of the same file: when
the zoo deletes a blob, its bytes are gone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from neuronmap.errors import (
    DamagedError,
    DiskSpaceError,
    InputError,
    ResourceError,
    UnwritablePathError,
    ZooOfflineError,
)
from neuronmap.paths import human_bytes
from neuronmap.zoo.blobs import BlobStore
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.views import FileView

__all__ = ["ReadingFolder"]

_AT_ONCE = 8
"""Threads that may fetch or wait for a fetch; further ones are told to come again, so that the others can be answered meanwhile."""
_LEFT_S = 6 * 3600.0
"""After so long a file on its way belongs to a process that was killed."""


class ReadingFolder:
    """A folder in which versions can be read. Several threads and processes may use the same one.

    Args:
        store: where the blobs are.
        root: the folder; made when first needed, for its owner alone.
        most_bytes: of what is fetched from an object store and kept.
        patience: seconds to wait for somebody else's fetch of the same file.
    """

    def __init__(self, store: BlobStore, root: Path, *, most_bytes: int, patience: float = 60.0) -> None:
        self.store, self.root, self.most_bytes, self.patience = store, root, most_bytes, patience
        self._free = threading.BoundedSemaphore(_AT_ONCE)

    def folder(self, version: Digest) -> Path:
        """Where the files of a version are put.

        Args:
            version: digest of its manifest.
        """
        return self.root / "versions" / version.hex

    def place(self, version: Digest, file: FileView) -> Path:
        """A file of a version, ready to be read; whoever calls has made sure that the asker may.

        Args:
            version: digest of its manifest.
            file: right in the artefact's folder.

        Raises:
            InputError: the file lies in a folder of its own.
            DamagedError: the store has lost it, or has other bytes.
            ResourceError: it is larger than what may be fetched.
            ZooOfflineError: it is still being fetched.
            DiskSpaceError, UnwritablePathError: it cannot be written.
        """
        if "/" in file.path:
            raise InputError(f"{file.path!r} lies in a folder; files that are read in place do not.")
        own = self.store.local_path(file.digest.key)
        try:
            target = self._fetched(file) if own is None else _sound(own, file)
            return _linked(self.folder(version) / file.path, target)
        except OSError as error:
            raise self._written(error) from error

    def forget(self, version: Digest) -> None:
        """Remove what is here of a version."""
        folder, fetched = self.folder(version), self.root / "blobs"
        with suppress(OSError):
            for link in folder.iterdir():
                target = Path(os.readlink(link))
                if target.parent == fetched:
                    target.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    # --- from an object store ------------------------------------------------------------------------------------------

    def _fetched(self, file: FileView) -> Path:
        path = self.root / "blobs" / file.digest.hex
        if _used_now(path):
            return path
        if file.size > self.most_bytes:
            raise ResourceError(
                f"{file.path} has {human_bytes(file.size)}; this zoo fetches at most {human_bytes(self.most_bytes)} to look at.",
                hint="Pull the version instead: neuronmap zoo pull.",
            )
        with self._turn(file):
            if not _used_now(path):
                self._fetch(file, path)
        return path

    @contextmanager
    def _turn(self, file: FileView) -> Iterator[None]:
        """Within it, nobody else fetches this file."""
        busy = ZooOfflineError(
            f"{file.path} ({human_bytes(file.size)}) is still on its way from the zoo's store.",
            hint="Try again in a moment.",
        )
        if not self._free.acquire(blocking=False):
            raise busy
        try:
            _folder(self.root / "locks")
            lock = filelock.FileLock(self.root / "locks" / file.digest.hex[:2], thread_local=False)
            with lock.acquire(timeout=self.patience):
                yield
        except filelock.Timeout:
            raise busy from None
        finally:
            self._free.release()

    def _fetch(self, file: FileView, path: Path) -> None:
        aside = self.root / "fetching" / f"{file.digest.hex}.{uuid.uuid4().hex}"
        for folder in (aside.parent, path.parent):
            _folder(folder)
        self._make_room(aside, file.size)
        seen, size = hashlib.sha256(), 0
        try:
            with open(aside, "r+b") as out:
                for piece in self.store.get(file.digest.key):
                    size += len(piece)
                    if size > file.size:
                        break
                    seen.update(piece)
                    out.write(piece)
            if size != file.size or seen.hexdigest() != file.digest.hex:
                raise DamagedError(
                    f"The zoo's store holds other bytes than {file.digest}.", hint="neuronmap zoo verify"
                )
            os.chmod(aside, 0o400)
            os.replace(aside, path)
        except FileNotFoundError:
            raise _lost(file) from None
        finally:
            aside.unlink(missing_ok=True)

    def _make_room(self, aside: Path, size: int) -> None:
        """Drop what was not used for longest, and take the room: a file of that size, without blocks as yet."""
        with filelock.FileLock(self.root / "locks" / "room", thread_local=False).acquire(timeout=self.patience):
            known = [(found.st_mtime, found.st_size, path) for path, found in _files(self.root / "blobs")]
            coming = 0
            for path, found in _files(aside.parent):
                if time.time() - found.st_mtime > _LEFT_S:
                    path.unlink(missing_ok=True)
                else:
                    coming += found.st_size
            total = size + coming + sum(one for _, one, _ in known)
            for _, held, path in sorted(known):
                if total <= self.most_bytes:
                    break
                path.unlink(missing_ok=True)  # whoever has it open reads on
                total -= held
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                out.truncate(size)

    def _written(self, error: OSError) -> DiskSpaceError | UnwritablePathError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskSpaceError("No space is left for what is fetched to be looked at.")
        return UnwritablePathError(f"Cannot write in {self.root}: {error.strerror or error}.")


def _sound(path: Path, file: FileView) -> Path:
    """A blob of this machine, if it is there."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise _lost(file) from None
    if size != file.size:
        raise DamagedError(f"{file.digest} has {size:,} bytes, not {file.size:,}.", hint="neuronmap zoo verify")
    return path.absolute()


def _lost(file: FileView) -> DamagedError:
    return DamagedError(f"The zoo's store has lost {file.digest}.", hint="neuronmap zoo verify")


def _linked(link: Path, target: Path) -> Path:
    """A link that leads there; put in place in one step."""
    with suppress(OSError):
        if os.readlink(link) == str(target):
            return link
    _folder(link.parent)
    aside = link.with_name(f".{link.name}.{uuid.uuid4().hex}")
    try:
        os.symlink(target, aside)
        os.replace(aside, link)
    finally:
        aside.unlink(missing_ok=True)
    return link


def _used_now(path: Path) -> bool:
    """Whether it is there; then it counts as used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            yield path, path.stat()


def _folder(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
