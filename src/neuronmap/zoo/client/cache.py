"""What was pulled from servers, by digest: every byte in it was hashed by us, and is hashed again when it is used.

    <home>/zoo/cache/sha256/aa/<hex>         a file, or a manifest, under the digest of its bytes
    <home>/zoo/cache/partial/<hex>.<random>  a download under way, or what an interrupted one left; new.<random> until it is locked
    <home>/zoo/cache/names/<server>/...      which digest a name meant when it was last asked for; for offline use
    <home>/zoo/cache/CACHEDIR.TAG            says to backup programs that all of this can be fetched again

A download goes to a file of its own and is renamed when its digest is right. An interrupted one may be taken over by the next: by
renaming it, which only one process can, and only once nobody holds its lock; whatever is in it, the digest decides.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from neuronmap import paths
from neuronmap.errors import DamagedError, DiskSpaceError, UnwritablePathError
from neuronmap.zoo.client.location import zoo_home
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.names import Reference

__all__ = ["Cache", "Partial", "copy_hashed"]

_PIECE = 1 << 20
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# What NeuronMap pulled from zoos; it can be fetched again.\n"
_OLD_S = 7 * 24 * 3600.0
_CLONE = 0x40049409  # FICLONE of <linux/fs.h>
_UNNAMED = "new"
"""What a download is called until its lock is held."""


class Partial:
    """A download under way.

    Attributes:
        path: the file.
        size: bytes that are in it.
    """

    def __init__(self, path: Path, file: BinaryIO, size: int, state: Any) -> None:
        self.path, self.size = path, size
        self._file, self._state = file, state

    def write(self, piece: bytes) -> None:
        """Add bytes."""
        self._file.write(piece)
        self._state.update(piece)
        self.size += len(piece)

    def restart(self) -> None:
        """Forget what is there."""
        self._file.seek(0)
        self._file.truncate()
        self._state, self.size = hashlib.sha256(), 0

    def flush(self) -> None:
        """Bring all of it to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    @property
    def digest(self) -> Digest:
        """Of what is there."""
        return Digest(f"sha256:{self._state.hexdigest()}")


