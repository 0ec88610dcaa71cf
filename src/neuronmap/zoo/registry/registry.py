"""The registry: everything that the zoo can do, for one asker at a time. The embedded zoo, the server and the tests use it alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from neuronmap import paths
from neuronmap.database import Database, database_url
from neuronmap.errors import DamagedError, NotInZooError
from neuronmap.zoo.blobs import BlobStore, LocalBlobStore
from neuronmap.zoo.database import ZOO, private_folder
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import Principal
from neuronmap.zoo.registry.changing import Changing
from neuronmap.zoo.registry.housekeeping import Housekeeping
from neuronmap.zoo.registry.lineage import lineage
from neuronmap.zoo.registry.publishing import Publishing
from neuronmap.zoo.registry.rows import (
    artefact_row,
    find_version,
    latest_of,
    summaries,
    time_text,
    version_view,
    versions_joined,
)
from neuronmap.zoo.registry.uploading import Uploading
from neuronmap.zoo.search.compatible import CompatibilityPage, compatible
from neuronmap.zoo.search.facets import Facets, facets
from neuronmap.zoo.search.finding import find
from neuronmap.zoo.search.index import search_index
from neuronmap.zoo.search.query import CompatibilityQuery, Query
from neuronmap.zoo.tables import artefacts, files, namespaces, versions
from neuronmap.zoo.views import ArtefactView, FileView, LineageView, SearchPage, VersionView

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Registry"]


class Registry:
    """A zoo: a database and a store of blobs. Any number of processes may use the same one.

    Args:
        database: of the zoo.
        store: of the blobs.

    Attributes:
        uploading, publishing, changing, housekeeping: what it can do, by subject.
    """

    def __init__(self, database: Database, store: BlobStore) -> None:
        self.database, self.store = database, store
        self.uploading = Uploading(database, store)
        self.publishing = Publishing(database, store)
        self.changing = Changing(database)
        self.housekeeping = Housekeeping(database, store)
        self._index = search_index(database)

    @classmethod
    def embedded(cls, root: str | Path | None = None) -> Self:
        """The zoo in a folder: ``<root>/zoo.sqlite3`` and ``<root>/blobs``; made when first used.

        Args:
            root: its folder; ``<home>/zoo`` when left out.
        """
        folder = Path(root).expanduser() if root is not None else paths.home() / "zoo"
        private_folder(folder)
        url = database_url(ZOO, f"sqlite:///{folder / 'zoo.sqlite3'}")
        return cls(Database(ZOO, url), LocalBlobStore(folder / "blobs"))

    def close(self) -> None:
        """Give the database's connections back."""
        self.database.close()

    # --- looking -----------------------------------------------------------------------------------------------------------

    def show(self, principal: Principal, reference: Reference) -> VersionView:
        """A version, whole.

        Raises:
            NotInZooError: no such version, or not for them.
        """
        with self.database.read() as connection:
            return version_view(connection, principal, find_version(connection, principal, reference))

    def artefact(self, principal: Principal, namespace: str, name: str) -> ArtefactView:
        """An artefact and its versions: yanked and deleted ones too, drafts for writers.

        Raises:
            NotInZooError: no such artefact, or not for them.
        """
        with self.database.read() as connection:
            found = artefact_row(connection, principal, namespace, name)
            drafts = principal.may(connection, "write", found.namespace_id)
            asked = versions_joined().where(versions.c.artefact_id == found.id).order_by(versions.c.sort_key.desc())
            if not drafts:
                asked = asked.where(versions.c.state != "draft")
            rows = connection.execute(asked).all()
            if not rows:
                raise NotInZooError(f"There is no artefact {namespace}/{name} here, or you may not see it.")
            shown = summaries(connection, rows)
        latest = latest_of(rows)
        return ArtefactView(
            namespace=namespace,
            name=name,
            kind=found.kind,
            private=found.private,
            stars=found.stars,
            created=time_text(found.created_at),
            latest=latest.label if latest is not None else None,
            versions=tuple(shown),
            aliases={alias: one.label for one in shown for alias in one.aliases},
        )

    def manifest(self, principal: Principal, reference: Reference, *, pulled: bool = False) -> tuple[Digest, bytes]:
        """A version's manifest, byte for byte, and its digest.

        Args:
            principal: who asks.
            reference: the version.
            pulled: count it as a download.

        Raises:
            NotInZooError: no such version, or not for them.
            DamagedError: the database holds other bytes than were published.
        """
        with self.database.read() as connection:
            found = find_version(connection, principal, reference)
            data: bytes = connection.scalar(select(versions.c.manifest).where(versions.c.id == found.id)) or b""
        digest = Digest(found.digest)
        if Digest.of(data) != digest:
            raise DamagedError(
                f"The manifest of {found.namespace}/{found.name}@{found.label} is not the one that was published."
            )
        if pulled:
            with self.database.write() as connection:
                connection.execute(
                    update(versions).where(versions.c.id == found.id).values(downloads=versions.c.downloads + 1)
                )
        return digest, data

    def blob(
        self, principal: Principal, reference: Reference, path: str, start: int = 0, end: int | None = None
    ) -> tuple[Digest, int, Iterator[bytes]]:
        """A file of a version: its digest, its size, and its bytes from ``start`` to ``end``.

        Raises:
            NotInZooError: no such version or file, or not for them.
            DamagedError: the store has lost it.
        """
        found = self.file(principal, reference, path)
        return found.digest, found.size, self.open_blob(found.digest, start, end)

    def file(self, principal: Principal, reference: Reference, path: str) -> FileView:
        """What is known of a file of a version, without opening it.

        Raises:
            NotInZooError: no such version or file, or not for them.
        """
        with self.database.read() as connection:
            found = find_version(connection, principal, reference)
            row = connection.execute(select(files).where(files.c.version_id == found.id, files.c.path == path)).first()
        if row is None:
            deleted = "; it was deleted" if found.state == "deleted" else ""
            raise NotInZooError(f"{found.namespace}/{found.name}@{found.label} has no file {path!r}{deleted}.")
        return FileView(path=row.path, digest=Digest(row.digest), size=row.size_bytes, media_type=row.media_type)

    def open_blob(self, digest: Digest, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Bytes of a blob; whoever calls has made sure that the asker may read it.

        Raises:
            DamagedError: the store has lost it.
        """
        try:
            return self.store.get(digest.key, start, end)
        except FileNotFoundError:
            raise DamagedError(f"The zoo's store has lost {digest}.", hint="neuronmap zoo verify") from None

    def lineage(
        self, principal: Principal, reference: Reference, *, depth: int = 3, up: bool = True, down: bool = True
    ) -> LineageView:
        """What a version was made from, and what was made from it or is about it; see :func:`lineage`."""
        with self.database.read() as connection:
            root = find_version(connection, principal, reference)
            return lineage(connection, principal, root, depth=depth, up=up, down=down)

    def by_digest(self, principal: Principal, digest: Digest) -> list[Reference]:
        """What is known under the digest of a manifest, as far as the asker may see it."""
        from neuronmap.zoo.people.principal import visible

        with self.database.read() as connection:
            rows = connection.execute(
                select(namespaces.c.name.label("namespace"), artefacts.c.name)
                .join(artefacts, artefacts.c.namespace_id == namespaces.c.id)
                .join(versions, versions.c.artefact_id == artefacts.c.id)
                .where(versions.c.digest == digest, versions.c.state != "draft", visible(principal, connection))
            ).all()
        return [Reference(row.namespace, row.name, digest=digest) for row in rows]

    # --- searching -----------------------------------------------------------------------------------------------------------

    def search(self, principal: Principal, query: Query) -> SearchPage:
        """One page of what a search finds, as far as the asker may see it.

        Raises:
            InputError: the cursor was not made by this search.
        """
        with self.database.read() as connection:
            return find(connection, self._index, principal, query)

    def facets(self, principal: Principal, query: Query) -> Facets:
        """How many hits each kind, model, architecture and licence would leave of a search."""
        with self.database.read() as connection:
            return facets(connection, self._index, principal, query)

    def compatible(self, principal: Principal, query: CompatibilityQuery) -> CompatibilityPage:
        """Which SAEs fit a model and a place in it, the best first, with the reasons."""
        with self.database.read() as connection:
            return compatible(connection, principal, query)
