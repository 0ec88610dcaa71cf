"""Publications under way: quota kept free, files arriving in pieces, each hashed here before it counts.

    begin -> missing? -> start an upload -> pieces, each at the offset where the last one ended -> finish -> publish

A piece is an object of its own (``incoming/<upload>/<offset>``), so that any server of several may take the next one, and a crash
between the piece and its row is mended by sending the piece again. Whatever is left over is removed by the garbage collector.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from neuronmap.database import Database, now
from neuronmap.errors import DamagedError, InputError, NotInZooError, QuotaError, UploadError
from neuronmap.paths import human_bytes
from neuronmap.zoo.blobs import BlobStore
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.people.principal import Principal, visible
from neuronmap.zoo.registry.namespaces import namespace_for_writing
from neuronmap.zoo.registry.rows import time_text
from neuronmap.zoo.tables import artefacts, blobs, files, namespaces, publications, uploads, versions
from neuronmap.zoo.views import PublicationView, UploadView

__all__ = ["LIFETIME", "MOST_PIECE_BYTES", "Uploading", "live_publication", "used_bytes"]

LIFETIME = 7 * 24 * 3600.0
"""Seconds after its last piece for which a publication is kept."""
MOST_PIECE_BYTES = 64 << 20
_MOST_BYTES = 1 << 60


class Uploading:
    """Part of the registry.

    Args:
        database: of the zoo.
        store: of the blobs.
    """

    def __init__(self, database: Database, store: BlobStore) -> None:
        self.database, self.store = database, store

    def begin(self, principal: Principal, namespace: str, size: int) -> PublicationView:
        """Keep room for a publication.

        Args:
            principal: who publishes; needs the scope ``write`` in the namespace.
            namespace: where.
            size: bytes of the files that it will bring, equal ones counted once.

        Raises:
            UnauthorizedError, ForbiddenError, NotInZooError.
            QuotaError: they would not fit.
        """
        if not 0 <= size < _MOST_BYTES:
            raise InputError(f"A publication cannot have {size} bytes.")
        key = secrets.token_hex(16)
        with self.database.write() as connection:
            owner = namespace_for_writing(connection, principal, namespace)
            self.database.lock(connection, owner.id)
            require_room(connection, owner, size)
            moment = connection.scalar(select(now())) or 0.0
            connection.execute(
                insert(publications).values(
                    key=key,
                    namespace_id=owner.id,
                    user_id=principal.user_id,
                    reserved_bytes=size,
                    created_at=moment,
                    expires_at=moment + LIFETIME,
                )
            )
        return PublicationView(key=key, namespace=namespace, reserved=size, expires=time_text(moment + LIFETIME))

    def missing(self, principal: Principal, publication: str, digests: Iterable[Digest]) -> list[Digest]:
        """Which blobs still have to be sent. Those that others hold and the asker may not read are said to be missing, too."""
        wanted = list(dict.fromkeys(digests))
        with self.database.read() as connection:
            row = live_publication(connection, principal, publication)
            have = usable_blobs(connection, principal, row.id, wanted)
        return [digest for digest in wanted if digest not in have]

    def start(self, principal: Principal, publication: str, digest: Digest, size: int) -> UploadView:
        """Begin to send a blob, or go on: the answer says from where.

        Raises:
            QuotaError: more bytes than the publication keeps free.
        """
        if not 0 <= size < _MOST_BYTES:
            raise InputError(f"A file cannot have {size} bytes.")
        with self.database.write() as connection:
            row = live_publication(connection, principal, publication)
            self.database.lock(connection, row.namespace_id)
            found = connection.execute(
                select(uploads).where(uploads.c.publication_id == row.id, uploads.c.digest == digest)
            ).first()
            if found is None:
                coming = connection.scalar(
                    select(func.coalesce(func.sum(uploads.c.size_bytes), 0)).where(uploads.c.publication_id == row.id)
                )
                if int(coming or 0) + size > row.reserved_bytes:
                    raise QuotaError(
                        f"This publication keeps {human_bytes(row.reserved_bytes)} free; {human_bytes(size)} more than the "
                        f"{human_bytes(int(coming or 0))} that are coming do not fit.",
                        hint="Begin a publication with the bytes of all its files.",
                    )
                connection.execute(
                    insert(uploads).values(
                        key=secrets.token_hex(16),
                        publication_id=row.id,
                        digest=digest,
                        size_bytes=size,
                        received_bytes=0,
                        done=False,
                        created_at=now(),
                    )
                )
                found = connection.execute(
                    select(uploads).where(uploads.c.publication_id == row.id, uploads.c.digest == digest)
                ).one()
            elif found.size_bytes != size:
                raise UploadError(
                    f"{digest} was begun with {found.size_bytes} bytes, not {size}.", received=found.received_bytes
                )
            _prolong(connection, row.id)
        return upload_view(found)

    def append(self, principal: Principal, upload: str, offset: int, chunks: Iterable[bytes]) -> UploadView:
        """Add a piece. It must begin where the last one ended, and have 64 MiB at most.

        Raises:
            UploadError: another offset is due, or it is too long; ``received`` says from where to go on.
        """
        with self.database.read() as connection:
            row = self._upload(connection, principal, upload)
        if offset != row.received_bytes or row.done:
            raise UploadError(
                f"The next piece begins at byte {row.received_bytes}, not at {offset}.", received=row.received_bytes
            )
        most = min(MOST_PIECE_BYTES, row.size_bytes - offset)

        def bounded() -> Iterator[bytes]:
            length = 0
            for chunk in chunks:
                length += len(chunk)
                if length > most:
                    raise UploadError(f"The piece has more than the {most} bytes that may come.", received=offset)
                yield chunk

        length = self.store.put(_piece(row.key, offset), bounded())
        with self.database.write() as connection:
            moved = connection.execute(
                update(uploads)
                .where(uploads.c.id == row.id, uploads.c.received_bytes == offset, uploads.c.done.is_(False))
                .values(received_bytes=offset + length)
            )
            _prolong(connection, row.publication_id)
            found = connection.execute(select(uploads).where(uploads.c.id == row.id)).first()
        if found is None:
            raise NotInZooError("The upload was thrown away meanwhile.")
        if moved.rowcount != 1:  # another client of the same upload was first
            raise UploadError(f"The next piece begins at byte {found.received_bytes}.", received=found.received_bytes)
        return upload_view(found)

    def finish(self, principal: Principal, upload: str) -> UploadView:
        """Hash what arrived; if it is what was announced it becomes a blob.

        Raises:
            UploadError: pieces are missing.
            DamagedError: the bytes have another digest, or a collector without grace took them; the upload begins anew.
        """
        with self.database.read() as connection:
            row = self._upload(connection, principal, upload)
        if row.done:
            return upload_view(row)
        if row.received_bytes != row.size_bytes:
            raise UploadError(
                f"{row.received_bytes} of {row.size_bytes} bytes have arrived.", received=row.received_bytes
            )
        digest = Digest(row.digest)
        found, whole = self._assemble(row)
        if found != digest:
            self.store.delete(whole)
            return self._begin_anew(principal, upload, f"What arrived has the digest {found}, not {digest}.")
        try:
            with self.database.write() as connection:
                self.database.lock(connection, digest_lock(digest))  # not between a collector's look and its removal
                self.store.move(whole, digest.key)
                record_blob(connection, digest, row.size_bytes)
                connection.execute(update(uploads).where(uploads.c.id == row.id).values(done=True))
        except FileNotFoundError:
            return self._begin_anew(
                principal, upload, f"What arrived of {digest} was removed by a garbage collector without grace."
            )
        self._drop_pieces(row.key)
        return UploadView(key=row.key, digest=digest, size=row.size_bytes, received=row.size_bytes, done=True)

    def _begin_anew(self, principal: Principal, upload: str, why: str) -> UploadView:
        """What arrived is something else or gone, unless another request finished the upload meanwhile and took the pieces away.

        Raises:
            DamagedError: the upload begins anew.
        """
        with self.database.write() as connection:
            row = self._upload(connection, principal, upload)
            if row.done:
                return upload_view(row)
            self._drop_pieces(row.key)  # of all lengths: what comes next may be cut otherwise
            connection.execute(update(uploads).where(uploads.c.id == row.id).values(received_bytes=0))
        raise DamagedError(why, hint="Send it again from the start.")

    def _drop_pieces(self, upload: str) -> None:
        for piece in list(self.store.list(f"incoming/{upload}/")):
            self.store.delete(piece.key)

    def abandon(self, principal: Principal, publication: str) -> None:
        """Give up a publication; its unfinished uploads go at once, finished blobs with the next garbage collection."""
        with self.database.write() as connection:
            row = live_publication(connection, principal, publication)
            keys = connection.scalars(select(uploads.c.key).where(uploads.c.publication_id == row.id)).all()
            connection.execute(delete(uploads).where(uploads.c.publication_id == row.id))
            connection.execute(delete(publications).where(publications.c.id == row.id))
        for key in keys:
            self._drop_pieces(key)

    def show(self, principal: Principal, publication: str) -> PublicationView:
        """A publication and its uploads."""
        with self.database.read() as connection:
            row = live_publication(connection, principal, publication)
            owner = connection.scalar(select(namespaces.c.name).where(namespaces.c.id == row.namespace_id))
            found = connection.execute(
                select(uploads).where(uploads.c.publication_id == row.id).order_by(uploads.c.id)
            ).all()
        return PublicationView(
            key=row.key,
            namespace=str(owner),
            reserved=row.reserved_bytes,
            expires=time_text(row.expires_at),
            uploads=tuple(upload_view(one) for one in found),
        )

    def _upload(self, connection: Connection, principal: Principal, key: str) -> Any:
        found = connection.execute(select(uploads).where(uploads.c.key == key)).first()
        if found is None:
            raise NotInZooError("There is no such upload; its publication may have been finished or thrown away.")
        publication = connection.scalar(select(publications.c.key).where(publications.c.id == found.publication_id))
        live_publication(connection, principal, str(publication))
        return found

    def _assemble(self, row: Any) -> tuple[Digest, str]:
        """Join the pieces; their digest, and where they lie as one object."""
        state = hashlib.sha256()
        pieces = sorted(int(piece.key.rpartition("/")[2]) for piece in self.store.list(f"incoming/{row.key}/"))

        def joined() -> Iterator[bytes]:
            at = 0
            for number, offset in enumerate(pieces):
                if offset > at:
                    break
                after = pieces[number + 1] if number + 1 < len(pieces) else row.size_bytes
                try:
                    chunks = self.store.get(_piece(row.key, offset), 0, after - offset)
                except FileNotFoundError:  # another request finished or abandoned the upload
                    break
                for chunk in chunks:
                    state.update(chunk)
                    at += len(chunk)
                    yield chunk

        whole = f"temporary/{row.key}-{secrets.token_hex(4)}"
        self.store.put(whole, joined())
        return Digest(f"sha256:{state.hexdigest()}"), whole


def live_publication(connection: Connection, principal: Principal, key: str) -> Any:
    """Row of a publication of the asker's that has not run out.

    Raises:
        NotInZooError: there is none.
    """
    found = connection.execute(
        select(publications).where(publications.c.key == key, publications.c.expires_at > now())
    ).first()
    if found is None or (found.user_id != principal.user_id and not principal.is_local):
        raise NotInZooError("There is no such publication of yours; it may be finished, given up, or too old.")
    return found


def usable_blobs(
    connection: Connection, principal: Principal, publication_id: int, wanted: list[Digest]
) -> dict[str, int]:
    """Sizes of the blobs among ``wanted`` that the asker has sent in this publication or may read anyway."""
    found: dict[str, int] = {}
    for first in range(0, len(wanted), 500):
        part = wanted[first : first + 500]
        sent = (
            select(blobs.c.digest, blobs.c.size_bytes)
            .join(uploads, uploads.c.digest == blobs.c.digest)
            .where(uploads.c.publication_id == publication_id, uploads.c.done, blobs.c.digest.in_(part), blobs.c.sound)
        )
        readable = (
            select(blobs.c.digest, blobs.c.size_bytes)
            .join(files, files.c.digest == blobs.c.digest)
            .join(versions, versions.c.id == files.c.version_id)
            .join(artefacts, artefacts.c.id == versions.c.artefact_id)
            .join(namespaces, namespaces.c.id == artefacts.c.namespace_id)
            .where(
                blobs.c.digest.in_(part),
                blobs.c.sound,
                versions.c.state.in_(("published", "deprecated", "yanked")),
                visible(principal, connection),
            )
        )
        found.update({row.digest: row.size_bytes for row in connection.execute(sent.union(readable))})
    return found


def hold_blobs(connection: Connection, wanted: Iterable[Digest]) -> None:
    """Let no collector remove these until the transaction ends; what is gone already stays gone. SQLite has one writer at a time anyway."""
    digests = sorted(set(wanted))
    for first in range(0, len(digests), 500):
        part = select(blobs.c.digest).where(blobs.c.digest.in_(digests[first : first + 500]))
        connection.execute(part.order_by(blobs.c.digest).with_for_update(read=True))


def record_blob(connection: Connection, digest: Digest, size: int) -> None:
    """Write down that a blob is here and was hashed just now."""
    known = connection.execute(
        update(blobs).where(blobs.c.digest == digest).values(verified_at=now(), sound=True, size_bytes=size)
    )
    if known.rowcount == 0:
        from sqlalchemy.dialects import postgresql, sqlite

        dialect = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        connection.execute(
            dialect(blobs)
            .values(digest=digest, size_bytes=size, created_at=now(), verified_at=now(), sound=True)
            .on_conflict_do_nothing()
        )


def used_bytes(connection: Connection, namespace_id: int) -> int:
    """Bytes of the blobs that a namespace's versions refer to, equal ones counted once."""
    held = (
        select(files.c.digest, func.max(files.c.size_bytes).label("size"))
        .join(versions, versions.c.id == files.c.version_id)
        .join(artefacts, artefacts.c.id == versions.c.artefact_id)
        .where(artefacts.c.namespace_id == namespace_id, versions.c.state != "deleted")
        .group_by(files.c.digest)
        .subquery()
    )
    return int(connection.scalar(select(func.coalesce(func.sum(held.c.size), 0))) or 0)