class Cache:
    """This machine's cache of what came from servers.

    Args:
        root: its folder; ``<home>/zoo/cache`` when left out.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else zoo_home() / "cache"

    def path(self, digest: Digest) -> Path:
        """Where the bytes of a digest lie, or would lie."""
        return self.root / digest.key

    def has(self, digest: Digest, size: int) -> bool:
        """Whether bytes of that digest and size are here; their digest is looked at when they are used."""
        try:
            return self.path(digest).stat().st_size == size
        except OSError:
            return False

    def read(self, digest: Digest) -> bytes | None:
        """Small bytes, checked; None if they are not here, or were damaged (they are then removed)."""
        try:
            data = self.path(digest).read_bytes()
        except OSError:
            return None
        if Digest.of(data) == digest:
            return data
        self.drop(digest)
        return None

    def put(self, data: bytes) -> Digest:
        """Keep small bytes."""
        digest = Digest.of(data)
        if self.has(digest, len(data)):
            return digest
        with self.partial(digest, adopt=False) as partial:
            partial.write(data)
            self.keep(partial, digest)
        return digest

    def drop(self, digest: Digest) -> None:
        """Remove what is under a digest."""
        with _writing(self.root):
            self.path(digest).unlink(missing_ok=True)

    @contextmanager
    def partial(self, digest: Digest, *, adopt: bool = True) -> Iterator[Partial]:
        """A file to download to: a new one, or what an interrupted download of the same digest left.

        When the block is left by an error, what came so far stays for the next try.

        Raises:
            UnwritablePathError, DiskSpaceError: the cache cannot be written; whatever happens inside is not touched.
        """
        with _writing(self.root):
            folder = self._folder("partial")
            path, file = (self._adopted(folder, digest) if adopt else None) or self._new(folder, digest)
        with file:
            state, size = hashlib.sha256(), 0
            while piece := file.read(_PIECE):
                state.update(piece)
                size += len(piece)
            partial = Partial(path, file, size, state)
            try:
                with _writing(self.root):
                    yield partial
            finally:
                if not partial.size:
                    path.unlink(missing_ok=True)

    def keep(self, partial: Partial, digest: Digest) -> Path:
        """Give a finished download its place; the caller has seen that its digest is right."""
        target = self.path(digest)
        with _writing(self.root):
            partial.flush()
            target.parent.mkdir(parents=True, exist_ok=True)
            os.chmod(partial.path, 0o400)
            os.replace(partial.path, target)
        return target

    # --- names -------------------------------------------------------------------------------------------------------------

    def remember(self, location: str, reference: Reference, found: dict[str, Any]) -> None:
        """What a name meant: for the next time, when the server cannot be asked."""
        file = self._names(location, reference)
        known = self._known(file)
        known[str(reference).partition("@")[2]] = found
        with _writing(self.root):
            self._folder("names")
        paths.new_folder(file.parent)
        paths.write_json(file, known)

    def recall(self, location: str, reference: Reference) -> dict[str, Any] | None:
        """What was remembered of a name; None for nothing."""
        found = self._known(self._names(location, reference)).get(str(reference).partition("@")[2])
        return found if isinstance(found, dict) else None

    def forget(self, location: str, reference: Reference) -> None:
        """A name means nothing any more."""
        file = self._names(location, reference)
        known = self._known(file)
        if known.pop(str(reference).partition("@")[2], None) is not None:
            paths.write_json(file, known)

    def _names(self, location: str, reference: Reference) -> Path:
        server = hashlib.sha256(location.encode()).hexdigest()[:32]
        return self.root / "names" / server / reference.namespace / f"{reference.name}.json"

    def _known(self, file: Path) -> dict[str, Any]:
        try:
            found = paths.read_json(file)
        except (OSError, DamagedError):
            return {}
        return found if isinstance(found, dict) else {}

    # --- housekeeping ------------------------------------------------------------------------------------------------------

    def clear(self, *, dry_run: bool, progress: Callable[[int], None] | None = None) -> tuple[int, int]:
        """Remove everything; a dry run only counts.

        Returns:
            (files, bytes).
        """
        count = size = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                length = path.lstat().st_size
                count, size = count + 1, size + length
                if progress is not None:
                    progress(length)
        if not dry_run and count:
            with _writing(self.root):
                shutil.rmtree(self.root)
        return count, size

    def _folder(self, name: str) -> Path:
        tag = self.root / "CACHEDIR.TAG"
        (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        if not tag.exists():
            tag.write_bytes(_TAG)
        return self.root / name

    def _new(self, folder: Path, digest: Digest) -> tuple[Path, BinaryIO]:
        name = uuid.uuid4().hex
        unnamed, path = folder / f"{_UNNAMED}.{name}", folder / f"{digest.hex}.{name}"
        file = open(os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b")  # noqa: SIM115 - closed by the caller
        _locked(file)
        # Only now: under this name and without a lock, another would take it for what an interrupted download left.
        os.rename(unnamed, path)
        return path, file

    def _adopted(self, folder: Path, digest: Digest) -> tuple[Path, BinaryIO] | None:
        """What an interrupted download left, if nobody is at it; old leftovers of others go."""
        for path in sorted(folder.iterdir()):
            try:
                if path.name.startswith(f"{digest.hex}."):
                    own = path.with_name(f"{digest.hex}.{uuid.uuid4().hex}")
                    with ExitStack() as stack:
                        file = stack.enter_context(open(path, "r+b"))
                        if _locked(file):
                            os.rename(path, own)  # fails where its download was finished in the meantime
                            stack.pop_all()
                            return own, file
                elif path.stat().st_mtime < time.time() - _OLD_S:
                    path.unlink(missing_ok=True)
            except OSError:
                continue  # another process was first
        return None


def _locked(file: BinaryIO) -> bool:
    """Take a file's lock, without waiting. A hint only: whatever two writers do to one file, its digest decides."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def copy_hashed(source: Path, target: Path) -> Digest:
    """Copy a file, sharing its blocks where the file system can, and say what was copied.

    No hard link: whoever changed the copy in place would change what others trust under its digest.
    """
    state = hashlib.sha256()
    with open(source, "rb") as reading, open(target, "xb") as writing:
        cloned = False
        try:
            fcntl.ioctl(writing.fileno(), _CLONE, reading.fileno())
            cloned = True
        except OSError:
            pass
        while piece := reading.read(_PIECE):
            state.update(piece)
            if not cloned:
                writing.write(piece)
    return Digest(f"sha256:{state.hexdigest()}")


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    """What the operating system refuses, as ours."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskSpaceError(
                f"No space left in the cache {root}.", hint="neuronmap zoo gc --cache, or free disk space."
            ) from error
        raise UnwritablePathError(
            f"Cannot write in the cache {root}: {error.strerror or error}.",
            hint="Set NEURONMAP_HOME to another folder.",
        ) from error
