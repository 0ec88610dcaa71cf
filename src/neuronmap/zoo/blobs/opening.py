"""Opening a place for blobs by its location, and asking whether it works."""

from __future__ import annotations

import secrets
from pathlib import Path

from neuronmap.errors import ConfigError
from neuronmap.objects import SCHEMES, BlobStore
from neuronmap.zoo.blobs.local import LocalBlobStore
from neuronmap.zoo.blobs.objects import ObjectBlobStore

__all__ = ["blob_store", "probe"]


def blob_store(location: str | Path) -> BlobStore:
    """A store of blobs.

    Args:
        location: a folder, or the URL of a bucket as :class:`ObjectBlobStore` takes it.

    Raises:
        ConfigError: a URL of another kind.
        MissingDependencyError: a bucket without obstore.
    """
    if isinstance(location, str) and "://" in location:
        scheme = location.partition("://")[0]
        if scheme not in SCHEMES:
            raise ConfigError(
                f"{scheme}:// is no place for blobs: a folder is, or {', '.join(f'{one}://' for one in SCHEMES)}."
            )
        return ObjectBlobStore(location)
    return LocalBlobStore(Path(location).expanduser())


def probe(store: BlobStore, *, write: bool = False) -> None:
    """Ask a store for something, so that one that does not work is known before it is needed.

    A bucket that does not exist answers a question for one object as an empty one would; only a listing tells them apart.

    Args:
        store: what is asked.
        write: also write some bytes, and remove them again.

    Raises:
        ResourceError: it does not answer, or there is no such bucket.
        UnwritablePathError, DiskSpaceError: it may not be read or written, or is full.
    """
    key = f"temporary/probe-{secrets.token_hex(8)}"
    next(iter(store.list(f"{key}/")), None)
    if write:
        store.put(key, [b"probe"])
        store.delete(key)
