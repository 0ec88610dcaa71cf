"""What the model does when a concept is changed at one layer."""

from __future__ import annotations

from typing import Any

from neuronmap.abstraction.plots.look import BLUE, ORANGE, band, layer_axis, layout, level_line, line
from neuronmap.abstraction.plots.plot_data import Cell, PlotData
from neuronmap.abstraction.plots.results import data_line
from neuronmap.abstraction.record import CausalProfile, ConceptResult, Interval, Series, TrackingReport

__all__ = ["causal_plot"]


def causal_plot(report: TrackingReport, result: ConceptResult) -> PlotData | None:
    """Effect of swapping and of erasing, beside random directions; None where it was not measured."""
    found = result.causal
    if found is None:
        return None
    kinds = ("swapped", "erased")
    columns = ["layer", *(f"{kind}{end}" for kind in kinds for end in ("", "_low", "_high", "_random95"))]
    rows: list[list[Cell]] = [
        [
            layer,
            *_cells(found.swapped[at], found.random_swapped[at]),
            *_cells(found.erased[at], found.random_erased[at]),
        ]
        for at, layer in enumerate(found.layers)
    ]
    about = (
        f"Change of the difference of log-probabilities ({found.outcome}), in nats, when the concept is changed at "
        f"one layer, at the token that is read. Unchanged it is {found.clean:.2f}: a change of {-found.clean:.2f} "
        f"leaves the model undecided (dotted), {-2 * found.clean:.2f} turns it round. An effect counts where it is "
        f"outside the band of {found.random_directions} random directions moved by equal lengths. {found.items:,} "
        f"texts. {data_line(report, result)}"
    )
    figure = {
        "data": _traces(found),
        "layout": layout(
            xaxis=layer_axis(found.layers, "Layer that is changed (0 is the embedding)"),
            yaxis={"title": {"text": "change (nats)"}, "zeroline": False},
            shapes=[level_line(0.0), level_line(-found.clean)],
            hovermode="x",
        ),
    }
    title = f"{result.concept['title']}: effect on what the model says"
    return PlotData(f"causal-{result.concept['name']}", title, about, columns, rows, figure)


def _traces(found: CausalProfile) -> list[dict[str, Any]]:
    x = [float(layer) for layer in found.layers]
    traces: list[dict[str, Any]] = []
    for name, random, hue in (("swaps", found.random_swapped, BLUE), ("erasures", found.random_erased, ORANGE)):
        low: Series = [None if value is None else -value for value in random]
        traces += band(f"random {name}: 95 %", x, low, random, hue)
    for name, effects, hue, dash, symbol in (
        ("swapped with the pair's other member", found.swapped, BLUE, "solid", "circle"),
        ("erased", found.erased, ORANGE, "dash", "square"),
    ):
        up = [None if one.value is None or one.high is None else one.high - one.value for one in effects]
        down = [None if one.value is None or one.low is None else one.value - one.low for one in effects]
        error = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "width": 4, "thickness": 1.5}
        values: Series = [one.value for one in effects]
        traces.append(line(name, x, values, hue, dash=dash, symbol=symbol, error_y=error))
    return traces


def _cells(one: Interval, random: float | None) -> list[Cell]:
    return [one.value, one.low, one.high, random]
