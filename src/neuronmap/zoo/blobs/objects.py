"""A zoo's blobs in an object store; the keys are those of the folder (:mod:`neuronmap.zoo.blobs.local`)."""

from __future__ import annotations

from neuronmap.objects import Bucket

__all__ = ["ObjectBlobStore"]


class ObjectBlobStore(Bucket):
    """A bucket, or a part of one, that holds the blobs of a zoo; see :class:`~neuronmap.objects.Bucket`."""

    what = "the zoo's store"
    whose = "A zoo's blobs"
