"""A mirror: versions of another zoo in one of our own, with the same manifests, byte for byte, and so the same digests and names.

What a version was made from comes before it. Namespaces that a mirror makes are marked (kind ``mirror``), and nothing else is published
in them from here: a label there belongs to the zoo that it comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import insert, select

from neuronmap.database import now
from neuronmap.errors import AlreadyExistsError, ForbiddenError, NotInZooError
from neuronmap.progress import Progress
from neuronmap.zoo.client.local import LocalBackend
from neuronmap.zoo.client.preparing import Prepared
from neuronmap.zoo.client.publishing import send
from neuronmap.zoo.client.pulling import Puller, Resolved
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.tables import namespaces

__all__ = ["MOST_MIRRORED", "Mirrored", "mirror", "require_no_mirror"]

_MIRROR = "mirror"
MOST_MIRRORED = 10_000
"""Versions that are copied at once, dependencies counted."""


class Mirrored(NamedTuple):
    """One version that is here now.

    Attributes:
        reference: ``namespace/name@label``.
        digest: of its manifest.
        was_here: whether nothing had to be copied.
    """

    reference: str
    digest: Digest
    was_here: bool


def mirror(upstream: Puller, local: Puller, references: list[Reference], *, progress: Progress) -> list[Mirrored]:
    """Copy versions, and all that they were made from, into a zoo in a folder.

    Args:
        upstream: of the zoo to copy from.
        local: of the zoo in a folder.
        references: what to copy.
        progress: says what is copied.

    Returns:
        In the order in which they came: dependencies first.

    Raises:
        NotInZooError: a version, or what it was made from, is not there, or not for the asker.
        AlreadyExistsError: a label means something else here.
    """
    done: dict[Digest, Mirrored] = {}
    waiting: list[tuple[Resolved, bool]] = [(upstream.resolve(one), False) for one in reversed(references)]
    steps = 0
    while waiting:
        resolved, parents_done = waiting.pop()
        if resolved.digest in done:
            continue
        steps += 1
        if steps > MOST_MIRRORED:
            raise ForbiddenError(f"More than {MOST_MIRRORED:,} versions would be copied.", hint="Mirror fewer at once.")
        if not parents_done:
            waiting.append((resolved, True))
            waiting += [(_parent(upstream, digest), False) for digest in _parents(resolved) if digest not in done]
            continue
        done[resolved.digest] = _copy(upstream, local, resolved, progress)
    return list(done.values())


def _parents(resolved: Resolved) -> list[Digest]:
    manifest = resolved.manifest
    subject = [manifest.subject] if manifest.subject is not None else []
    return [one.digest for one in manifest.depends_on] + subject


def _parent(upstream: Puller, digest: Digest) -> Resolved:
    found = upstream.backend.by_digest(digest)
    if not found:
        raise NotInZooError(
            f"{upstream.backend.location} does not have {digest}, which others were made from, or you may not see it."
        )
    return upstream.resolve(found[0])


def _copy(upstream: Puller, local: Puller, resolved: Resolved, progress: Progress) -> Mirrored:
    backend = local.backend
    if not isinstance(backend, LocalBackend):
        raise ForbiddenError("A mirror is a zoo in a folder of this machine.")
    try:
        known = backend.show(resolved.reference)
        was_here = known.state in ("published", "deprecated", "yanked")
    except NotInZooError:
        was_here = False
    if not was_here:
        _mark(backend, resolved.reference.namespace, upstream.backend.location)
        upstream.fetch(resolved, progress)
        files = {entry.digest: upstream.cache.path(entry.digest) for entry in resolved.manifest.files}
        prepared = Prepared(resolved.manifest, resolved.data, files)
        send(local, prepared, draft=False, private=False, progress=progress, parents_known=True)
        for digest in files:
            upstream.cache.drop(digest)  # the mirror has it now
    _same_state(backend, resolved)
    return Mirrored(resolved.name, resolved.digest, was_here)


def _same_state(backend: LocalBackend, resolved: Resolved) -> None:
    """Deprecated or yanked there, so here."""
    known = backend.show(resolved.reference)
    exact = Reference(known.namespace, known.name, label=known.label)
    if known.state == resolved.state and known.reason == resolved.reason:
        return
    if resolved.state == "yanked":
        backend.yank(exact, resolved.reason)
    elif resolved.state == "deprecated":
        successor = Reference.parse(resolved.successor) if resolved.successor else None
        backend.deprecate(exact, resolved.reason, _here(backend.show, successor))
    elif resolved.state == "published" and known.state in ("deprecated", "yanked"):
        backend.restore(exact)


def _here(show: Callable[[Reference], object], successor: Reference | None) -> Reference | None:
    """The successor, if it was copied too."""
    if successor is None:
        return None
    try:
        show(successor)
    except NotInZooError:
        return None
    return successor


def _mark(backend: LocalBackend, name: str, location: str) -> None:
    """Make a namespace of the mirror's, unless there is one."""
    with backend.registry.database.write() as connection:
        if connection.scalar(select(namespaces.c.id).where(namespaces.c.name == name)) is None:
            connection.execute(
                insert(namespaces).values(name=name, kind=_MIRROR, title=location[:200], created_at=now())
            )


def require_no_mirror(backend: LocalBackend, name: str) -> None:
    """Refuse to publish in a namespace that belongs to another zoo.

    Raises:
        AlreadyExistsError: says whose it is.
    """
    with backend.registry.database.read() as connection:
        found = connection.execute(select(namespaces).where(namespaces.c.name == name)).first()
    if found is not None and found.kind == _MIRROR:
        raise AlreadyExistsError(
            f"The namespace {name} here is a mirror of {found.title}: its labels belong to that zoo.",
            hint="Publish there, or under another namespace.",
        )
