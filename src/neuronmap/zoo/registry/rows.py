"""Finding artefacts and versions in the tables, as far as the asker may know of them, and showing them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select

from neuronmap.errors import NotInZooError
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.names import LATEST, Reference
from neuronmap.zoo.people.principal import Principal, visible
from neuronmap.zoo.tables import aliases, artefacts, edges, files, namespaces, users, versions
from neuronmap.zoo.versions import is_prerelease
from neuronmap.zoo.views import FileView, VersionSummary, VersionView

__all__ = [
    "artefact_row",
    "find_version",
    "latest_of",
    "seen",
    "summaries",
    "time_text",
    "version_view",
    "versions_joined",
]

_successor = versions.alias("successor")
_FOUND = ("published", "deprecated")


def time_text(seconds: float) -> str:
    """ISO 8601, UTC, of the database's seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def versions_joined() -> Select[Any]:
    """Versions with what is shown of them."""
    return (
        select(
            versions.c.id,
            versions.c.artefact_id,
            versions.c.label,
            versions.c.sort_key,
            versions.c.digest,
            versions.c.kind,
            versions.c.state,
            versions.c.reason,
            versions.c.size_bytes,
            versions.c.downloads,
            versions.c.created_at,
            versions.c.published_at,
            artefacts.c.name,
            artefacts.c.private,
            artefacts.c.stars,
            namespaces.c.name.label("namespace"),
            namespaces.c.id.label("namespace_id"),
            users.c.name.label("publisher"),
            _successor.c.label.label("successor_label"),
        )
        .join(artefacts, versions.c.artefact_id == artefacts.c.id)
        .join(namespaces, artefacts.c.namespace_id == namespaces.c.id)
        .outerjoin(users, versions.c.publisher_id == users.c.id)
        .outerjoin(
            _successor,  # nobody is led to a version that has itself been taken back since
            and_(versions.c.successor_id == _successor.c.id, _successor.c.state.in_(("published", "deprecated"))),
        )
    )


def seen(principal: Principal, connection: Connection) -> Any:
    """A condition on what :func:`versions_joined` joins: what the asker may know of. Drafts are seen by writers alone."""
    shown = visible(principal, connection)
    if principal.governs and "write" in principal.scopes:
        return shown
    own: list[int] = []
    if "write" in principal.scopes:
        roles = principal.roles(connection)
        own = [number for number, role in roles.items() if role in ("writer", "owner")]
    return and_(shown, or_(versions.c.state != "draft", namespaces.c.id.in_(own)))


def artefact_row(connection: Connection, principal: Principal, namespace: str, name: str) -> Any:
    """Row of an artefact that the asker may know of.

    Raises:
        NotInZooError: there is none, or not for them: the answer is the same.
    """
    found = connection.execute(
        select(artefacts, namespaces.c.name.label("namespace"))
        .join(namespaces, artefacts.c.namespace_id == namespaces.c.id)
        .where(namespaces.c.name == namespace, artefacts.c.name == name, visible(principal, connection))
    ).first()
    if found is not None and not principal.may(connection, "write", found.namespace_id):
        published = (
            select(versions.c.id).where(versions.c.artefact_id == found.id, versions.c.state != "draft").limit(1)
        )
        if connection.scalar(published) is None:  # only drafts so far
            found = None
    if found is None:
        raise NotInZooError(
            f"There is no artefact {namespace}/{name} here, or you may not see it.",
            hint="neuronmap zoo search finds what there is.",
        )
    return found


def find_version(connection: Connection, principal: Principal, reference: Reference) -> Any:
    """The version that a reference means.

    Drafts are seen by writers of the namespace alone. A yanked version is found by label or digest, never by ``latest`` or an alias.
    A deleted one is found by label or digest, too: what is left of it is its manifest.

    Raises:
        NotInZooError: says what there is instead.
    """
    artefact = artefact_row(connection, principal, reference.namespace, reference.name)
    drafts = principal.may(connection, "write", artefact.namespace_id)
    asked = versions_joined().where(versions.c.artefact_id == artefact.id)
    if reference.digest is not None:
        asked = asked.where(versions.c.digest == reference.digest)
    elif reference.label is not None:
        asked = asked.where(versions.c.label == reference.label)
    elif reference.alias != LATEST:
        asked = asked.join(aliases, aliases.c.version_id == versions.c.id).where(
            aliases.c.artefact_id == artefact.id, aliases.c.alias == reference.alias
        )
    else:
        rows = connection.execute(asked.where(versions.c.state.in_(_FOUND))).all()
        found = latest_of(rows)
        if found is None:
            raise NotInZooError(
                f"{reference.artefact} has no published version that 'latest' could mean.",
                hint="neuronmap zoo versions lists all; a yanked one is pulled by its exact label or digest.",
            )
        return found
    found = connection.execute(asked).first()
    if found is None or (found.state == "draft" and not drafts):
        raise NotInZooError(
            _no_version(connection, artefact, reference), hint=f"neuronmap zoo versions {reference.artefact}"
        )
    if found.state in ("yanked", "deleted") and not reference.exact:
        raise NotInZooError(
            f"{reference} is {found.state}{f': {found.reason}' if found.reason else ''}.",
            hint=f"It is {reference.artefact}@{found.label}; only its exact label or digest finds it.",
        )
    return found


