"""Opening a place for blobs by its location."""

from __future__ import annotations

from pathlib import Path

from neuronmap.errors import ConfigError
from neuronmap.zoo.blobs.local import LocalBlobStore
from neuronmap.zoo.blobs.objects import SCHEMES, ObjectBlobStore
from neuronmap.zoo.blobs.protocol import BlobStore

__all__ = ["blob_store"]


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
