"""A lineage in columns, for whoever draws it: what a version was made from to the left, what came of it to the right."""

from __future__ import annotations

from collections import defaultdict

from neuronmap.zoo.views import LineageNode, LineageView

__all__ = ["in_columns"]


def in_columns(view: LineageView) -> list[list[LineageNode]]:
    """Columns from left to right, each from top to bottom.

    From the root outwards, nodes stand in the order of the middle of what they are linked to, so that few edges cross.
    """
    columns: dict[int, list[LineageNode]] = defaultdict(list)
    linked: dict[str, set[str]] = defaultdict(set)
    for node in view.nodes:
        columns[node.depth].append(node)
    for edge in view.edges:
        linked[edge.child].add(edge.parent)
        linked[edge.parent].add(edge.child)
    place: dict[str, float] = {}

    def middle(node: LineageNode) -> tuple[float, str]:
        near = [place[other] for other in linked[node.digest] if other in place]
        return (sum(near) / len(near) if near else 0.0, node.reference)

    for depth in sorted(columns, key=abs):
        column = columns[depth]
        column.sort(key=middle)
        place.update({node.digest: row - len(column) / 2 for row, node in enumerate(column)})
    return [columns[depth] for depth in sorted(columns)]
