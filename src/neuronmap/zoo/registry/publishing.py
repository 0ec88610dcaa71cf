"""Publishing: everything is there and checked, then one transaction makes it a version, or nothing does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from neuronmap.database import Database, now
from neuronmap.errors import AlreadyExistsError, DamagedError, ForbiddenError, InvalidManifestError
from neuronmap.saes.metadata import WEIGHTS_FILE
from neuronmap.zoo.blobs import BlobStore
from neuronmap.zoo.contents import Reader, check_contents
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.faults import Fault
from neuronmap.zoo.labels import LABELS_FILE, LABELS_FORMAT, label_lines, lines_of
from neuronmap.zoo.manifest import FileEntry, Manifest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import Principal, visible
from neuronmap.zoo.records import ExplanationsRecord
from neuronmap.zoo.registry.namespaces import namespace_for_writing, namespace_row, write_down
from neuronmap.zoo.registry.rows import find_version, version_view, versions_joined
from neuronmap.zoo.registry.uploading import hold_blobs, live_publication, require_room, usable_blobs
from neuronmap.zoo.search.documents import add_document, date_document, drop_document, refresh_newest
from neuronmap.zoo.tables import artefacts, edges, files, namespaces, publications, uploads, versions
from neuronmap.zoo.versions import sort_key
from neuronmap.zoo.views import VersionView

__all__ = ["Publishing"]


class Publishing:
    """Part of the registry.

    Args:
        database: of the zoo.
        store: of the blobs.
    """

    def __init__(self, database: Database, store: BlobStore) -> None:
        self.database, self.store = database, store

    def publish(
        self,
        principal: Principal,
        publication: str,
        manifest_bytes: bytes,
        *,
        draft: bool = False,
        private: bool = False,
    ) -> VersionView:
        """Make a version of what was sent. The same manifest again is the same version, whoever asks, however often.

        Args:
            principal: who publishes; needs the scope ``write`` in the namespace.
            publication: key of the publication under way.
            manifest_bytes: the manifest; kept byte for byte.
            draft: keep it from others, and let it be replaced, until it is released.
            private: for a new artefact: members of the namespace alone can see it.

        Raises:
            InvalidManifestError: lists every fault of the manifest, or of what is in the files.
            AlreadyExistsError: the label was published with another content, or the name belongs to another kind.
            QuotaError, NotInZooError, UnauthorizedError, ForbiddenError, DamagedError.
        """
        manifest = Manifest.parse(manifest_bytes)
        digest = Digest.of(manifest_bytes)
        with self.database.read() as connection:
            if not principal.is_local:  # before anything is said of what is there
                principal.require(connection, "write", namespace_row(connection, manifest.namespace))
            done = self._already(connection, principal, manifest, digest, draft)
            if done is not None:
                return done
            row = live_publication(connection, principal, publication)
            self._require_blobs(connection, principal, row, manifest)
        card = check_contents(manifest, self._reader)
        self._check_labels(principal, manifest)
        with self.database.write() as connection:
            owner = namespace_for_writing(connection, principal, manifest.namespace)
            self.database.lock(connection, owner.id)
            done = self._already(connection, principal, manifest, digest, draft)
            if done is not None:
                return done
            row = live_publication(connection, principal, publication)
            if row.namespace_id != owner.id:
                raise ForbiddenError(f"This publication was begun for another namespace than {manifest.namespace}.")
            hold_blobs(connection, [entry.digest for entry in manifest.files])
            self._require_blobs(connection, principal, row, manifest)
            artefact = self._artefact(connection, owner, manifest, private)
            self._replace_draft(connection, artefact, manifest)
            version = self._insert(connection, principal, artefact, manifest, manifest_bytes, digest, draft)
            require_room(connection, owner, 0, row.id)  # with what is really held now; raising undoes everything
            add_document(connection, version, manifest, card)
            refresh_newest(connection, artefact.id)
            connection.execute(delete(uploads).where(uploads.c.publication_id == row.id))
            connection.execute(delete(publications).where(publications.c.id == row.id))
            write_down(
                connection,
                principal,
                "draft" if draft else "publish",
                f"{manifest.artefact}@{manifest.version}",
                digest=digest,
            )
            found = connection.execute(versions_joined().where(versions.c.id == version)).one()
            return version_view(connection, principal, found)

    def release(self, principal: Principal, reference: Reference) -> VersionView:
        """Publish a draft as it is. One that is published already stays so.

        Raises:
            NotInZooError, UnauthorizedError, ForbiddenError.
        """
        with self.database.write() as connection:
            found = find_version(connection, principal, reference)
            owner = namespace_for_writing(connection, principal, reference.namespace)
            self.database.lock(connection, owner.id)
            if found.state == "draft":
                connection.execute(
                    update(versions)
                    .where(versions.c.id == found.id, versions.c.state == "draft")
                    .values(state="published", published_at=now(), changed_at=now())
                )
                date_document(connection, found.id)
                refresh_newest(connection, found.artefact_id)
                write_down(connection, principal, "publish", f"{reference.artefact}@{found.label}", digest=found.digest)
            found = connection.execute(versions_joined().where(versions.c.id == found.id)).one()
            return version_view(connection, principal, found)

    # --- steps -----------------------------------------------------------------------------------------------------------

    def _already(
        self, connection: Connection, principal: Principal, manifest: Manifest, digest: Digest, draft: bool
    ) -> VersionView | None:
        """The version, if exactly this was published before.

        Raises:
            AlreadyExistsError: the label means something else.
        """
        found = connection.execute(
            versions_joined().where(
                namespaces.c.name == manifest.namespace,
                artefacts.c.name == manifest.name,
                versions.c.label == manifest.version,
            )
        ).first()
        if found is None:
            return None
        if found.digest == digest and (
            found.state in ("published", "deprecated") or (found.state == "draft" and draft)
        ):
            return version_view(connection, principal, found)
        if found.state == "draft":
            return None
        what = "was deleted" if found.state == "deleted" else f"is {found.state} with another content ({found.digest})"
        if found.digest == digest:
            what = f"is {found.state}"
        raise AlreadyExistsError(
            f"{manifest.artefact}@{manifest.version} {what}; a label never means anything else.",
            hint="Publish it under a new version.",
        )

    def _require_blobs(self, connection: Connection, principal: Principal, row: Any, manifest: Manifest) -> None:
        have = usable_blobs(
            connection, principal, row.id, list(dict.fromkeys(entry.digest for entry in manifest.files))
        )
        faults = []
        for number, entry in enumerate(manifest.files):
            if entry.digest not in have:
                faults.append(Fault(f"files.{number}.digest", f"{entry.digest} ({entry.path}) was not sent"))
            elif have[entry.digest] != entry.size:
                faults.append(
                    Fault(f"files.{number}.size", f"it is {entry.size}, but {entry.path} has {have[entry.digest]}")
                )
        if faults:
            raise InvalidManifestError(faults)

    def _check_labels(self, principal: Principal, manifest: Manifest) -> None:
        """Labels must be of features that their SAE has, and acts of its weights.

        Raises:
            InvalidManifestError: lists every line that is none.
        """
        record = manifest.read_record()
        file = next((entry for entry in manifest.files if entry.path == LABELS_FILE), None)
        if not isinstance(record, ExplanationsRecord) or record.format != LABELS_FORMAT or file is None:
            return
        wanted = [one.digest for one in manifest.depends_on if one.role == "sae"]
        with self.database.read() as connection:
            found = connection.scalar(
                versions_joined()
                .with_only_columns(versions.c.manifest)
                .where(versions.c.digest.in_(wanted), versions.c.kind == "SAE_MODEL", visible(principal, connection))
                .limit(1)
            )
        sae = Manifest.parse(found) if found else None
        features = sae.record.get("d_sae") if sae else None
        weights = next((str(one.digest) for one in sae.files if one.path == WEIGHTS_FILE), None) if sae else None
        faults: list[Fault] = []
        for _ in label_lines(lines_of(self._reader(file)(0, None)), faults, features, weights):
            pass
        if faults:
            raise InvalidManifestError(
                [Fault(f"{file.path}, {place}", said) for place, said in faults], "What is in the files"
            )

    def _reader(self, entry: FileEntry) -> Reader:
        def read(start: int, end: int | None) -> Iterator[bytes]:
            try:
                return self.store.get(entry.digest.key, start, end)
            except FileNotFoundError:
                raise DamagedError(f"The zoo's store has lost {entry.digest}.", hint="neuronmap zoo verify") from None

        return read

    def _artefact(self, connection: Connection, owner: Any, manifest: Manifest, private: bool) -> Any:
        asked = select(artefacts).where(artefacts.c.namespace_id == owner.id, artefacts.c.name == manifest.name)
        found = connection.execute(asked).first()
        if found is None:
            connection.execute(
                insert(artefacts).values(
                    namespace_id=owner.id,
                    name=manifest.name,
                    kind=manifest.kind,
                    private=private,
                    stars=0,
                    created_at=now(),
                    updated_at=now(),
                )
            )
            return connection.execute(asked).one()
        if found.deleted_at is not None:
            raise AlreadyExistsError(
                f"{manifest.artefact} was deleted; its name is not given again.", hint="Publish it under another name."
            )
        if found.kind != manifest.kind:
            raise AlreadyExistsError(
                f"{manifest.artefact} is a {found.kind}, not a {manifest.kind}.", hint="Publish it under another name."
            )
        connection.execute(update(artefacts).where(artefacts.c.id == found.id).values(updated_at=now()))
        return found

    def _replace_draft(self, connection: Connection, artefact: Any, manifest: Manifest) -> None:
        old = connection.scalar(
            select(versions.c.id).where(
                versions.c.artefact_id == artefact.id, versions.c.label == manifest.version, versions.c.state == "draft"
            )
        )
        if old is not None:
            drop_document(connection, old)
            connection.execute(delete(edges).where(edges.c.version_id == old))
            connection.execute(delete(files).where(files.c.version_id == old))
            connection.execute(delete(versions).where(versions.c.id == old))

    def _insert(
        self,
        connection: Connection,
        principal: Principal,
        artefact: Any,
        manifest: Manifest,
        manifest_bytes: bytes,
        digest: Digest,
        draft: bool,
    ) -> int:
        parents = self._parents(connection, principal, manifest)
        made = connection.execute(
            insert(versions)
            .values(
                artefact_id=artefact.id,
                label=manifest.version,
                sort_key=sort_key(manifest.version),
                digest=digest,
                manifest=manifest_bytes,
                kind=manifest.kind,
                state="draft" if draft else "published",
                reason="",
                size_bytes=manifest.size,
                downloads=0,
                publisher_id=principal.user_id,
                created_at=now(),
                published_at=None if draft else now(),
                changed_at=now(),
            )
            .returning(versions.c.id)
        ).scalar_one()
        connection.execute(
            insert(files),
            [
                {
                    "version_id": made,
                    "path": entry.path,
                    "digest": entry.digest,
                    "size_bytes": entry.size,
                    "media_type": entry.media_type,
                }
                for entry in manifest.files
            ],
        )
        if parents:
            rows = [{"version_id": made, "parent_id": parent, "role": role} for parent, role in parents]
            connection.execute(insert(edges), rows)
        return int(made)

    def _parents(self, connection: Connection, principal: Principal, manifest: Manifest) -> list[tuple[int, str]]:
        """Rows of what it depends on and is about. They exist before it does, so the graph has no cycle."""
        wanted = [(dependency.digest, dependency.role) for dependency in manifest.depends_on]
        if manifest.subject is not None:
            wanted.append((manifest.subject, "subject"))
        found: list[tuple[int, str]] = []
        faults = []
        for number, (digest, role) in enumerate(wanted):
            row = connection.execute(
                versions_joined()
                .where(versions.c.digest == digest, visible(principal, connection))
                .order_by(versions.c.state == "deleted", versions.c.id)
            ).first()
            place = "subject" if role == "subject" else f"depends_on.{number}.digest"
            if row is None or row.state == "draft":
                faults.append(Fault(place, f"no published version here has the digest {digest}"))
            elif row.state == "deleted":
                faults.append(Fault(place, f"{row.namespace}/{row.name}@{row.label} was deleted"))
            elif role == "sae" and row.kind != "SAE_MODEL":
                faults.append(Fault(place, f"{row.namespace}/{row.name}@{row.label} is a {row.kind}, not an SAE_MODEL"))
            else:
                found.append((row.id, role))
        if faults:
            raise InvalidManifestError(faults)
        return list(dict.fromkeys(found))
