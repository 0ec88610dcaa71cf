"""Features through the layers as a Sankey diagram: a column for each SAE, a link for each pair of features that belong together."""

from __future__ import annotations

from typing import Any

from neuronmap.abstraction.plots.look import BLUE, GREEN, GREY, ORANGE, PINK, faded, layout, percent
from neuronmap.abstraction.plots.plot_data import Cell, PlotData
from neuronmap.abstraction.record import FeatureFlow, FlowEdge, FlowNode

__all__ = ["flow_plot"]

_KINDS = {"pass-through": BLUE, "drift": ORANGE, "split": GREEN, "merge": PINK}
_NODE_TALL = 28
_LABEL = 24


def flow_plot(flow: FeatureFlow, *, seed: int | None = None) -> PlotData:
    """The flow between neighbouring SAEs.

    Args:
        flow: the record.
        seed: of the nulls, for the notes.

    Each node's ``customdata`` is ``{"sae", "feature", ...}`` for a click, each link's the kind in words with its evidence.
    """
    columns = [
        "source_sae", "source_feature", "source_label", "target_sae", "target_feature", "target_label",
        "kind", "cosine", "correlation",
        "jaccard", "support", "ablation",
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for edge in flow.edges:
        source, target = flow.nodes[edge.source], flow.nodes[edge.target]
        rows.append(
            [source.sae, source.feature, source.label, target.sae, target.feature, target.label, edge.kind, edge.cosine, edge.correlation,
             edge.jaccard, edge.support, edge.ablation]
        )  # fmt: skip
    tallest = max((sum(node.sae == name for node in flow.nodes) for name in flow.saes), default=0)
    wide = {"width": 300 * len(flow.saes)} if len(flow.saes) > 3 else {}
    figure = {
        "data": [_sankey(flow), *_keys()],
        "layout": layout(
            height=170 + _NODE_TALL * max(tallest, 4),
            xaxis={"visible": False, "fixedrange": True},
            yaxis={"visible": False, "fixedrange": True},
            annotations=_heads(flow),
            margin={"l": 16, "r": 44, "t": 48, "b": 24},
            **wide,
            legend={
                "orientation": "h",
                "x": 0,
                "y": -0.02,
                "yanchor": "top",
                "itemclick": False,
                "itemdoubleclick": False,
            },
        ),
    }
    return PlotData("flow", "Features through the layers", _about(flow, seed), columns, rows, figure)


def _sankey(flow: FeatureFlow) -> dict[str, Any]:
    column = {name: at for at, name in enumerate(flow.saes)}
    last = max(len(flow.saes) - 1, 1)
    edges = flow.edges
    return {
        "type": "sankey",
        "arrangement": "snap",
        "domain": {"x": [0, 1], "y": [0.03, 1]},
        "textfont": {"size": 11},
        "node": {
            "label": [_label(node) for node in flow.nodes],
            "x": [min(max(column.get(node.sae, 0) / last, 0.001), 0.999) for node in flow.nodes],
            "y": _heights(flow),
            "color": [GREY] * len(flow.nodes),
            "pad": 14,
            "thickness": 14,
            "line": {"width": 0},
            "customdata": [
                {"sae": node.sae, "feature": node.feature, "layer": node.layer, "text": _node_text(node)}
                for node in flow.nodes
            ],
            "hovertemplate": "%{customdata.text}<extra></extra>",
        },
        "link": {
            "source": [edge.source for edge in edges],
            "target": [edge.target for edge in edges],
            "value": [max(edge.support, 1) for edge in edges],
            "label": [edge.kind for edge in edges],
            "color": [faded(_KINDS[edge.kind], 0.5) for edge in edges],
            "customdata": [_edge_text(edge) for edge in edges],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
    }


def _heights(flow: FeatureFlow) -> list[float]:
    """Places from top to bottom: features that belong together side by side, by following links from the first column."""
    order: dict[int, float] = {}
    for name in flow.saes:
        mine = [at for at, node in enumerate(flow.nodes) if node.sae == name]

        def wanted(at: int) -> float:
            above = [order[edge.source] for edge in flow.edges if edge.target == at and edge.source in order]
            return sum(above) / len(above) if above else 2.0

        for place, at in enumerate(sorted(mine, key=lambda at: (wanted(at), -flow.nodes[at].mass))):
            order[at] = (place + 0.5) / len(mine)
    return [min(max(order.get(at, 0.5), 0.001), 0.999) for at in range(len(flow.nodes))]


def _label(node: FlowNode) -> str:
    """Number and label, else the first concept that the feature carries; the rest is told when it is pointed at."""
    text = " ".join((node.label or "").split())
    if not text and node.concepts:
        first = max(node.concepts, key=lambda name: node.concepts[name])
        text = f"[{first.rpartition(':')[2]}{f' +{len(node.concepts) - 1}' if len(node.concepts) > 1 else ''}]"
    short = text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"
    return _plain(f"{node.feature} {short}".strip())


def _node_text(node: FlowNode) -> str:
    concepts = "".join(f"<br>carries {_plain(name)}: AUC {value:.2f}" for name, value in node.concepts.items())
    return (
        f"{_plain(node.sae)}, feature {node.feature}<br>{_plain(node.label or 'no label')}<br>active on "
        f"{node.density:.2%} of the tokens, {node.mass:.2%} of the activation{concepts}"
    )


def _edge_text(edge: FlowEdge) -> str:
    without = "" if edge.ablation is None else f"<br>without the source the target changes by {edge.ablation:+.2f}"
    return (
        f"{edge.kind}: cosine {edge.cosine:.2f}, correlation {edge.correlation:.2f}, both active on "
        f"{edge.support:,} tokens (Jaccard {edge.jaccard:.2f}){without}"
    )


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _keys() -> list[dict[str, Any]]:
    """What the hues mean: points that are nowhere, for the legend."""
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [None],
            "y": [None],
            "name": kind,
            "marker": {"color": colour, "size": 11, "symbol": "square"},
        }
        for kind, colour in _KINDS.items()
    ]


def _heads(flow: FeatureFlow) -> list[dict[str, Any]]:
    last = max(len(flow.saes) - 1, 1)
    return [
        {
            "x": at / last, "y": 1, "xref": "paper", "yref": "paper", "yanchor": "bottom", "yshift": 12, "showarrow": False,
            "xanchor": "left" if at == 0 else "right" if at == last else "center", "text": f"<b>block {layer}</b><br>"
            f"{_plain(name)}",
        }
        for at, (name, layer) in enumerate(zip(flow.saes, flow.layers, strict=True))
    ]  # fmt: skip


def _about(flow: FeatureFlow, seed: int | None) -> str:
    pairs = []
    for at, counts in enumerate(flow.counts):
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
        again = flow.reproduced[at] if flow.reproduced is not None else None
        kept = "" if again is None else f"; {percent(again)} of the edges are in both halves of the text"
        pairs.append(f"{flow.saes[at]} to {flow.saes[at + 1]}: {kinds or 'none'}{kept}")
    drawn = "" if seed is None else f"; seed {seed}"
    warned = f" {' '.join(flow.warnings)}" if flow.warnings else ""
    return (
        "A column for each SAE, a link where two features belong together: same direction and tokens "
        "(pass-through), same tokens in another direction (drift), one to several (split), several to one (merge). "
        "Width is the number of tokens where both are active. Drawn are the features that carry a concept, then "
        f"those with most activation; counts are over all of them. {'. '.join(pairs)}. {flow.tokens:,} "
        f"tokens{drawn}.{warned}"
    )
