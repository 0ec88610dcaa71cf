"""A concept of a report as plots need it: found by name, with the line on its data, and its figures by layer."""

from __future__ import annotations

from typing import Any

from neuronmap.abstraction.plots.look import depths, layer_axis, layout, short_digest
from neuronmap.abstraction.plots.plot_data import Cell, PlotData
from neuronmap.abstraction.record import ConceptResult, Series, TrackingReport
from neuronmap.errors import InputError

__all__ = ["Named", "concept_of", "curves_by_layer", "data_line", "rows_by_layer"]

Named = list[tuple[str, Series | None]]
"""Columns by name; None is a column of nulls."""


def concept_of(report: TrackingReport, name: str) -> ConceptResult:
    """A concept of a report by its name.

    Raises:
        InputError: there is none; lists those that are there.
    """
    for result in report.concepts:
        if result.concept["name"] == name:
            return result
    there = ", ".join(str(result.concept["name"]) for result in report.concepts) or "none"
    raise InputError(f"The report has no concept '{name}'. Concepts: {there}.")


def data_line(report: TrackingReport, result: ConceptResult) -> str:
    """On how much it rests, and how to draw the same again."""
    splits = ", ".join(f"{count:,} {split}" for split, count in result.clusters.items())
    return (
        f"{result.items:,} items; clusters: {splits}; {result.permutations:,} permutations; seed "
        f"{report.settings.get('seed', 0)}; data {short_digest(result.dataset_digest)}; model "
        f"{report.model['name']}."
    )


def rows_by_layer(report: TrackingReport, result: ConceptResult, named: Named) -> list[list[Cell]]:
    """Layer, depth, and a value of each column."""
    depth = depths(result.layers, report.blocks)
    return [
        [layer, depth[at], *(None if values is None else values[at] for _, values in named)]
        for at, layer in enumerate(result.layers)
    ]


def curves_by_layer(
    report: TrackingReport,
    result: ConceptResult,
    kind: str,
    title: str,
    about: str,
    lines: list[dict[str, Any]],
    named: Named,
    yaxis: dict[str, Any],
    **more: Any,
) -> PlotData:
    """A plot of curves over a concept's layers, with their table."""
    axes = {"xaxis": layer_axis(result.layers), "yaxis": {"zeroline": False, **yaxis}}
    return PlotData(
        f"{kind}-{result.concept['name']}",
        f"{result.concept['title']}: {title}",
        f"{about} {data_line(report, result)}",
        ["layer", "depth", *(name for name, _ in named)],
        rows_by_layer(report, result, named),
        {"data": lines, "layout": layout(**axes, hovermode="x", **more)},
    )
