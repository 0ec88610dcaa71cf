"""Features through the layers: how many of each kind, and which go with which."""

from __future__ import annotations

from pydantic import BaseModel, Field

from neuronmap.abstraction.record import FeatureFlow, FlowEdge, FlowNode
from neuronmap.web.errors import WebError
from neuronmap.web.reports import OpenReport
from neuronmap.web.views.concepts.basis import ReportBasis
from neuronmap.web.views.concepts.plots import ShownPlot, shown_plot

__all__ = ["KINDS", "FlowLine", "FlowPage", "PairLine", "flow_page"]

KINDS = {
    "pass-through": "same direction, same tokens",
    "drift": "same tokens, another direction",
    "split": "one feature becomes several",
    "merge": "several become one",
    "new": "nothing before it",
    "vanishing": "nothing after it",
    "unclear": "above chance with something, but none of these",
    "untested": "too rare or too dense to be tested",
}
MOST_LINES = 60


class PairLine(BaseModel):
    """Two neighbouring SAEs."""

    source: str
    target: str
    source_layer: int
    target_layer: int
    counts: dict[str, int] = Field(description="Features of each kind, over all of them.")
    cosine_null: float = Field(
        description="99th percentile of a feature's best cosine with a randomly rotated decoder."
    )
    correlation_null: float = Field(
        description="99th percentile of its best correlation after shifting by whole contexts."
    )
    reproduced: float | None = Field(description="Share of the edges of one half of the text that the other half has.")


class FlowLine(BaseModel):
    """Two features that belong together."""

    source: FlowNode
    target: FlowNode
    kind: str
    cosine: float
    correlation: float
    jaccard: float
    support: int = Field(description="Tokens where both are active.")
    ablation: float | None = Field(description="Mean change of the target where the source is set to zero.")


class Carrier(BaseModel):
    """A feature that tells a concept's classes apart."""

    node: FlowNode
    concept: str
    auc: float


class FlowPage(BaseModel):
    """The flow of one report."""

    basis: ReportBasis
    tokens: int
    warnings: list[str] = Field(description="What the counts cannot carry.")
    saes: list[str]
    layers: list[int]
    known: list[str] = Field(description="SAEs of the flow that this library has: their features have pages.")
    pairs: list[PairLine]
    kinds: dict[str, str] = Field(description="What each kind means.")
    kind: str = Field(description="Only edges of this kind; empty for all.")
    pair: int | None = Field(description="Only edges of this pair of SAEs, counted from 0; null for all.")
    lines: list[FlowLine]
    total: int = Field(description="Edges that fit, on all pages.")
    first: int
    later: int | None = Field(description="First edge of the next page.")
    carriers: list[Carrier] = Field(description="Shown features that carry a concept, the strongest first.")
    plot: ShownPlot


def flow_page(
    found: OpenReport, library: set[str], kind: str = "", pair: int | None = None, first: int = 0
) -> FlowPage | None:
    """The page of the flow; None where no features were followed.

    Args:
        found: the report.
        library: ids of the SAEs that are here.
        kind: only edges of this kind.
        pair: only edges between these neighbours.
        first: the first edge that is listed.

    Raises:
        WebError: 404, there is no such pair.
    """
    flow = found.report.flow
    if flow is None:
        return None
    if pair is not None and pair >= len(flow.saes) - 1:
        raise WebError(404, "not_found", f"There is no pair {pair}: pairs are 0 to {len(flow.saes) - 2}.")
    column = {name: at for at, name in enumerate(flow.saes)}
    edges = [
        edge
        for edge in sorted(flow.edges, key=lambda edge: -edge.support)
        if (not kind or edge.kind == kind) and (pair is None or column[flow.nodes[edge.source].sae] == pair)
    ]
    (plot,) = found.plots("flow")
    return FlowPage(
        basis=ReportBasis.of(found),
        tokens=flow.tokens,
        warnings=flow.warnings,
        saes=flow.saes,
        layers=flow.layers,
        known=[name for name in flow.saes if name in library],
        pairs=_pairs(flow),
        kinds=KINDS,
        kind=kind,
        pair=pair,
        lines=[_line(flow, edge) for edge in edges[first : first + MOST_LINES]],
        total=len(edges),
        first=first,
        later=first + MOST_LINES if first + MOST_LINES < len(edges) else None,
        carriers=_carriers(flow),
        plot=shown_plot(plot, report=found.name),
    )


def _pairs(flow: FeatureFlow) -> list[PairLine]:
    return [
        PairLine(
            source=flow.saes[at],
            target=flow.saes[at + 1],
            source_layer=flow.layers[at],
            target_layer=flow.layers[at + 1],
            counts=flow.counts[at],
            cosine_null=flow.cosine_null[at],
            correlation_null=flow.correlation_null[at],
            reproduced=flow.reproduced[at] if flow.reproduced is not None else None,
        )
        for at in range(len(flow.saes) - 1)
    ]


def _line(flow: FeatureFlow, edge: FlowEdge) -> FlowLine:
    return FlowLine(
        source=flow.nodes[edge.source],
        target=flow.nodes[edge.target],
        kind=edge.kind,
        cosine=edge.cosine,
        correlation=edge.correlation,
        jaccard=edge.jaccard,
        support=edge.support,
        ablation=edge.ablation,
    )


def _carriers(flow: FeatureFlow) -> list[Carrier]:
    found = [Carrier(node=node, concept=name, auc=auc) for node in flow.nodes for name, auc in node.concepts.items()]
    return sorted(found, key=lambda one: -one.auc)[:MOST_LINES]
