"""What becomes of the features of one SAE in the next: the kinds of edges between two neighbouring layers.

Shapes: A features of the earlier SAE, B of the later one, N shared rows, D width of the activation.

With t_cos and t_r what chance gives (:mod:`neuronmap.abstraction.flow.matching`), and a feature's parts those of the other SAE whose best
match by correlation it is, above t_r:

    split         a feature of A: firing of two or more of its parts together ("a or b or ...") has an F1 with its own of at least 0.5,
                  and at least 0.1 more than the best of them alone
    merge         the same the other way round: a feature of B from parts in A
    pass-through  mutual best match by correlation, above t_r, and by cosine, above t_cos; neither is split or merged
    drift         mutual best match by correlation, above t_r and at least 0.5, but not the mutual best by cosine, or not above t_cos: the
                  same tokens, and a direction that has moved or is nearer another feature's
    new           a feature of B whose best correlation is at or below t_r
    vanishing     a feature of A whose best correlation is at or below t_r
    untested      fires at fewer than 20 rows, or at more than 10 % of them
    unclear       everything else: above chance with something, and none of these

Two features of a pass-through or drift are active together at 10 rows or more. Above chance is not yet alike: where only the correlation
speaks for a pair, it has to be high. On SmolLM2 (1,024 features at blocks 10 and 14, 65,000 tokens) 80 to 87 % of the mutual best matches
of both measures with a correlation below 0.5 were found again in the other half of the text, but 20 to 30 % of those by correlation alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap.abstraction.flow.codes import SharedCodes
from neuronmap.abstraction.flow.matching import (
    Best,
    Coactivation,
    best_by_correlation,
    best_by_cosine,
    correlation_null,
    cosine_null,
    overlap,
    usable_features,
)
from neuronmap.abstraction.flow.unions import parts_of, unions

__all__ = ["COUNTED", "Edge", "EdgeKind", "PairFlow", "flow_between", "reproduced"]

EdgeKind = Literal["pass-through", "drift", "split", "merge"]
COUNTED = ("pass-through", "drift", "split", "merge", "new", "vanishing", "unclear", "untested")
"""Keys of the counts, in the order they are shown."""

LEAST_DRIFT = 0.5
"""Correlation of a drift."""
LEAST_BOTH = 10
"""Rows where both features of a pass-through or drift are active: a few strong firings can make any correlation."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Edge:
    """Two features that belong together.

    Attributes:
        source: feature of the earlier SAE.
        target: feature of the later one.
        kind: as in the module's docstring.
        group: edges of one split or merge have the same; others have one of their own.
        cosine: of the decoder directions.
        correlation: Pearson's, of the activations.
        jaccard: rows where both are active over rows where either is.
        target_given_source: P(target active | source active).
        source_given_target: P(source active | target active).
        support: rows where both are active.
    """

    source: int
    target: int
    kind: EdgeKind
    group: int
    cosine: float
    correlation: float
    jaccard: float
    target_given_source: float
    source_given_target: float
    support: int


