"""A small graph as inline SVG, laid out on the server: the same graph always looks the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from pydantic import BaseModel, Field

__all__ = ["Edge", "Node", "draw", "place"]

_WIDE, _TALL = 720, 460
_MARGIN_X, _MARGIN_Y = 70, 30
_NAMED = 8


class Node(BaseModel):
    """A node: a feature."""

    feature: int
    label: str
    step: int = Field(description="Steps from the middle: 0, 1 or 2.")


class Edge(BaseModel):
    """An edge between two nodes."""

    a: int = Field(description="Feature at one end.")
    b: int = Field(description="Feature at the other.")
    value: float = Field(description="Cosine or Jaccard index.")


def place(nodes: Sequence[Node], edges: Sequence[Edge]) -> npt.NDArray[np.float64]:
    """float64 [K, 2] in the unit square: the first node in the middle, linked ones near each other (Fruchterman and Reingold 1991)."""
    count = len(nodes)
    if count < 2:
        return np.full((count, 2), 0.5)
    at = {node.feature: number for number, node in enumerate(nodes)}
    pull_KK = np.zeros((count, count))
    for edge in edges:
        pull_KK[at[edge.a], at[edge.b]] = pull_KK[at[edge.b], at[edge.a]] = 0.4 + abs(edge.value)
    pull_KK *= min(
        1.0, 4.0 / max(float(pull_KK.sum(axis=1).mean()), 1e-9)
    )  # many edges do not pull everything into one heap
    angle = np.arange(count) * math.pi * (3 - math.sqrt(5))  # the golden angle: no two begin at one place
    radius = np.sqrt(np.arange(count) / count)
    xy = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    ideal = 1.1 / math.sqrt(count)
    for heat in np.linspace(0.12, 0.004, 120):
        apart_KK2 = xy[:, None] - xy[None]
        far_KK = np.maximum(np.linalg.norm(apart_KK2, axis=2), 1e-3)
        force_KK = ideal**2 / far_KK**2 - pull_KK * far_KK / ideal
        move = (apart_KK2 * force_KK[..., None]).sum(axis=1) - 0.6 * xy
        length = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-9)
        move = move / length * np.minimum(length, heat)
        move[0] = 0
        xy = xy + move
    return np.stack([_spread(xy[:, 0]), _spread(xy[:, 1])], axis=1)


def _spread(value_K: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From 0 to 1, halfway to even distances, so that one node far out does not press the others together."""
    rank = np.empty(len(value_K))
    rank[np.argsort(value_K, kind="stable")] = np.linspace(0.0, 1.0, len(value_K))
    low, high = value_K.min(), value_K.max()
    return np.asarray(0.6 * rank + 0.4 * (value_K - low) / max(high - low, 1e-9))


def draw(nodes: Sequence[Node], edges: Sequence[Edge], links: Sequence[str], label: str, measure: str) -> Markup:
    """The graph; each node is a link, in the order of the nodes for the keyboard.

    Args:
        nodes: the first one is the middle.
        edges: between them.
        links: address of each node.
        label: what it shows, for those who do not see it.
        measure: what the value of an edge is.
    """
    xy = place(nodes, edges)
    xs = _MARGIN_X + xy[:, 0] * (_WIDE - 2 * _MARGIN_X)
    ys = _MARGIN_Y + xy[:, 1] * (_TALL - 2 * _MARGIN_Y)
    at = {node.feature: number for number, node in enumerate(nodes)}
    crowded = len(nodes) > 2 * _NAMED  # then names would lie over each other; pointing at a node shows its own
    parts = []
    for edge in sorted(edges, key=lambda edge: abs(edge.value)):
        a, b = at[edge.a], at[edge.b]
        sign = " minus" if edge.value < 0 else ""
        parts.append(
            f'<line class="edge w{min(9, int(10 * abs(edge.value)))}{sign}" x1="{xs[a]:.0f}" y1="{ys[a]:.0f}" x2="{xs[b]:.0f}" '
            f'y2="{ys[b]:.0f}"><title>{edge.a} and {edge.b}: {measure} {edge.value:.3f}</title></line>'
        )
    for number, node in enumerate(nodes):
        said = f"Feature {node.feature}: {node.label or 'no label'}"
        short = node.label if len(node.label) <= 22 else f"{node.label[:21]}…"
        below = 24 if node.step == 0 else 20
        current = ' aria-current="true"' if node.step == 0 else ""
        quiet = " quiet" if node.step and number > _NAMED and crowded else ""
        parts.append(
            f'<a class="node step-{node.step}{quiet}" href="{escape(links[number])}" aria-label="{escape(said)}"{current}>'
            f'<circle cx="{xs[number]:.0f}" cy="{ys[number]:.0f}" r="{(13, 9, 6)[node.step]}"><title>{escape(said)}</title></circle>'
            f'<text x="{xs[number]:.0f}" y="{ys[number] - 12 if node.step else ys[number] - 17:.0f}" class="number">{node.feature}</text>'
            f'<text x="{xs[number]:.0f}" y="{ys[number] + below:.0f}">{escape(short)}</text></a>'
        )
    return Markup(
        f'<svg class="graph" viewBox="0 0 {_WIDE} {_TALL}" role="group" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
