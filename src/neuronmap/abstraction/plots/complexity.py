"""Concepts in order of complexity for a model: half depth with its interval, ties together, and every component beside it."""

from __future__ import annotations

from typing import Any

from neuronmap.abstraction.plots.look import BLUE, FOR_SCALE, GREY, faded, layer_axis, layout
from neuronmap.abstraction.plots.plot_data import Cell, PlotData
from neuronmap.abstraction.record import ConceptResult, Interval, TrackingReport

__all__ = ["COMPLEXITY_COLUMNS", "complexity_plot", "complexity_rows", "in_order"]

_RANGED = (
    "mdl_bits",
    "mdl_bits_embedding",
    "compression",
    "n90",
    "rank90",
    "mlp_gap",
    "context_need",
    "within_cross_gap",
)
COMPLEXITY_COLUMNS = [
    *("concept", "verdict", "rank", "rank_low", "rank_high", "tie"),
    *("half_depth", "half_depth_low", "half_depth_high", "not_established"),
    *(f"{name}{end}" for name in _RANGED for end in ("", "_low", "_high")),
]


def complexity_plot(report: TrackingReport) -> PlotData:
    """Half depth of every concept as a dumbbell, simplest on top; concepts without one are listed below, with the reason."""
    ordered = in_order(report.concepts)
    titles = [str(result.concept["title"]) for result in ordered]
    places = [float(len(ordered) - 1 - at) for at in range(len(ordered))]
    dots, reasons = [], []
    for place, result in zip(places, ordered, strict=True):
        half = result.summary.half_depth
        if half.value is None:
            reasons.append((place, f"not established: {(half.reason or result.summary.verdict).partition(':')[0]}"))
        else:
            dots.append((place, half, result))
    figure = {
        "data": [_dumbbells(dots), *([_reasons(reasons, report.layers)] if reasons else [])],
        "layout": layout(
            **FOR_SCALE,
            height=130 + 34 * max(len(ordered), 1),
            xaxis=layer_axis(report.layers, "Half depth (layer; 0 is the embedding)", range=[-0.5, report.layers[-1] + 0.5]),
            yaxis={
                "tickmode": "array", "tickvals": places, "ticktext": titles, "range": [-0.7, len(ordered) - 0.3], "automargin": True,
                "zeroline": False, "showgrid": False,
            },
            shapes=_groups(ordered, places),
            showlegend=False,
        ),
    }  # fmt: skip
    return PlotData(
        "complexity",
        f"Complexity for {report.model['name']}",
        "The layer where each concept's curve is half way up, with the interval over resampled clusters; earlier "
        "is simpler for this model on this data. Concepts in one shaded group cannot be told apart. Order is by "
        "half depth, then by code length; the components are never summed up. "
        f"{sum(result.items for result in ordered):,} items; seed {report.settings.get('seed', 0)}; model "
        f"{report.model['name']}.",
        COMPLEXITY_COLUMNS,
        complexity_rows(report),
        figure,
    )


def in_order(concepts: list[ConceptResult]) -> list[ConceptResult]:
    """By rank; those without one last, in the report's order."""
    return sorted(concepts, key=lambda one: one.complexity.rank if one.complexity and one.complexity.rank else 10**6)


def complexity_rows(report: TrackingReport) -> list[list[Cell]]:
    """The table: one row a concept, in order; columns are :data:`COMPLEXITY_COLUMNS`."""
    rows = []
    for result in in_order(report.concepts):
        found, half = result.complexity, result.summary.half_depth
        head: list[Cell] = [str(result.concept["name"]), result.summary.verdict]
        depth: list[Cell] = [half.value, half.low, half.high, half.reason if half.value is None else None]
        if found is None:
            rows.append([*head, *[None] * 4, *depth, *[None] * (len(COMPLEXITY_COLUMNS) - 10)])
            continue
        ranged: list[Interval] = [getattr(found, name) for name in _RANGED]
        ends: list[Cell] = [end for one in ranged for end in (one.value, one.low, one.high)]
        rows.append([*head, found.rank, found.rank_low, found.rank_high, found.tie, *depth, *ends])
    return rows


def _dumbbells(dots: list[tuple[float, Interval, ConceptResult]]) -> dict[str, Any]:
    error = {
        "type": "data", "symmetric": False, "thickness": 3, "width": 7, "color": BLUE,
        "array": [None if half.high is None or half.value is None else half.high - half.value for _, half, _ in dots],
        "arrayminus": [None if half.low is None or half.value is None else half.value - half.low for _, half, _ in dots],
    }  # fmt: skip
    return {
        "type": "scatter", "mode": "markers", "name": "half depth", "x": [half.value for _, half, _ in dots],
        "y": [place for place, _, _ in dots],
        "error_x": error, "marker": {"size": 10, "color": BLUE}, "text": [_said(half, result) for _, half, result in dots],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _said(half: Interval, result: ConceptResult) -> str:
    interval = f" ({half.low:.1f} to {half.high:.1f})" if half.low is not None and half.high is not None else ""
    rank = result.complexity.rank if result.complexity is not None else None
    place = (
        f"<br>place {rank} ({result.complexity.rank_low} to {result.complexity.rank_high})"
        if result.complexity and rank
        else ""
    )
    return f"{result.concept['title']}: {half.value:.1f}{interval}{place}"


def _reasons(reasons: list[tuple[float, str]], layers: list[int]) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "text", "name": "not established", "x": [layers[0]] * len(reasons), "y": [place for place, _ in reasons],
        "text": [text for _, text in reasons], "textposition": "middle right", "textfont": {"size": 12}, "hoverinfo": "skip",
    }  # fmt: skip


def _groups(ordered: list[ConceptResult], places: list[float]) -> list[dict[str, Any]]:
    """A shade behind each group of ties with two members or more."""
    groups: dict[int, list[float]] = {}
    for result, place in zip(ordered, places, strict=True):
        if result.complexity is not None and result.complexity.tie is not None:
            groups.setdefault(result.complexity.tie, []).append(place)
    return [
        {
            "type": "rect", "xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": min(members) - 0.45, "y1": max(members) + 0.45,
            "fillcolor": faded(GREY, 0.16), "line": {"width": 0}, "layer": "below",
        }
        for members in groups.values()
        if len(members) > 1
    ]  # fmt: skip