def _no_version(connection: Connection, artefact: Any, reference: Reference) -> str:
    labels = connection.scalars(
        select(versions.c.label)
        .where(versions.c.artefact_id == artefact.id, versions.c.state.in_((*_FOUND, "yanked")))
        .order_by(versions.c.sort_key.desc())
        .limit(5)
    ).all()
    there = f"; there are {', '.join(labels)}" if labels else ""
    return f"{reference.artefact} has no version {reference.digest or reference.label or reference.alias}{there}."


def latest_of(rows: Sequence[Any]) -> Any | None:
    """What ``latest`` means: published before deprecated, final before pre-release, then the greatest label."""
    return max(
        (row for row in rows if row.state in _FOUND),
        key=lambda row: (row.state == "published", not is_prerelease(row.label), row.sort_key),
        default=None,
    )


def summaries(connection: Connection, rows: Iterable[Any]) -> list[VersionSummary]:
    """Rows of :func:`versions_joined`, to be shown in a list."""
    rows = list(rows)
    pointing: dict[int, list[str]] = {}
    for version_id, alias in connection.execute(
        select(aliases.c.version_id, aliases.c.alias)
        .where(aliases.c.version_id.in_([row.id for row in rows]))
        .order_by(aliases.c.alias)
    ):
        pointing.setdefault(version_id, []).append(alias)
    return [VersionSummary(**_summary(row, pointing.get(row.id, []))) for row in rows]


def _summary(row: Any, pointing: list[str]) -> dict[str, Any]:
    artefact = f"{row.namespace}/{row.name}"
    return {
        "reference": f"{artefact}@{row.label}",
        "label": row.label,
        "digest": row.digest,
        "state": row.state,
        "reason": row.reason,
        "successor": f"{artefact}@{row.successor_label}" if row.successor_label else None,
        "aliases": tuple(pointing),
        "size": row.size_bytes,
        "created": time_text(row.created_at),
        "published": time_text(row.published_at) if row.published_at is not None else None,
        "publisher": row.publisher,
    }


def version_view(connection: Connection, principal: Principal, row: Any) -> VersionView:
    """A version, whole, with what it was made from and what is said about it as far as the asker may see."""
    manifest = connection.scalar(select(versions.c.manifest).where(versions.c.id == row.id))
    listed = connection.execute(select(files).where(files.c.version_id == row.id).order_by(files.c.path)).all()
    known = versions_joined().where(seen(principal, connection))
    evidence = connection.execute(
        known.join(edges, edges.c.version_id == versions.c.id)
        .where(edges.c.parent_id == row.id, edges.c.role == "subject", versions.c.state.in_(_FOUND))
        .order_by(versions.c.id)
        .limit(100)
    ).all()
    parents: list[Row[Any]] = list(
        connection.execute(
            known.join(edges, edges.c.parent_id == versions.c.id)
            .where(edges.c.version_id == row.id, edges.c.role != "subject")
            .order_by(versions.c.id)
        ).all()
    )
    users_of = known.join(edges, edges.c.version_id == versions.c.id).where(
        edges.c.parent_id == row.id, edges.c.role != "subject", versions.c.state != "deleted"
    )
    used = connection.scalar(select(func.count()).select_from(users_of.distinct().subquery()))
    [own] = summaries(connection, [row])
    return VersionView(
        **dict(own),
        namespace=row.namespace,
        name=row.name,
        kind=row.kind,
        private=row.private,
        manifest=json.loads(manifest or b"{}"),
        files=tuple(
            FileView(path=file.path, digest=Digest(file.digest), size=file.size_bytes, media_type=file.media_type)
            for file in listed
            if row.state != "deleted"
        ),
        downloads=row.downloads,
        stars=row.stars,
        evidence=tuple(summaries(connection, evidence)),
        depends_on=tuple(summaries(connection, parents)),
        used_by=used or 0,
    )