@dataclass(frozen=True)
class PairFlow:
    """All edges between two neighbouring SAEs.

    Attributes:
        edges: by source, then target.
        kinds_A: kind of each feature of the earlier SAE: pass-through, drift, split, merge (it is a part of one), vanishing, unclear or
            untested.
        kinds_B: of the later one: pass-through, drift, split (it is a part of one), merge, new, unclear or untested.
        cosine_null, correlation_null: what a match has to exceed; 1 where no feature could be tested.
    """

    edges: list[Edge]
    kinds_A: list[str]
    kinds_B: list[str]
    cosine_null: float
    correlation_null: float

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind: pairs for pass-through and drift, features of the earlier SAE for split and vanishing, of the
        later one for merge and new, of both for unclear and untested."""
        one_sided = {kind: self.kinds_A.count(kind) for kind in ("pass-through", "drift", "split", "vanishing")}
        later = {kind: self.kinds_B.count(kind) for kind in ("merge", "new")}
        both = {kind: self.kinds_A.count(kind) + self.kinds_B.count(kind) for kind in ("unclear", "untested")}
        found = {**one_sided, **later, **both}
        return {kind: found[kind] for kind in COUNTED}

    @property
    def pairs(self) -> set[tuple[int, int]]:
        """(source, target) of every edge."""
        return {(edge.source, edge.target) for edge in self.edges}


def flow_between(
    codes: SharedCodes, earlier: int, later: int, W_A_AD: Tensor, W_B_BD: Tensor, *, seed: int
) -> PairFlow:
    """Find the edges between two SAEs.

    Args:
        codes: codes on the same rows, of at least two contexts.
        earlier, later: which two of them.
        W_A_AD: decoder rows of the earlier SAE, of any norm.
        W_B_BD: of the later one, of the same width.
        seed: decides rotations and shifts.
    """
    a_NF, b_NF = codes.codes[earlier], codes.codes[later]
    tested_a, tested_b = usable_features(a_NF), usable_features(b_NF)
    kinds_A, kinds_B = ["untested"] * a_NF.shape[1], ["untested"] * b_NF.shape[1]
    if not len(tested_a) or not len(tested_b):
        for kinds, tested, kind in ((kinds_A, tested_a, "vanishing"), (kinds_B, tested_b, "new")):
            for feature in tested.tolist():
                kinds[feature] = kind
        return PairFlow([], kinds_A, kinds_B, 1.0, 1.0)
    a_NA, b_NB = a_NF[:, tested_a], b_NF[:, tested_b]
    W_a_AD, W_b_BD = (
        W_FD.detach().to("cpu", torch.float32)[torch.from_numpy(tested)]
        for W_FD, tested in ((W_A_AD, tested_a), (W_B_BD, tested_b))
    )
    pair = Coactivation(a_NA, b_NB)
    sorted_out = _Kinds(
        pair,
        best_by_correlation(pair),
        best_by_cosine(W_a_AD, W_b_BD),
        correlation_null(codes, a_NA, b_NB, seed=seed),
        cosine_null(W_a_AD, W_b_BD, seed=seed),
        (W_a_AD, W_b_BD),
    )
    edges = sorted_out.edges(tested_a, tested_b)
    for feature, kind in zip(tested_a.tolist(), sorted_out.of_a, strict=True):
        kinds_A[feature] = kind
    for feature, kind in zip(tested_b.tolist(), sorted_out.of_b, strict=True):
        kinds_B[feature] = kind
    return PairFlow(edges, kinds_A, kinds_B, sorted_out.cosine_null, sorted_out.correlation_null)


def reproduced(flow_a: list[PairFlow], flow_b: list[PairFlow]) -> list[float | None]:
    """The share of one text's edges that are found in another text: the same two features, joined by an edge of any kind.

    ``feature_flow`` gives it for the two halves of its text, split between contexts, so that next to no document is in both. Features
    that are too rare to be tested in a half cannot be found there, which makes the share a lower bound for the whole text.

    Args:
        flow_a: edges on the one text, for each pair of neighbours.
        flow_b: on the other.

    Returns:
        A share for each pair; None where the first has no edge.
    """
    return [
        len(one.pairs & other.pairs) / len(one.pairs) if one.pairs else None
        for one, other in zip(flow_a, flow_b, strict=True)
    ]


class _Kinds:
    """Sorts tested features into kinds. Features are counted among those that were tested."""

    def __init__(
        self,
        pair: Coactivation,
        by_correlation: Best,
        by_cosine: Best,
        correlation_null: float,
        cosine_null: float,
        decoders: tuple[Tensor, Tensor],
    ) -> None:
        self.correlation_null, self.cosine_null = correlation_null, cosine_null
        self._pair, self._found, self._decoders = pair, by_correlation, decoders
        found = by_correlation
        by_feature_BN = pair.b_NB.T.tocsr()
        parts_of_a = parts_of(found.index_B, found.value_B > correlation_null)
        parts_of_b = parts_of(found.index_A, found.value_A > correlation_null)
        self._splits = dict(unions(parts_of_a, pair.by_feature_AN, by_feature_BN))
        self._merges = dict(unions(parts_of_b, by_feature_BN, pair.by_feature_AN))
        self._single_a = self._singles(by_cosine)
        self.of_a = ["vanishing" if value <= correlation_null else "unclear" for value in found.value_A]
        self.of_b = ["new" if value <= correlation_null else "unclear" for value in found.value_B]
        # what a feature is itself comes after what it is a part of, and stands
        for parts in self._splits.values():
            self._set(self.of_b, parts, "split")
        for parts in self._merges.values():
            self._set(self.of_a, parts, "merge")
        for a, kind in self._single_a.items():
            self.of_a[a] = self.of_b[int(found.index_A[a])] = kind
        self._set(self.of_a, list(self._splits), "split")
        self._set(self.of_b, list(self._merges), "merge")

    def edges(self, names_A: Ints, names_B: Ints) -> list[Edge]:
        """Every edge once, with the features' own numbers; a split comes before a merge."""
        wanted: dict[tuple[int, int], tuple[EdgeKind, int]] = {}
        group = 0
        for a, kind in self._single_a.items():
            wanted[a, int(self._found.index_A[a])] = (kind, group)
            group += 1
        for a, parts in self._splits.items():
            wanted.update({(a, b): ("split", group) for b in parts})
            group += 1
        for b, parts in self._merges.items():
            for a in parts:
                wanted.setdefault((a, b), ("merge", group))
            group += 1
        return [self._edge(a, b, *wanted[a, b], int(names_A[a]), int(names_B[b])) for a, b in sorted(wanted)]

    def _singles(self, by_cosine: Best) -> dict[int, EdgeKind]:
        """Mutual best matches of features that are neither split nor merged."""
        best, singles = self._found, dict[int, EdgeKind]()
        likely_A = best.mutual_A & (best.value_A > self.correlation_null) & (best.both_A >= LEAST_BOTH)
        for a in np.flatnonzero(likely_A).tolist():
            b = int(best.index_A[a])
            if a in self._splits or b in self._merges:
                continue
            same_direction = bool(by_cosine.mutual_A[a]) and int(by_cosine.index_A[a]) == b
            if same_direction and self._cosine(a, b) > self.cosine_null:
                singles[a] = "pass-through"
            elif best.value_A[a] >= LEAST_DRIFT:
                singles[a] = "drift"
        return singles

    def _edge(self, a: int, b: int, kind: EdgeKind, group: int, source: int, target: int) -> Edge:
        found = self._found
        if found.index_A[a] == b:
            correlation, both = float(found.value_A[a]), int(found.both_A[a])
        else:  # an edge is always the best match of one of its ends
            correlation, both = float(found.value_B[b]), int(found.both_B[b])
        jaccard, target_given_source, source_given_target = overlap(
            both, int(self._pair.firings_A[a]), int(self._pair.firings_B[b])
        )
        return Edge(
            source, target, kind, group, self._cosine(a, b), correlation, jaccard, target_given_source,
            source_given_target, both,
        )  # fmt: skip

    def _cosine(self, a: int, b: int) -> float:
        w_D, v_D = self._decoders[0][a], self._decoders[1][b]
        scale = float(torch.linalg.vector_norm(w_D) * torch.linalg.vector_norm(v_D))
        return max(-1.0, min(1.0, float(w_D @ v_D) / max(scale, 1e-30)))

    @staticmethod
    def _set(kinds: list[str], features: list[int], kind: str) -> None:
        for feature in features:
            kinds[feature] = kind
