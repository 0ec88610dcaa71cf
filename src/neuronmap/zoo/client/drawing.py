"""Lineage as text and as a picture. Both are drawn from a :class:`~neuronmap.zoo.views.LineageView`, whoever made it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from neuronmap.zoo.columns import in_columns
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.views import LineageNode, LineageView

__all__ = ["lineage_svg", "lineage_text"]

_WIDTH, _HEIGHT = 250, 54
_GAP_X, _GAP_Y = 90, 22
_COLOURS = {
    "published": "#4c6ef5",
    "draft": "#868e96",
    "deprecated": "#e8890c",
    "yanked": "#c92a2a",
    "deleted": "#495057",
}


def lineage_text(view: LineageView) -> str:
    """A tree: above what the version was made from, below what was made from it. What stands there already is not gone into again."""
    nodes = {node.digest: node for node in view.nodes}
    root = nodes[view.root]
    lines = [_named(root)]
    up, down = _links(view, -1), _links(view, 1)
    branches = [("made from", up)] if up.get(view.root) else []
    branches += [("made from it, or about it", down)] if down.get(view.root) else []
    for number, (title, links) in enumerate(branches):
        last = number == len(branches) - 1
        lines.append(f"{'└─' if last else '├─'} {title}")
        lines += _tree(view.root, links, nodes, "   " if last else "│  ", {view.root})
    if view.truncated:
        lines.append("... and more beyond the depth asked for")
    return "\n".join(lines)


def _links(view: LineageView, direction: int) -> dict[Digest, list[tuple[str, Digest]]]:
    """(role, other end) of each version's edges, towards parents (-1) or children (1)."""
    found: dict[Digest, list[tuple[str, Digest]]] = {}
    for edge in view.edges:
        here, there = (edge.child, edge.parent) if direction < 0 else (edge.parent, edge.child)
        found.setdefault(here, []).append((edge.role, there))
    return found


def _tree(
    digest: Digest,
    links: dict[Digest, list[tuple[str, Digest]]],
    nodes: dict[Digest, LineageNode],
    before: str,
    seen: set[Digest],
    left: int = 50,
) -> Iterator[str]:
    known = [(role, there) for role, there in links.get(digest, []) if there in nodes]
    for number, (role, there) in enumerate(known):
        last = number == len(known) - 1
        again = there in seen
        yield f"{before}{'└─' if last else '├─'} {role}: {_named(nodes[there])}{' (see above)' if again else ''}"
        if not again and left:
            seen.add(there)
            yield from _tree(there, links, nodes, before + ("   " if last else "│  "), seen, left - 1)


def _named(node: LineageNode) -> str:
    state = f", {node.state}" if node.state != "published" else ""
    return f"{node.reference} ({node.kind or 'not yours to see'}{state})"


def lineage_svg(view: LineageView) -> str:
    """A layered picture: to the left what a version was made from, to the right what was made from it. Texts are escaped; no script."""
    columns = in_columns(view)
    tallest = max(len(column) for column in columns)
    height = tallest * (_HEIGHT + _GAP_Y) + _GAP_Y
    width = len(columns) * (_WIDTH + _GAP_X) - _GAP_X + 40
    places: dict[Digest, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        top = (height - len(column) * (_HEIGHT + _GAP_Y) + _GAP_Y) / 2
        for row, node in enumerate(column):
            places[node.digest] = (20 + number * (_WIDTH + _GAP_X), top + row * (_HEIGHT + _GAP_Y))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}" '
        'role="img" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>Lineage of {_safe(next(node.reference for node in view.nodes if node.digest == view.root))}</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#868e96"/></marker></defs>',
    ]
    drawn = [edge for edge in view.edges if edge.parent in places and edge.child in places]
    parts += [_arrow(places[edge.parent], places[edge.child], edge.role) for edge in drawn]
    parts += [_box(places[node.digest], node, node.digest == view.root) for node in view.nodes]
    return "\n".join([*parts, "</svg>\n"])


def _arrow(start: tuple[float, float], end: tuple[float, float], role: str) -> str:
    x1, y1 = start[0] + _WIDTH, start[1] + _HEIGHT / 2
    x2, y2 = end[0], end[1] + _HEIGHT / 2
    if x2 < x1:  # both in one column, or against the direction: around the right side
        x2 = end[0] + _WIDTH
    middle = max((x1 + x2) / 2, x1 + 20)
    return (
        f'<path d="M{x1:g} {y1:g} C{middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}" fill="none" stroke="#868e96" '
        f'marker-end="url(#arrow)"/><text x="{(x1 + x2) / 2:g}" y="{(y1 + y2) / 2 - 4:g}" text-anchor="middle" '
        f'fill="#868e96" font-size="11">{_safe(role)}</text>'
    )


def _box(place: tuple[float, float], node: LineageNode, is_root: bool) -> str:
    x, y = place
    colour = _COLOURS.get(node.state, "#868e96")
    name = node.reference if len(node.reference) <= 36 else node.reference[:35] + "…"
    about = f"{node.kind or 'not yours to see'}{'' if node.state == 'published' else f', {node.state}'}"
    return (
        f'<g><title>{_safe(f"{node.reference}: {node.title}")}</title><rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'rx="6" fill="#fff" stroke="{colour}" stroke-width="{3 if is_root else 1.5}"/>'
        f'<text x="{x + 12:g}" y="{y + 23:g}" fill="#212529" font-weight="{700 if is_root else 400}">{_safe(name)}</text>'
        f'<text x="{x + 12:g}" y="{y + 41:g}" fill="{colour}" font-size="11">{_safe(about)}</text></g>'
    )


def _safe(text: str) -> str:
    return escape("".join(sign if sign.isprintable() else "?" for sign in text))
