"""Blobs in a folder.

<root>/sha256/aa/<hex>            blobs, under their digests; read-only, as a hint
<root>/incoming/<upload>/<offset> chunks of unfinished uploads
<root>/temporary/                 files being written; on the same file system, 0700
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from neuronmap.errors import DiskSpaceError, UnwritablePathError
from neuronmap.objects import Sending, StoredObject

__all__ = ["LocalBlobStore"]

_PIECE = 1 << 20
_TEMPORARY = "temporary"


class LocalBlobStore:
    """A folder. Writing goes to a file of its own beside, flushed to disk and renamed: no lock is needed to be right.

    Args:
        root: the folder; made when first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        target = self._path(key)
        aside = self._path(f"{_TEMPORARY}/{uuid.uuid4().hex}")
        sent = Sending(chunks)
        try:
            _folder(aside.parent)
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                for chunk in sent:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            self._rename(aside, target)
        except OSError as error:
            _drop(aside)
            if error is sent.error:
                raise
            raise self._written(error) from error
        except BaseException:
            _drop(aside)
            raise
        return sent.size

    def get(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        file = open(self._path(key), "rb")  # noqa: SIM115 - closed by the generator

        def pieces() -> Iterator[bytes]:
            with file:
                file.seek(start)
                left = None if end is None else max(0, end - start)
                while left is None or left > 0:
                    piece = file.read(_PIECE if left is None else min(_PIECE, left))
                    if not piece:
                        return
                    if left is not None:
                        left -= len(piece)
                    yield piece

        return pieces()

    def size(self, key: str) -> int | None:
        try:
            found = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def move(self, source: str, target: str) -> None:
        try:
            self._rename(self._path(source), self._path(target))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._written(error) from error

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
            if path.parent not in (self.root, self.root / _TEMPORARY):
                path.parent.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise self._written(error) from error

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        top = self._path(prefix.rstrip("/")) if prefix else self.root
        for folder, inner, names in os.walk(top):
            inner.sort()
            for name in sorted(names):
                path = Path(folder, name)
                try:
                    found = path.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield StoredObject(path.relative_to(self.root).as_posix(), found.st_size, found.st_mtime)

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
            raise ValueError(f"{key!r} is no key of ours.")  # keys are made by the zoo: this is a fault of ours
        return self.root.joinpath(*parts)

    def _rename(self, source: Path, target: Path) -> None:
        if target.parts[len(self.root.parts)] == "sha256":
            os.chmod(source, 0o400)
        while True:
            _folder(target.parent)
            try:
                os.replace(source, target)
                break
            except FileNotFoundError:
                if not source.exists():
                    raise
                # else a removal took the folder, which was empty, before this came to lie in it
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _written(self, error: OSError) -> DiskSpaceError | UnwritablePathError:
        if isinstance(error, FileNotFoundError):
            return UnwritablePathError(
                f"A file was removed from the zoo's store {self.root} while it was written.",
                hint="Collect garbage with a grace of two weeks or more while people publish.",
            )
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskSpaceError(
                f"No space left in the zoo's store {self.root}.", hint="neuronmap zoo gc, or free disk space."
            )
        return UnwritablePathError(f"Cannot write in the zoo's store {self.root}: {error.strerror or error}.")


def _drop(path: Path) -> None:
    """Remove what was begun; where that cannot be done the collector does it later."""
    with suppress(OSError):
        path.unlink()


def _folder(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
