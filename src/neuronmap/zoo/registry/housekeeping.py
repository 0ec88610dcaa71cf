"""Garbage collection and verification.

The collector marks what is needed from the database, then removes what has lain unneeded for longer than a publication can live. One
collector works at a time (a lease in the database); a dry run says what would go. Nothing is removed that a publication under way may use.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import delete, insert, or_, select, update

from neuronmap.database import Database, now
from neuronmap.errors import ConfigError, ResourceError
from neuronmap.zoo.blobs import BlobStore
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.document import Document
from neuronmap.zoo.registry.uploading import LIFETIME, digest_lock
from neuronmap.zoo.tables import blobs, files, leases, publications, uploads

__all__ = ["Collected", "Housekeeping", "Verified"]

GRACE = 2 * LIFETIME
"""Seconds for which a blob that nothing refers to is kept: longer than any publication lives without a new piece."""
_LEASE_SECONDS = 3600.0

Progress = Callable[[int, int], None]


class Collected(Document):
    """What a garbage collection removed, or would remove."""

    dry_run: bool
    """Whether nothing was removed."""
    blobs: int
    """Blobs that no version refers to."""
    blob_bytes: int
    """Their bytes."""
    publications: int
    """Publications that ran out."""
    leftovers: int
    """Pieces of uploads and temporary files that belong to nothing."""
    leftover_bytes: int
    """Their bytes."""
    kept_young: int
    """Unneeded blobs that are too young to go."""


class Verified(Document):
    """What a verification found."""

    checked: int
    """Blobs that were hashed."""
    checked_bytes: int
    """Their bytes."""
    damaged: tuple[Digest, ...]
    """Blobs whose bytes have another digest."""
    missing: tuple[Digest, ...]
    """Blobs that a version needs and the store has not."""
    repaired: tuple[Digest, ...]
    """Blobs that were marked damaged, and are sound again."""

    @property
    def sound(self) -> bool:
        """Whether everything is as it should be."""
        return not self.damaged and not self.missing


class Housekeeping:
    """Part of the registry.

    Args:
        database: of the zoo.
        store: of the blobs.
    """

    def __init__(self, database: Database, store: BlobStore) -> None:
        self.database, self.store = database, store

    def collect(self, *, dry_run: bool = True, grace: float = GRACE) -> Collected:
        """Remove what nothing needs.

        Args:
            dry_run: only say what would go.
            grace: seconds for which unneeded blobs are kept; less than two weeks is safe only while nobody publishes.

        Raises:
            ResourceError: another collector is at work.
        """
        if grace < 0:
            raise ConfigError(f"grace = {grace}: it cannot be negative.")
        holder = secrets.token_hex(16)
        self._take(holder)
        try:
            return self._collect(dry_run, grace)
        finally:
            with self.database.write() as connection:
                connection.execute(delete(leases).where(leases.c.name == "gc", leases.c.holder == holder))

    def _take(self, holder: str) -> None:
        with self.database.write() as connection:
            self.database.lock(connection, 1)
            connection.execute(delete(leases).where(leases.c.name == "gc", leases.c.until < now()))
            if connection.scalar(select(leases.c.holder).where(leases.c.name == "gc")) is not None:
                raise ResourceError(
                    "Another garbage collection is at work.", hint="Wait for its end (an hour at most)."
                )
            connection.execute(insert(leases).values(name="gc", holder=holder, until=now() + _LEASE_SECONDS))

    def _collect(self, dry_run: bool, grace: float) -> Collected:
        with self.database.write() as connection:
            moment = float(connection.scalar(select(now())) or 0.0)
            old = select(publications.c.id).where(publications.c.expires_at < moment)
            count = len(connection.execute(old).all())
            if not dry_run:
                connection.execute(delete(uploads).where(uploads.c.publication_id.in_(old)))
                connection.execute(delete(publications).where(publications.c.expires_at < moment))
            live_keys = set(connection.scalars(select(uploads.c.key).where(uploads.c.publication_id.not_in(old))).all())
            unneeded = connection.execute(
                select(blobs.c.digest, blobs.c.size_bytes, blobs.c.verified_at).where(self._is_unneeded(old))
            ).all()
        due = [row for row in unneeded if row.verified_at <= moment - grace]
        if not dry_run:
            for row in due:
                self._remove(Digest(row.digest), moment - grace)
        leftovers, leftover_bytes = self._leftovers(live_keys, grace, dry_run)
        return Collected(
            dry_run=dry_run,
            blobs=len(due),
            blob_bytes=sum(row.size_bytes for row in due),
            publications=count,
            leftovers=leftovers,
            leftover_bytes=leftover_bytes,
            kept_young=len(unneeded) - len(due),
        )

    def _is_unneeded(self, old: Any) -> Any:
        """Blobs that neither a version nor an upload of a living publication refers to."""
        return blobs.c.digest.not_in(select(files.c.digest)) & blobs.c.digest.not_in(
            select(uploads.c.digest).where(uploads.c.publication_id.not_in(old))
        )

    def _remove(self, digest: Digest, before: float) -> None:
        """Row and object, under the blob's lock and after another look: whoever publishes next finds no blob, and sends it."""
        with self.database.write() as connection:
            self.database.lock(connection, digest_lock(digest))
            # Wait for publications that hold it; what they wrote is seen by the next statement.
            connection.execute(select(blobs.c.digest).where(blobs.c.digest == digest).with_for_update())
            old = select(publications.c.id).where(publications.c.expires_at < now())
            gone = connection.execute(
                delete(blobs).where(blobs.c.digest == digest, blobs.c.verified_at <= before, self._is_unneeded(old))
            )
            if gone.rowcount:
                self.store.delete(digest.key)

    def _leftovers(self, live_keys: set[str], grace: float, dry_run: bool) -> tuple[int, int]:
        """Objects that no row stands for: pieces of dead uploads, temporary files, blobs without a row."""
        count = size = 0
        with self.database.read() as connection:
            known = {Digest(value).key for value in connection.scalars(select(blobs.c.digest))}
            moment = float(connection.scalar(select(now())) or 0.0)
        for found in list(self.store.list()):
            first, _, rest = found.key.partition("/")
            if first == "incoming":
                dead = rest.partition("/")[0] not in live_keys
            else:
                dead = found.key not in known
            if dead and found.modified <= moment - grace:
                count += 1
                size += found.size
                if not dry_run:
                    self.store.delete(found.key)
        return count, size

    def verify(self, *, progress: Progress | None = None, limit: int | None = None) -> Verified:
        """Hash every blob that a version refers to, those first whose last verification is the oldest.

        Args:
            progress: told (bytes so far, bytes of all).
            limit: blobs at most.
        """
        with self.database.read() as connection:
            in_use = select(files.c.digest)  # the time of the others says since when they lie here unneeded
            rows = connection.execute(
                select(blobs)
                .where(blobs.c.digest.in_(in_use))
                .order_by(blobs.c.verified_at, blobs.c.digest)
                .limit(limit)
            ).all()
            lost = select(files.c.digest).distinct().where(files.c.digest.not_in(select(blobs.c.digest)))
            missing = [Digest(digest) for digest in sorted(connection.scalars(lost).all())]
        total, at, checked = sum(row.size_bytes for row in rows), 0, 0
        damaged, repaired = [], []
        for row in rows:
            digest = Digest(row.digest)
            state, size = hashlib.sha256(), 0
            pieces = self._pieces(digest)
            if pieces is None:
                missing.append(digest)
                self._mark(digest, False)
                continue
            for piece in pieces:
                state.update(piece)
                size += len(piece)
                if progress is not None:
                    progress(at + size, total)
            sound = state.hexdigest() == digest.hex and size == row.size_bytes
            checked, at = checked + 1, at + size
            if not sound:
                damaged.append(digest)
            elif not row.sound:
                repaired.append(digest)
            self._mark(digest, sound)
        return Verified(
            checked=checked, checked_bytes=at, damaged=tuple(damaged), missing=tuple(missing), repaired=tuple(repaired)
        )

    def _pieces(self, digest: Digest) -> Iterator[bytes] | None:
        try:
            return self.store.get(digest.key)
        except FileNotFoundError:
            return None

    def _mark(self, digest: Digest, sound: bool) -> None:
        with self.database.write() as connection:
            connection.execute(
                update(blobs)
                .where(blobs.c.digest == digest, or_(blobs.c.sound.is_not(sound), blobs.c.verified_at < now()))
                .values(sound=sound, verified_at=now())
            )
