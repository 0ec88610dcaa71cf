"""The neighbourhood of a feature: which features, how near, and on what that was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from markupsafe import Markup
from pydantic import BaseModel, Field

from neuronmap.features.storage.store import FeatureStore
from neuronmap.web import charts
from neuronmap.web.explorer import Analysed
from neuronmap.web.rendering import sae_path
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.graph import Edge, Node, draw
from neuronmap.web.views.names import FeatureName, feature_names
from neuronmap.web.views.neighbours import Links, cosines, decoder_rows, links

__all__ = ["By", "Near", "Neighbourhood", "neighbourhood"]

By = Literal["cosine", "jaccard"]
MOST_NODES = 40
MOST_IN_HEAT = 14
MOST_EDGES = 140


class Near(BaseModel):
    """One feature of the neighbourhood."""

    about: FeatureName
    step: int = Field(description="Steps from the feature in the middle.")
    cosine: float = Field(description="Decoder cosine with the feature in the middle, exact, from the weights.")
    jaccard: float | None = Field(
        description="Jaccard index with it on the sampled tokens; null where no list of the analysis has the pair."
    )
    together: int | None = Field(description="Sampled tokens on which both fire; null likewise.")


class Neighbourhood(BaseModel):
    """What is near a feature."""

    feature: FeatureName
    by: By
    min: float
    depth: int
    listed: int = Field(description="Features that the store lists for each feature by this measure, at most.")
    left_out: int = Field(
        description="Further features above the threshold that were not taken in, because there would be too many."
    )
    near: list[Near] = Field(description="The feature itself first, then the others, the nearest first.")
    edges: list[Edge] = Field(description="Pairs at or above the threshold.")
    edges_left_out: int = Field(description="Further pairs, the weakest, that are not listed.")
    cosine: list[list[float]] = Field(description="Decoder cosine of every pair of ``near``, exact.")
    jaccard: list[list[float | None]] = Field(
        description="Jaccard index of every pair of ``near``; null where no list has the pair."
    )
    sampled: int = Field(description="Most tokens of the sample that co-firing was counted on.")
    basis: Basis

    @property
    def nodes(self) -> list[Node]:
        """For the graph."""
        return [Node(feature=one.about.feature, label=one.about.label, step=one.step) for one in self.near]

    @property
    def known_pairs(self) -> int:
        """Pairs, among those of the heat maps, whose co-firing is known."""
        shown = range(min(len(self.near), MOST_IN_HEAT))
        return sum(self.jaccard[i][j] is not None for i in shown for j in range(i))

    def graph(self, url: Callable[[str], str]) -> Markup:
        """As SVG; each node leads to the same page with that feature in the middle.

        Args:
            url: adds the base path to an address.
        """
        same = {"by": self.by, "min": f"{self.min:g}", "depth": self.depth, "analysis": self.basis.analysis}
        addresses = [
            url(sae_path(self.basis.sae, "similarity", feature=one.about.feature, **same)) for one in self.near
        ]
        name = "decoder cosine" if self.by == "cosine" else "Jaccard index"
        said = f"Features near {self.feature.feature} by {name}; the table below has the same"
        return draw(self.nodes, self.edges, addresses, said, name)

    def heat(self, measure: By) -> Markup:
        """The first features pairwise, as a table of shades."""
        shown = self.near[:MOST_IN_HEAT]
        names = [str(one.about.feature) for one in shown]
        values: list[list[float | None]] = [list(row[: len(shown)]) for row in getattr(self, measure)[: len(shown)]]
        titles = [
            [
                f"{a.about.feature} {a.about.label} and {b.about.feature} {b.about.label}: {_said(values[i][j])}"
                for j, b in enumerate(shown)
            ]
            for i, a in enumerate(shown)
        ]
        name = "Decoder cosine" if measure == "cosine" else "Jaccard index"
        return charts.heat(values, names, f"{name} of {len(shown)} features", titles)


def _said(value: float | None) -> str:
    return "in no list" if value is None else f"{value:.3f}"


def neighbourhood(analysed: Analysed, feature: int, by: By, least: float | None, depth: int) -> Neighbourhood:
    """The features near one.

    Args:
        analysed: SAE and analysis.
        feature: the one in the middle.
        by: decoder cosine, or Jaccard index of firing.
        least: least value of a step; None for one that about a dozen neighbours reach.
        depth: 1 for its neighbours, 2 for theirs too.

    Raises:
        InputError: no such feature.
    """
    store = analysed.store
    store.check_feature(feature)
    known = links(store, [feature])
    low = least if least is not None else _usual(known[feature], by)
    step_of = {feature: 0}
    first = _above(known[feature], by, low)
    left_out = len(first[MOST_NODES - 1 :])
    step_of |= dict.fromkeys(first[: MOST_NODES - 1], 1)
    known |= links(store, [one for one in step_of if one not in known])
    if depth > 1:
        further = [other for one in list(step_of)[1:] for other in _above(known[one], by, low) if other not in step_of]
        unique = list(dict.fromkeys(further))
        room = MOST_NODES - len(step_of)
        left_out += len(unique[room:])
        step_of |= dict.fromkeys(unique[:room], 2)
        known |= links(store, [one for one in step_of if one not in known])
    return _measured(analysed, by, low, depth, step_of, known, left_out)


def _measured(
    analysed: Analysed, by: By, low: float, depth: int, step_of: dict[int, int], known: dict[int, Links], left_out: int
) -> Neighbourhood:
    """All pairs of the features that were found."""
    features = list(step_of)
    rows_KD = decoder_rows(analysed.entry, features)
    cosine_KK = cosines(rows_KD, rows_KD)
    np.fill_diagonal(cosine_KK, 1.0)
    jaccard = [[1.0 if a == b else _jaccard(known, a, b) for b in features] for a in features]
    value = cosine_KK.tolist() if by == "cosine" else jaccard
    edges = [
        Edge(a=features[i], b=features[j], value=found)
        for i in range(len(features))
        for j in range(i)
        if (found := value[i][j]) is not None and found >= low
    ]
    edges = _clearest(edges)
    kept = max(MOST_EDGES, len(features))
    middle = features[0]
    near = []
    for number, about in enumerate(feature_names(analysed.store, features)):
        pair = known[middle].firing.get(about.feature) or known[about.feature].firing.get(middle)
        near.append(
            Near(
                about=about,
                step=step_of[about.feature],
                cosine=float(cosine_KK[0, number]),
                jaccard=jaccard[0][number],
                together=pair.together if pair else None,
            )
        )
    return Neighbourhood(
        feature=near[0].about,
        by=by,
        min=low,
        depth=depth,
        listed=analysed.store.config.neighbours,
        left_out=left_out,
        near=near,
        edges=edges[:kept],
        edges_left_out=len(edges[kept:]),
        cosine=cosine_KK.round(5).tolist(),
        jaccard=jaccard,
        sampled=_sampled(analysed.store),
        basis=Basis.of(analysed),
    )


def _clearest(edges: list[Edge]) -> list[Edge]:
    """First the strongest edge of each feature, so that none stands alone, then the others; each by value."""
    edges = sorted(edges, key=lambda edge: -edge.value)
    seen: set[int] = set()
    first: list[Edge] = []
    rest: list[Edge] = []
    for edge in edges:
        (rest if {edge.a, edge.b} <= seen else first).append(edge)
        seen |= {edge.a, edge.b}
    return first + rest


def _values(found: Links, by: By) -> dict[int, float]:
    return found.cosine if by == "cosine" else {other: pair.jaccard for other, pair in found.firing.items()}


def _above(found: Links, by: By, low: float) -> list[int]:
    """Listed features at or above the threshold, the nearest first."""
    return [other for other, value in _values(found, by).items() if value >= low]


def _usual(found: Links, by: By) -> float:
    """A threshold that a dozen neighbours reach, in hundredths."""
    values = sorted(_values(found, by).values(), reverse=True)[:12]
    return max(0.0, math.floor(100 * values[-1]) / 100) if values else 0.0


def _jaccard(known: dict[int, Links], a: int, b: int) -> float | None:
    pair = known[a].firing.get(b) or known[b].firing.get(a)
    return pair.jaccard if pair else None


def _sampled(store: FeatureStore) -> int:
    """Tokens that pairs were counted on: the sample, or all where there are fewer."""
    return min(int(store.config.sample_tokens), int(store.manifest["rows"]))
