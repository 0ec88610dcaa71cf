"""The curve of a concept: within and across conditions, with bands, null, baselines, and what the summary says."""

from __future__ import annotations

from typing import Any

from neuronmap.abstraction.plots.look import (
    BLUE,
    CHANCE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    YELLOW,
    band,
    layer_axis,
    layout,
    level_line,
    line,
    score_range,
)
from neuronmap.abstraction.plots.marks import mark_rows, marks
from neuronmap.abstraction.plots.plot_data import Cell, PlotData
from neuronmap.abstraction.plots.results import Named, data_line, rows_by_layer
from neuronmap.abstraction.record import ConceptResult, Curve, Series, TrackingReport

__all__ = ["curve_plot"]


def curve_plot(report: TrackingReport, result: ConceptResult) -> PlotData:
    """The headline plot of a concept."""
    layers, summary = result.layers, result.summary
    traces = _traces(result)
    figure = {
        "data": [*traces, *marks(result)],
        "layout": layout(
            height=620,
            xaxis=layer_axis(layers, anchor="y2"),
            yaxis={"title": {"text": "AUC"}, "range": score_range(traces), "domain": [0.24, 1], "zeroline": False},
            yaxis2=mark_rows(),
            shapes=[level_line(CHANCE)],
            hovermode="x",
        ),
    }
    headline = "across conditions" if summary.score == "cross" else "within conditions (there is nothing to cross)"
    about = (
        "How well held-out examples are told apart at each layer; 0.5 is chance. The headline is the curve "
        f"{headline}, and it counts where its band is above the grey null. The rows below give emergence (90 % "
        "interval), half depth (95 %) and the peak set: all layers that cannot be told from the best. "
        f"{data_line(report, result)}"
    )
    return PlotData(
        f"curve-{result.concept['name']}",
        f"{result.concept['title']}: by layer in {report.model['name']}",
        about,
        *_table(report, result),
        figure,
    )


def _traces(result: ConceptResult) -> list[dict[str, Any]]:
    x = [float(layer) for layer in result.layers]
    traces: list[dict[str, Any]] = []
    if result.null95 is not None:
        top: Series = [result.null95] * len(x)
        traces += band("null: 95 % of relabelings stay below at all layers", x, [CHANCE] * len(x), top, GREY)
    traces += band("within: 95 % interval", x, result.within.low, result.within.high, BLUE)
    if result.cross is not None:
        cross = result.cross.mean
        traces += band("across: 95 % band over all layers", x, cross.band_low, cross.band_high, ORANGE)
    traces += _baselines(result, x)
    means = line("difference of means", x, result.difference_of_means, GREEN, dash="dot", symbol="diamond")
    traces.append(means)
    if result.mlp is not None:
        traces.append(line("small MLP", x, result.mlp, PINK, dash="dashdot", symbol="cross"))
    traces.append(line("within conditions", x, result.within.score, BLUE, dash="dash", symbol="square"))
    if result.cross is not None:
        across = line("across conditions", x, result.cross.mean.score, ORANGE)
        traces.append({**across, "line": {**across["line"], "width": 3}})
    return traces


def _baselines(result: ConceptResult, x: list[float]) -> list[dict[str, Any]]:
    """What needs no layers of this model."""
    found, given = [], result.baselines
    for name, series, dash, symbol in (
        ("random weights, across", given.random_cross, "longdash", "triangle-up"),
        ("random weights, within", given.random_within, "dot", "triangle-down"),
    ):
        if series is not None:
            found.append(line(name, x, series, YELLOW, dash=dash, symbol=symbol))
    for name, value, dash in (
        ("mean of embeddings", given.mean_of_embeddings, "longdashdot"),
        ("position and length", given.position_length, "dot"),
    ):
        if value is not None:
            found.append(line(name, x, [value] * len(x), GREY, dash=dash, mode="lines"))
    random = line("random splits of the texts, 95 %", x, result.random_concept95, SKY, dash="dashdot", symbol="x")
    return [*found, {**random, "visible": "legendonly"}]


def _table(report: TrackingReport, result: ConceptResult) -> tuple[list[str], list[list[Cell]]]:
    cross = result.cross
    named: Named = [
        *_columns("cross", None if cross is None else cross.mean),
        ("cross_worst", None if cross is None else cross.worst),
        *_columns("within", result.within),
        ("difference_of_means", result.difference_of_means),
        ("mlp", result.mlp),
        ("random_weights_cross", result.baselines.random_cross),
        ("random_weights_within", result.baselines.random_within),
        ("random_concept95", result.random_concept95),
        ("p_value", result.p_value),
    ]
    extra = [result.null95, result.baselines.mean_of_embeddings, result.baselines.position_length]
    columns = ["layer", "depth", *(name for name, _ in named), "null95", "mean_of_embeddings", "position_length"]
    return columns, [[*row, *extra] for row in rows_by_layer(report, result, named)]


def _columns(name: str, curve: Curve | None) -> Named:
    ends = {"": "score", "_low": "low", "_high": "high", "_band_low": "band_low", "_band_high": "band_high"}
    return [(f"{name}{end}", None if curve is None else getattr(curve, field)) for end, field in ends.items()]