def require_room(connection: Connection, namespace: Any, size: int, publication_id: int | None = None) -> None:
    """Refuse what does not fit beside what is there and what other publications keep free.

    Raises:
        QuotaError: with the figures.
    """
    if namespace.quota_bytes is None:
        return
    others = select(func.coalesce(func.sum(publications.c.reserved_bytes), 0)).where(
        publications.c.namespace_id == namespace.id, publications.c.expires_at > now()
    )
    if publication_id is not None:
        others = others.where(publications.c.id != publication_id)
    used, kept = used_bytes(connection, namespace.id), int(connection.scalar(others) or 0)
    if used + kept + size > namespace.quota_bytes:
        raise QuotaError(
            f"{namespace.name} may hold {human_bytes(namespace.quota_bytes)}: {human_bytes(used)} are used, {human_bytes(kept)} kept for "
            f"publications under way, and {human_bytes(size)} more do not fit.",
            hint="Delete versions, give up publications, or ask for a larger quota.",
        )


def digest_lock(digest: Digest) -> int:
    """Number of the database's lock on a blob."""
    return 1 << 44 | int(digest.hex[:10], 16)


def upload_view(row: Any) -> UploadView:
    """A row of ``uploads``."""
    return UploadView(
        key=row.key, digest=Digest(row.digest), size=row.size_bytes, received=row.received_bytes, done=bool(row.done)
    )


def _piece(upload: str, offset: int) -> str:
    return f"incoming/{upload}/{offset:016d}"


def _prolong(connection: Connection, publication_id: int) -> None:
    connection.execute(
        update(publications).where(publications.c.id == publication_id).values(expires_at=now() + LIFETIME)
    )
