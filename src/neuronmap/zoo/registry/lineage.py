"""What was made from what: a graph without cycles, since whatever a version is made from was there before it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from neuronmap.errors import InputError
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.people.principal import Principal
from neuronmap.zoo.registry.rows import seen, versions_joined
from neuronmap.zoo.tables import edges, search_documents, versions
from neuronmap.zoo.views import LineageEdge, LineageNode, LineageView

__all__ = ["MOST_DEPTH", "MOST_NODES", "lineage"]

MOST_DEPTH = 20
MOST_NODES = 500


def lineage(
    connection: Connection, principal: Principal, root: Any, *, depth: int = 3, up: bool = True, down: bool = True
) -> LineageView:
    """The graph around a version, breadth first.

    Args:
        connection: within a transaction.
        principal: of what it was made from, they see by its digest alone what they may not see; of what was made from it, nothing.
        root: row of the version.
        depth: edges from it at most, 1 to 20.
        up: follow what it was made from.
        down: follow what was made from it, or is about it.

    Raises:
        InputError: a depth out of range.
    """
    if not 1 <= depth <= MOST_DEPTH:
        raise InputError(f"depth = {depth}: 1 to {MOST_DEPTH} edges can be followed.")
    depths = {root.id: 0}
    links: set[tuple[int, int, str]] = set()
    truncated = False
    for direction in ([-1] if up else []) + ([1] if down else []):
        front = [root.id]
        for step in range(1, depth + 1):
            found = _links(connection, principal, front, direction)
            front = []
            for child, parent, role in found:
                other = parent if direction < 0 else child
                if other not in depths:
                    if len(depths) >= MOST_NODES:
                        truncated = True
                        continue
                    depths[other] = direction * step
                    front.append(other)
                links.add((child, parent, role))
            if not front:
                break
        else:
            truncated = truncated or bool(_links(connection, principal, front, direction))
    return _view(connection, principal, root, depths, links, truncated)


def _links(
    connection: Connection, principal: Principal, front: list[int], direction: int
) -> list[tuple[int, int, str]]:
    """Edges that leave some versions, towards parents (-1) or children (1)."""
    column = edges.c.version_id if direction < 0 else edges.c.parent_id
    found: list[tuple[int, int, str]] = []
    for first in range(0, len(front), 500):
        asked = select(edges).where(column.in_(front[first : first + 500]))
        if direction > 0:
            known = versions_joined().where(seen(principal, connection)).with_only_columns(versions.c.id)
            asked = asked.where(edges.c.version_id.in_(known))
        rows = connection.execute(
            asked.order_by(edges.c.version_id, edges.c.parent_id, edges.c.role).limit(4 * MOST_NODES)
        )
        found += [(row.version_id, row.parent_id, row.role) for row in rows]
    return found


def _view(
    connection: Connection,
    principal: Principal,
    root: Any,
    depths: dict[int, int],
    links: set[tuple[int, int, str]],
    truncated: bool,
) -> LineageView:
    numbers = list(depths)
    digests = {
        row.id: (Digest(row.digest), row.state)
        for row in connection.execute(
            select(versions.c.id, versions.c.digest, versions.c.state).where(versions.c.id.in_(numbers))
        )
    }
    titles = dict(
        connection.execute(
            select(search_documents.c.version_id, search_documents.c.title).where(
                search_documents.c.version_id.in_(numbers)
            )
        ).all()
    )
    known = {
        row.id: row
        for row in connection.execute(
            versions_joined().where(versions.c.id.in_(numbers), seen(principal, connection))
        ).all()
    }
    nodes = []
    for number, at in sorted(depths.items(), key=lambda item: (item[1], item[0])):
        digest, state = digests[number]
        row = known.get(number)
        nodes.append(
            LineageNode(
                digest=digest,
                reference=f"{row.namespace}/{row.name}@{row.label}" if row is not None else str(digest),
                kind=row.kind if row is not None else "",
                title=titles.get(number, "") if row is not None else "",
                state=state,
                depth=at,
            )
        )
    shown = [
        LineageEdge(child=digests[child][0], parent=digests[parent][0], role=role)
        for child, parent, role in sorted(links)
        if child in digests and parent in digests
    ]
    return LineageView(root=Digest(root.digest), nodes=tuple(nodes), edges=tuple(shown), truncated=truncated)
