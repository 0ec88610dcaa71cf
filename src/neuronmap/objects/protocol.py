"""What is needed of a place that keeps bytes. A zoo's local folder and buckets pass the same contract test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

__all__ = ["BlobStore", "StoredObject"]


class StoredObject(NamedTuple):
    """An object in a store.

    Attributes:
        key: its key, parts separated by ``/``.
        size: bytes.
        modified: seconds since 1970, by the store's clock.
    """

    key: str
    size: int
    modified: float


class BlobStore(Protocol):
    """Seven operations. Keys are made by NeuronMap itself, from checked digests and names and its own random ones; never by a client."""

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """Write an object: readers see all of it, or what was there before. Returns its size.

        If ``chunks`` raises, nothing is written and the error goes on.

        Raises:
            DiskSpaceError, UnwritablePathError, ResourceError.
        """
        ...

    def get(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Bytes ``start`` to ``end`` (not included; None: to the last), in pieces of at most a MiB or so.

        Raises:
            FileNotFoundError: there is no such object (raised by the call, not by the first piece).
        """
        ...

    def size(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""
        ...

    def move(self, source: str, target: str) -> None:
        """Give an object another key; one that is there already is replaced by the same bytes.

        Raises:
            FileNotFoundError: there is no such object.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        ...

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key begins with the prefix (a whole part, such as ``incoming/``)."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The file that is the object, where objects are files of this machine; else None. It may be missing, and is not to be written."""
        ...

    def __str__(self) -> str:
        """Where it is, for people; without secrets."""
        ...
