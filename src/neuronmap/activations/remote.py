"""Activation stores in a bucket: pushed whole, read shard by shard through a folder of this host.

    <home>/cache/remote/<digest of the listing>/   files that were fetched so far, each compared with its digest first

Shape legend: N rows, W width of the hook.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from neuronmap.activations.store import MANIFEST, STATISTICS, ActivationStore, read_manifest
from neuronmap.errors import DamagedError
from neuronmap.hashing import short
from neuronmap.objects import Listing, RemoteFolders
from neuronmap.paths import cache_folder
from neuronmap.progress import Progress

__all__ = ["PREFIX", "RemoteActivationStore", "push_store"]

PREFIX = "activations"
"""Stores are ``activations/<folder name>`` in a bucket."""


class RemoteActivationStore(ActivationStore):
    """A store in a bucket. A shard is fetched when a row of it is first read, and stays in the cache.

    Opened with :meth:`find`.
    """

    _place: RemoteFolders
    _listing: Listing

    @classmethod
    def find(cls, place: RemoteFolders, name: str, cache: Path | None = None) -> Self | None:
        """Open a store; None where the bucket has none of that name.

        Args:
            place: the bucket.
            name: the store's folder name.
            cache: where its files go; default is the cache under the NeuronMap home.

        Raises:
            DamagedError: the store is not as it says.
            MismatchError: it is of a version that is not known here.
            ResourceError, UnwritablePathError: the bucket cannot be read, or the cache not be written.
        """
        listing = place.listing(f"{PREFIX}/{name}")
        if listing is None:
            return None
        folder = (cache or cache_folder("remote")) / short(listing.digest, 16)
        for file in (MANIFEST, STATISTICS):
            place.fetch(listing, file, folder)
        store = cls(folder, read_manifest(folder))
        store._place, store._listing = place, listing
        store._check_listing()
        return store

    @property
    def name(self) -> str:
        """Name of the folder in the bucket."""
        return self._listing.name.removeprefix(f"{PREFIX}/")

    def __str__(self) -> str:
        return f"{self.name} in {self._place}"

    def _check_listing(self) -> None:
        """Every shard is in the bucket, with the digest that the manifest has."""
        expected = {STATISTICS: str(self.manifest["statistics_sha256"])}
        for number, shard in enumerate(self.manifest["shards"]):
            for part in self.row_format.files(self.path, number, self.width):
                expected[part.path.name] = str(shard[f"{part.kind}_sha256"])
        wrong = [name for name, digest in expected.items() if self._digest_of(name) != digest]
        if wrong:
            raise DamagedError(
                f"The activation store {self._listing.name} in {self._place} is damaged: {', '.join(wrong[:3])} is missing or changed.",
                hint="Push it again.",
            )

    def _digest_of(self, name: str) -> str | None:
        found = self._listing.files.get(name)
        return None if found is None else found.digest

    def _present(self, file: Path) -> Path:
        return self._place.fetch(self._listing, file.name, self.path)


def push_store(store: ActivationStore, place: RemoteFolders, progress: Progress, *, again: bool = False) -> Listing:
    """Put a store into a bucket; what is there already does not travel again.

    Args:
        store: the store, on this host.
        place: the bucket.
        progress: where the bar goes.
        again: send all bytes, also those that seem to be there.
    """
    files = [MANIFEST, STATISTICS]
    for number in range(len(store.manifest["shards"])):
        files += [part.path.name for part in store.row_format.files(store.path, number, store.width)]
    return place.push(f"{PREFIX}/{store.path.name}", store.path, files, progress, again=again)
