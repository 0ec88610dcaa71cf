"""Folders kept in a bucket, file by file, each under the digest of its bytes.

    <prefix>/folders/<name>/files.json   the folder's files: path -> digest and size; written last, replaced as a whole
             blobs/<2 hex>/<64 hex>      the bytes; equal files are there once, whichever folders they are of

A reader sees a whole folder or none: what a listing names is there before it is. Whatever is fetched is compared with its digest before it
gets its name on the disk.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

from neuronmap.errors import DamagedError, InputError, MismatchError
from neuronmap.hashing import digest_file, digest_json, sealed
from neuronmap.objects.bucket import Bucket
from neuronmap.objects.protocol import BlobStore
from neuronmap.paths import check_disk_space, new_file, new_folder, staging_folder
from neuronmap.progress import Progress, Task

__all__ = ["Listing", "RemoteFile", "RemoteFolders"]

FORMAT, VERSION = "neuronmap-folder", 1
_LISTING = "files.json"
_PIECE = 1 << 20
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class RemoteFile(NamedTuple):
    """One file.

    Attributes:
        digest: ``sha256:<hex>`` of its bytes.
        size: how many there are.
    """

    digest: str
    size: int


@dataclass(frozen=True)
class Listing:
    """The files of one folder.

    Attributes:
        name: of the folder, parts separated by ``/``.
        files: by path in the folder, parts separated by ``/``.
    """

    name: str
    files: dict[str, RemoteFile]

    @property
    def digest(self) -> str:
        """Of all names and contents."""
        return digest_json({path: list(file) for path, file in self.files.items()})

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def to_bytes(self) -> bytes:
        """As it is stored."""
        body = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "files": {path: {"digest": file.digest, "size": file.size} for path, file in sorted(self.files.items())},
        }
        return (json.dumps(sealed(body, "listing_digest"), indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, name: str, data: bytes, where: str) -> Self:
        """Read and check what :meth:`to_bytes` wrote; a bucket may be written by others, so nothing in it is believed.

        Raises:
            DamagedError: it is no listing, or was changed.
            MismatchError: another version wrote it.
        """
        try:
            found: Any = json.loads(data)
        except ValueError as error:
            raise DamagedError(f"The listing of {name} in {where} is no JSON: {error}.") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise DamagedError(f"{name} in {where} is no folder of NeuronMap.")
        if found.get("version") != VERSION:
            raise MismatchError(
                f"{name} in {where} has version {found.get('version')!r}; this NeuronMap reads version {VERSION}."
            )
        if sealed(found, "listing_digest") != found:
            raise DamagedError(f"The listing of {name} in {where} was changed.", hint="Push the folder again.")
        files = {}
        for path, file in found["files"].items():
            if not _is_safe(path) or not _DIGEST.fullmatch(str(file["digest"])) or int(file["size"]) < 0:
                raise DamagedError(f"The listing of {name} in {where} names {path!r}, which is no file of a folder.")
            files[path] = RemoteFile(str(file["digest"]), int(file["size"]))
        return cls(name, files)


class RemoteFolders:
    """The folders in a bucket, or a part of one.

    Args:
        place: its URL, as :class:`~neuronmap.objects.Bucket` takes it; or a store.
    """

    def __init__(self, place: str | BlobStore) -> None:
        self.store: BlobStore = Bucket(place) if isinstance(place, str) else place
        self._compared: dict[Path, tuple[str, int, int]] = {}

    def __str__(self) -> str:
        return str(self.store)

    def listing(self, name: str) -> Listing | None:
        """The files of a folder; None where there is no such folder.

        Raises:
            DamagedError, MismatchError: it cannot be read.
            ResourceError, UnwritablePathError: the bucket cannot.
        """
        try:
            data = b"".join(self.store.get(_listing_key(name)))
        except FileNotFoundError:
            return None
        return Listing.from_bytes(name, data, str(self))

    def require(self, name: str) -> Listing:
        """The same, where there must be one.

        Raises:
            InputError: there is none; says which there are.
        """
        found = self.listing(name)
        if found is None:
            there = [other for other, _ in zip(self.names(), range(20), strict=False)]
            raise InputError(
                f"There is no {name!r} in {self}; there is {', '.join(there) or 'nothing'}.",
                hint="neuronmap sae push puts SAEs there.",
            )
        return found

    def names(self) -> Iterator[str]:
        """Every folder."""
        for found in self.store.list("folders/"):
            if found.key.endswith(f"/{_LISTING}"):
                yield found.key.removeprefix("folders/").removesuffix(f"/{_LISTING}")

    def push(
        self, name: str, folder: Path, files: Sequence[str], progress: Progress, *, again: bool = False
    ) -> Listing:
        """Put a folder into the bucket. Bytes that are there already do not travel again: what has the digest's name and the size.

        Args:
            name: what it is called there; what had this name before is replaced.
            folder: where it lies.
            files: which files, by path in the folder.
            progress: where the bar goes.
            again: send all bytes, in the place of what is there; for a bucket whose bytes were changed.

        Raises:
            InputError: a file that is not there, or a name that cannot be one.
            ResourceError, UnwritablePathError: the bucket cannot be written.
        """
        key = _listing_key(name)
        found = {}
        for path in sorted(files):
            file = folder / path
            if not file.is_file() or not _is_safe(path):
                raise InputError(f"{file} is no file that can be pushed.")
            found[path] = RemoteFile(digest_file(file), file.stat().st_size)
        listing = Listing(name, found)
        with progress.task(f"Pushing {name}", listing.size, "bytes") as task:
            for path, remote in found.items():
                if not again and self.store.size(_blob_key(remote.digest)) == remote.size:
                    task.advance(remote.size)
                else:
                    self.store.put(_blob_key(remote.digest), _checked_pieces(folder / path, remote, task))
        self.store.put(key, [listing.to_bytes()])
        return listing

    def fetch(self, listing: Listing, path: str, folder: Path, task: Task | None = None) -> Path:
        """Bring one file, compare its digest, and only then give it its name. A file that is there is compared as well, once by this
        object as long as its size and time stay; other bytes are replaced.

        Raises:
            InputError: the listing has no such file.
            DamagedError: other bytes are there than it says, or none.
            DiskSpaceError, UnwritablePathError, ResourceError: it cannot be written, or the bucket be read.
        """
        if path not in listing.files:
            raise InputError(f"{listing.name} in {self} has no file {path!r}.")
        remote, target = listing.files[path], folder / path
        if target.is_file() and self._is_it(target, remote):
            return target
        new_folder(target.parent)
        check_disk_space(target.parent, remote.size, f"{path} of {listing.name}", reserve=64 << 20)
        try:
            pieces = self.store.get(_blob_key(remote.digest))
        except FileNotFoundError:
            raise DamagedError(
                f"{path} of {listing.name} is missing in {self}.", hint="Push the folder again."
            ) from None
        state, size = hashlib.sha256(), 0
        with new_file(target) as file:
            for piece in pieces:
                state.update(piece)
                size += len(piece)
                if size > remote.size:
                    break
                file.write(piece)
                if task is not None:
                    task.advance(len(piece))
            if f"sha256:{state.hexdigest()}" != remote.digest:
                raise DamagedError(
                    f"{path} of {listing.name} in {self} has other bytes than its listing says.",
                    hint="Push the folder once more with --again: then all bytes travel.",
                )
        self._compared[target] = _seen(target, remote)
        return target

    def _is_it(self, file: Path, remote: RemoteFile) -> bool:
        """Has a file on the disk the bytes of the listing?"""
        if file.stat().st_size != remote.size:
            return False
        seen = _seen(file, remote)
        if self._compared.get(file) != seen:
            if digest_file(file) != remote.digest:
                return False
            self._compared[file] = seen
        return True

    def pull(self, listing: Listing, target: Path, progress: Progress) -> Path:
        """Bring a whole folder: all of it or nothing.

        Raises:
            FileExistsError, OSError: ``target`` is there.
            DamagedError, DiskSpaceError, UnwritablePathError, ResourceError: as for :meth:`fetch`.
        """
        check_disk_space(target.parent, listing.size, listing.name)
        with (
            staging_folder(target) as staging,
            progress.task(f"Pulling {listing.name}", listing.size, "bytes") as task,
        ):
            for path in listing.files:
                self.fetch(listing, path, staging, task)
        return target


def _checked_pieces(file: Path, remote: RemoteFile, task: Task) -> Iterator[bytes]:
    """A file's bytes; a file that changed since it was listed is not sent."""
    state = hashlib.sha256()
    with open(file, "rb") as stream:
        while piece := stream.read(_PIECE):
            state.update(piece)
            yield piece
            task.advance(len(piece))
    if f"sha256:{state.hexdigest()}" != remote.digest:
        raise MismatchError(f"{file} was changed while it was pushed.", hint="Push it again.")


def _is_safe(path: str) -> bool:
    """Whether a path stays in its folder, on every system."""
    return (
        bool(path)
        and "\\" not in path
        and not PurePosixPath(path).is_absolute()
        and all(_PART.fullmatch(part) for part in path.split("/"))
    )


def _listing_key(name: str) -> str:
    if not _is_safe(name):
        raise InputError(
            f"{name!r} cannot name a folder in a bucket.", hint="Letters, digits, . _ + - and / are allowed."
        )
    return f"folders/{name}/{_LISTING}"


def _blob_key(digest: str) -> str:
    value = digest.removeprefix("sha256:")
    return f"blobs/{value[:2]}/{value}"


def _seen(file: Path, remote: RemoteFile) -> tuple[str, int, int]:
    """What a comparison holds for."""
    found = file.stat()
    return remote.digest, found.st_size, found.st_mtime_ns
