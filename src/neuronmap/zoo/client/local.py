"""A zoo in a folder of this machine, used without a server or an account."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from neuronmap.progress import Task
from neuronmap.zoo.client.backend import Opened
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import FileEntry
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.people import People
from neuronmap.zoo.people.principal import LOCAL
from neuronmap.zoo.registry.housekeeping import GRACE, Verified
from neuronmap.zoo.registry.registry import Registry
from neuronmap.zoo.search.compatible import CompatibilityPage
from neuronmap.zoo.search.query import CompatibilityQuery, Query
from neuronmap.zoo.views import (
    AliasMove,
    ArtefactView,
    LineageView,
    PublicationView,
    SearchPage,
    UploadView,
    VersionView,
)

__all__ = ["LocalBackend"]


class LocalBackend:
    """The registry in a folder, for whoever can write it.

    Args:
        root: its folder; made when first used.
    """

    is_remote = False
    most_piece = 16 << 20

    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = str(root)
        self.registry = Registry.embedded(root)

    def close(self) -> None:
        self.registry.close()

    def about(self) -> dict[str, Any]:
        return {"name": self.location, "neuronmap": version("neuronmap"), "protocol": 1, "features": []}

    # --- looking -----------------------------------------------------------------------------------------------------------

    def search(self, query: Query) -> SearchPage:
        return self.registry.search(LOCAL, query)

    def compatible(self, query: CompatibilityQuery) -> CompatibilityPage:
        return self.registry.compatible(LOCAL, query)

    def show(self, reference: Reference) -> VersionView:
        return self.registry.show(LOCAL, reference)

    def artefact(self, namespace: str, name: str) -> ArtefactView:
        return self.registry.artefact(LOCAL, namespace, name)

    def lineage(self, reference: Reference, *, depth: int, up: bool, down: bool) -> LineageView:
        return self.registry.lineage(LOCAL, reference, depth=depth, up=up, down=down)

    def alias_log(self, namespace: str, name: str) -> list[AliasMove]:
        return self.registry.changing.alias_log(LOCAL, namespace, name)

    def by_digest(self, digest: Digest) -> list[Reference]:
        return self.registry.by_digest(LOCAL, digest)

    def manifest(self, reference: Reference, *, pulled: bool = False) -> bytes:
        return self.registry.manifest(LOCAL, reference, pulled=pulled)[1]

    @contextmanager
    def open(self, reference: Reference, entry: FileEntry, start: int = 0) -> Iterator[Opened]:
        yield Opened(start, self.registry.blob(LOCAL, reference, entry.path, start)[2])

    # --- publishing --------------------------------------------------------------------------------------------------------

    def begin(self, namespace: str, size: int) -> PublicationView:
        return self.registry.uploading.begin(LOCAL, namespace, size)

    def publication(self, key: str) -> PublicationView:
        return self.registry.uploading.show(LOCAL, key)

    def abandon(self, key: str) -> None:
        self.registry.uploading.abandon(LOCAL, key)

    def missing(self, key: str, digests: Iterable[Digest]) -> list[Digest]:
        return self.registry.uploading.missing(LOCAL, key, digests)

    def start(self, key: str, digest: Digest, size: int) -> UploadView:
        return self.registry.uploading.start(LOCAL, key, digest, size)

    def append(self, upload: str, offset: int, piece: bytes) -> UploadView:
        return self.registry.uploading.append(LOCAL, upload, offset, [piece])

    def finish(self, upload: str) -> UploadView:
        return self.registry.uploading.finish(LOCAL, upload)

    def publish(self, key: str, manifest: bytes, *, draft: bool, private: bool) -> VersionView:
        return self.registry.publishing.publish(LOCAL, key, manifest, draft=draft, private=private)

    # --- changing ----------------------------------------------------------------------------------------------------------

    def release(self, reference: Reference) -> VersionView:
        return self.registry.publishing.release(LOCAL, reference)

    def deprecate(self, reference: Reference, reason: str, successor: Reference | None) -> VersionView:
        return self.registry.changing.deprecate(LOCAL, reference, reason, successor)

    def yank(self, reference: Reference, reason: str) -> VersionView:
        return self.registry.changing.yank(LOCAL, reference, reason)

    def restore(self, reference: Reference) -> VersionView:
        return self.registry.changing.restore(LOCAL, reference)

    def delete(self, reference: Reference, reason: str) -> VersionView:
        return self.registry.changing.delete(LOCAL, reference, reason)

    def set_private(self, namespace: str, name: str, private: bool) -> None:
        self.registry.changing.set_private(LOCAL, namespace, name, private)

    def set_alias(self, reference: Reference, alias: str, *, expected: str | None, reason: str) -> VersionView:
        return self.registry.changing.set_alias(LOCAL, reference, alias, expected=expected, reason=reason)

    def remove_alias(self, namespace: str, name: str, alias: str, *, expected: str | None, reason: str) -> None:
        self.registry.changing.remove_alias(LOCAL, namespace, name, alias, expected=expected, reason=reason)

    # --- people and housekeeping -------------------------------------------------------------------------------------------

    @cached_property
    def people(self) -> People:
        """What people say; those of a zoo in a folder have no names."""
        return People(self.registry.database)

    def whoami(self) -> dict[str, Any]:
        return self.people.me(LOCAL).to_dict()

    def star(self, namespace: str, name: str, wanted: bool) -> None:
        self.people.opinions.star(LOCAL, namespace, name, on=wanted)

    def comments(self, namespace: str, name: str) -> list[dict[str, Any]]:
        return [one.to_dict() for one in self.people.opinions.comments(LOCAL, namespace, name).comments]

    def comment(self, namespace: str, name: str, text: str, version: str | None) -> dict[str, Any]:
        return self.people.opinions.comment(LOCAL, namespace, name, text, version).to_dict()

    def verify_store(self, limit: int | None, task: Task) -> Verified:
        done = 0

        def shown(at: int, total: int) -> None:
            nonlocal done
            del total
            task.advance(at - done)
            done = at

        return self.registry.housekeeping.verify(limit=limit, progress=shown)

    def collect(self, *, dry_run: bool, grace: float | None) -> dict[str, Any]:
        found = self.registry.housekeeping.collect(dry_run=dry_run, grace=GRACE if grace is None else grace)
        return found.to_dict()
