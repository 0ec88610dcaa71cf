"""Where the bytes of artefacts lie: a folder, or an object store."""

from __future__ import annotations

from neuronmap.objects import BlobStore, StoredObject
from neuronmap.zoo.blobs.local import LocalBlobStore
from neuronmap.zoo.blobs.objects import ObjectBlobStore
from neuronmap.zoo.blobs.opening import blob_store, probe

__all__ = ["BlobStore", "LocalBlobStore", "ObjectBlobStore", "StoredObject", "blob_store", "probe"]
