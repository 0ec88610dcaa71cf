"""Which features a picture of the flow shows: those with the most mass that hang together, a bounded number a layer.

A unit is what makes sense only as a whole: one edge, or all edges of a split or merge. Units are taken by mass, those of features that
carry a concept first, as long as no layer gets too many features; then every edge between two features that are there is shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse

from neuronmap.abstraction.flow.edges import Edge, PairFlow

__all__ = ["Shown", "choose_shown", "masses_of"]

Node = tuple[int, int]
"""(index of the SAE, feature)."""


@dataclass(frozen=True)
class Shown:
    """What is shown.

    Attributes:
        nodes: by SAE, then mass, the largest first.
        edges: (index of the pair of neighbours, edge), by pair, then support, the largest first.
    """

    nodes: list[Node]
    edges: list[tuple[int, Edge]]


def masses_of(code_NF: scipy.sparse.csr_matrix) -> npt.NDArray[np.float64]:
    """float64 [F], each feature's share of the SAE's total activation; zeros where nothing fires."""
    mass_F = np.bincount(code_NF.indices, code_NF.data.astype(np.float64), minlength=code_NF.shape[1])
    share_F: npt.NDArray[np.float64] = mass_F / max(float(mass_F.sum()), 1e-300)
    return share_F


def choose_shown(
    flows: Sequence[PairFlow],
    masses: Sequence[npt.NDArray[np.float64]],
    most: int,
    first: Sequence[Mapping[int, object]] = (),
) -> Shown:
    """Choose the features and edges of a picture.

    Args:
        flows: edges of each pair of neighbours.
        masses: share of each feature, for each SAE.
        most: features a layer, at most.
        first: features of each SAE whose units come before all others; may be empty.
    """
    units = _units(flows)

    def rank(unit: list[tuple[int, Edge]]) -> tuple[int, float]:
        nodes = _nodes(unit)
        wanted = any(sae < len(first) and feature in first[sae] for sae, feature in nodes)
        # the mean of both ends: a split weighs what its whole and its parts weigh
        return (0 if wanted else 1, -sum(float(masses[sae][feature]) for sae, feature in nodes) / 2)

    shown: set[Node] = set()
    taken: Counter[int] = Counter()
    for unit in sorted(units, key=rank):
        fresh = _nodes(unit) - shown
        extra = Counter(sae for sae, _ in fresh)
        if all(taken[sae] + count <= most for sae, count in extra.items()):
            shown |= fresh
            taken += extra
    nodes = sorted(shown, key=lambda node: (node[0], -float(masses[node[0]][node[1]]), node[1]))
    edges = [
        (pair, edge)
        for pair, flow in enumerate(flows)
        for edge in sorted(flow.edges, key=lambda edge: (-edge.support, edge.source, edge.target))
        if (pair, edge.source) in shown and (pair + 1, edge.target) in shown
    ]
    return Shown(nodes, edges)


def _units(flows: Sequence[PairFlow]) -> list[list[tuple[int, Edge]]]:
    units: dict[tuple[int, int], list[tuple[int, Edge]]] = defaultdict(list)
    for pair, flow in enumerate(flows):
        for edge in flow.edges:
            units[pair, edge.group].append((pair, edge))
    return [units[key] for key in sorted(units)]


def _nodes(unit: Sequence[tuple[int, Edge]]) -> set[Node]:
    return {node for pair, edge in unit for node in ((pair, edge.source), (pair + 1, edge.target))}
