"""The lineage graph as inline SVG, laid out on the server in columns: what a version was made from to the left, what came of it to the
right."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup, escape

from neuronmap.zoo.columns import in_columns
from neuronmap.zoo.views import LineageNode, LineageView

__all__ = ["draw_lineage"]

_WIDE, _TALL, _GAP_X, _GAP_Y, _MARGIN = 196, 46, 64, 16, 12
_MOST_LETTERS = 27


def draw_lineage(view: LineageView, link: Callable[[LineageNode], str]) -> Markup:
    """The picture; every node is a link, from left to right for the keyboard.

    Args:
        view: the graph.
        link: address of a node; empty for one that cannot be opened.
    """
    columns = in_columns(view)
    tallest = max(len(column) for column in columns)
    height = 2 * _MARGIN + tallest * _TALL + (tallest - 1) * _GAP_Y
    width = 2 * _MARGIN + len(columns) * _WIDE + (len(columns) - 1) * _GAP_X
    at: dict[str, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        top = (height - len(column) * _TALL - (len(column) - 1) * _GAP_Y) / 2
        for row, node in enumerate(column):
            at[node.digest] = (_MARGIN + number * (_WIDE + _GAP_X), top + row * (_TALL + _GAP_Y))
    parts = [
        _edge(at, edge.child, edge.parent, edge.role) for edge in view.edges if edge.child in at and edge.parent in at
    ]
    parts += [_node(node, at[node.digest], link(node)) for column in columns for node in column]
    return Markup(
        f'<svg class="lineage" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="group" '
        f'aria-label="What was made from what: {len(view.nodes)} versions">{"".join(parts)}</svg>'
    )


def _edge(at: dict[str, tuple[float, float]], child: str, parent: str, role: str) -> str:
    (x0, y0), (x1, y1) = at[parent], at[child]
    start, end = x0 + _WIDE, x1
    if x1 <= x0:  # within a column, or backwards: drawn around the left sides
        start, end = x0, x1
    bend = max(24.0, abs(end - start) / 2)
    first, second = (start + bend, end - bend) if x1 > x0 else (start - bend, end - bend)
    top, bottom = y0 + _TALL / 2, y1 + _TALL / 2
    path = f"M{start:.0f} {top:.0f}C{first:.0f} {top:.0f} {second:.0f} {bottom:.0f} {end:.0f} {bottom:.0f}"
    kind = " about" if role == "subject" else ""
    return (
        f'<path class="edge{kind}" d="{path}"><title>{escape("is about" if role == "subject" else role)}</title></path>'
    )


def _node(node: LineageNode, at: tuple[float, float], address: str) -> str:
    x, y = at
    name, _, label = node.reference.partition("@")
    hidden = not node.kind
    said = "a version that you may not see" if hidden else f"{node.kind} {node.reference}, {node.state}"
    first = "not visible to you" if hidden else _short(name)
    second = node.digest[7:19] if hidden else f"{label} · {node.kind.lower().replace('_', ' ')}"
    here = " here" if node.depth == 0 else ""
    inside = (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{_WIDE}" height="{_TALL}" rx="7"><title>{escape(said)}</title></rect>'
        f'<text x="{x + 10:.0f}" y="{y + 19:.0f}" class="name">{escape(first)}</text>'
        f'<text x="{x + 10:.0f}" y="{y + 36:.0f}">{escape(_short(second))}</text>'
    )
    group = f'class="node {escape(node.state)}{here}"'
    if not address:
        return f"<g {group}>{inside}</g>"
    current = ' aria-current="true"' if here else ""
    return f'<a {group} href="{escape(address)}" aria-label="{escape(said)}"{current}>{inside}</a>'


def _short(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"
