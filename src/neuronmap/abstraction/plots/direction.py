"""The direction that codes a concept: the probe of one layer at another, and how the direction turns."""

from __future__ import annotations

from typing import Any

from neuronmap.abstraction.plots.look import BLUE, DIVERGING, GREEN, ORANGE, heat, level_line, line, square
from neuronmap.abstraction.plots.plot_data import Cell, PlotData
from neuronmap.abstraction.plots.results import Named, curves_by_layer, data_line
from neuronmap.abstraction.record import ConceptResult, TrackingReport

__all__ = ["rotation_plot", "transfer_plot"]


def transfer_plot(report: TrackingReport, result: ConceptResult) -> PlotData:
    """Probes of one layer at another."""
    layers = result.layers
    hover = "trained at layer %{y}, applied at layer %{x}: AUC %{z:.3f}"
    trace = heat(layers, layers, result.transfer, scale=DIVERGING, low=0, high=1, bar="AUC", hover=hover)
    rows: list[list[Cell]] = [
        [layers[row], layers[column], value]
        for row, values in enumerate(result.transfer)
        for column, value in enumerate(values)
    ]
    return PlotData(
        f"transfer-{result.concept['name']}",
        f"{result.concept['title']}: probes of one layer at another",
        "AUC of the probe trained at one layer (row) and applied at another (column), on held-out clusters. Blocks "
        "show where the code stays the same. White is chance; blue, below chance, says that the direction has "
        f"turned round. {data_line(report, result)}",
        ["trained_at", "applied_at", "auc"],
        rows,
        {"data": [trace], "layout": square(layers, layers, "Applied at layer", "Trained at layer")},
    )


def rotation_plot(report: TrackingReport, result: ConceptResult) -> PlotData:
    """Whether neighbouring layers have one direction."""
    x = [float(layer) for layer in result.layers]
    halves = result.difference_reliability
    lines = [
        line("this layer's probe and the next one's", x, result.rotation, BLUE),
        line("two halves of the data, this layer", x, halves, GREEN, dash="dot", symbol="diamond"),
    ]
    if result.parallelism is not None:
        different = line("different conditions", x, result.parallelism, ORANGE, dash="dash", symbol="square")
        lines.append(different)
    handoff = result.summary.handoff
    said = (
        "There is no layer from which on neighbours stay above 0.9."
        if handoff is None
        else f"From layer {handoff} on neighbours stay above 0.9."
    )
    about = (
        f"Cosine of directions: 1 is the same, 0 unrelated. {said} The dashed line (parallelism) compares the "
        "differences of class means in different conditions, over their reliability, which the dotted line shows: "
        "where that is low, directions are not known well enough to compare."
    )
    named: Named = [
        ("rotation", result.rotation),
        ("difference_reliability", halves),
        ("parallelism", result.parallelism),
    ]
    yaxis = {"title": {"text": "cosine"}, "range": [min(-0.1, _least(lines) - 0.05), 1.05]}
    return curves_by_layer(
        report, result, "rotation", "how the direction turns", about, lines, named, yaxis, shapes=[level_line(0.0)]
    )


def _least(lines: list[dict[str, Any]]) -> float:
    return min((value for one in lines for value in one["y"] if value is not None), default=0.0)
