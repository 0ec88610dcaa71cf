"""How all plots of the tracker look: hues that colour-blind readers tell apart and both themes carry, axes over layers, bands, heat maps.

Hues are those of Okabe and Ito (2008), lightened or darkened where one of the themes needs it; lines also differ by dash and marker. Scales
that diverge go from blue to orange and have chance, or zero, at their light middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neuronmap.abstraction.record import Series

__all__ = [
    "BLUE",
    "CHANCE",
    "DASHES",
    "DIVERGING",
    "FOR_SCALE",
    "GREEN",
    "GREY",
    "HUES",
    "INK",
    "LIGHT",
    "NOTHING",
    "ORANGE",
    "PINK",
    "SEQUENTIAL",
    "SKY",
    "SYMBOLS",
    "YELLOW",
    "band",
    "depths",
    "edges",
    "faded",
    "heat",
    "layer_axis",
    "layout",
    "level_line",
    "line",
    "percent",
    "score_range",
    "short_digest",
    "square",
]

BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, GREY = (
    "#2b83c6", "#d9650f", "#12a07a", "#c46a9f", "#4fb0dd", "#c79a10", "#868c96",
)  # fmt: skip
HUES = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
DIVERGING = [[0.0, "#174a8b"], [0.25, "#74a9d8"], [0.5, "#f4f4f2"], [0.75, "#f0a25a"], [1.0, "#8f4300"]]
SEQUENTIAL = "Cividis"
LIGHT = [[0.0, "#f4f5f7"], [0.5, "#fbd9a8"], [1.0, "#f0a04b"]]
"""For cells with words in them: dark ink is legible on all of it."""
INK = "#1a1c20"
NOTHING = "#a3a8b0"
"""Of cells that say nothing."""
FOR_SCALE: dict[str, Any] = {
    "margin": {"l": 64, "r": 16, "t": 36, "b": 56},
    "modebar": {"orientation": "h", "bgcolor": "rgba(0,0,0,0)"},
}
"""Room for the scale of a heat map at the right; the buttons are above."""
CHANCE = 0.5
"""AUC of guessing."""


def faded(colour: str, share: float) -> str:
    """A hue with an opacity from 0 to 1."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share:g})"


def percent(share: float) -> str:
    """A share from 0 to 1 in whole per cent."""
    return f"{100 * share:.0f} %"


def short_digest(digest: str) -> str:
    """The beginning of a digest: enough to tell two data sets apart."""
    return digest.removeprefix("sha256:")[:12]


def depths(layers: Sequence[int], blocks: int) -> list[float]:
    """Depth of each layer, 0 (embedding) to 1 (output of the last block)."""
    return [round(layer / max(blocks, 1), 6) for layer in layers]


def layout(**more: Any) -> dict[str, Any]:
    """A layout in which page and text have no colours of their own."""
    base: dict[str, Any] = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 64, "r": 40, "t": 24, "b": 56},
        "height": 420,
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "font": {"size": 12}},
        "modebar": {"orientation": "v", "bgcolor": "rgba(0,0,0,0)"},
    }
    return {**base, **more}


def layer_axis(layers: Sequence[int], title: str = "Layer (0 is the embedding)", **more: Any) -> dict[str, Any]:
    """An axis over layers whose ticks are layers that were measured."""
    step = next(size for size in (1, 2, 3, 4, 5, 8, 10, 16, 20, 32, 64) if len(layers) / size <= 12 or size == 64)
    shown = list(layers[::step])
    if shown and layers[-1] != shown[-1]:
        near = len(shown) > 1 and layers[-1] - shown[-1] < 0.6 * (shown[-1] - shown[-2])
        shown = [*(shown[:-1] if near else shown), layers[-1]]
    return {
        "title": {"text": title, "standoff": 8},
        "tickmode": "array",
        "tickvals": shown,
        "ticktext": [str(layer) for layer in shown],
        "zeroline": False,
        **more,
    }


def square(columns: Sequence[int], rows: Sequence[int], x_title: str, y_title: str, **more: Any) -> dict[str, Any]:
    """The layout of layers by layers; a narrow page may take the width out."""
    return layout(
        height=500,
        width=580,
        xaxis=layer_axis(columns, x_title, constrain="domain", showgrid=False, range=edges(columns)),
        yaxis=layer_axis(rows, y_title, constrain="domain", showgrid=False, range=edges(rows), scaleanchor="x"),
        **{**FOR_SCALE, **more},
    )


def edges(layers: Sequence[int]) -> list[float]:
    """From the outer edge of the first cell to that of the last: cells end half way to their neighbours."""
    first = layers[1] - layers[0] if len(layers) > 1 else 1
    last = layers[-1] - layers[-2] if len(layers) > 1 else 1
    return [layers[0] - first / 2, layers[-1] + last / 2]


def level_line(at: float) -> dict[str, Any]:
    """A thin line across the plot: chance, zero."""
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": at, "y1": at, "layer": "below",
        "line": {"color": GREY, "width": 1, "dash": "dot"},
    }  # fmt: skip


def score_range(traces: Sequence[dict[str, Any]]) -> list[float]:
    """From below chance to 1, and further down where a curve goes there."""
    values = [value for trace in traces for value in trace["y"] if value is not None]
    return [max(-0.02, min([*values, 0.45]) - 0.03), 1.02]


def line(
    name: str, x: Sequence[float], y: Series, colour: str, *, dash: str = "solid", symbol: str = "circle", **more: Any
) -> dict[str, Any]:
    """A curve with markers; None makes a gap, and a point between two gaps is still seen."""
    marker = {"symbol": symbol, "size": 6, "color": colour}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "connectgaps": False,
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": marker,
        "hovertemplate": "layer %{x}: %{y:.3f}",
        **more,
    }


def band(name: str, x: Sequence[float], low: Series, high: Series, colour: str, **more: Any) -> list[dict[str, Any]]:
    """The area between two curves, one piece for each run of layers where both are known."""
    pieces: list[dict[str, Any]] = []
    for run in _runs(low, high):
        xs = [x[at] for at in run]
        pieces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "legendgroup": name,
                "showlegend": not pieces,
                "x": [*xs, *reversed(xs)],
                "y": [*(high[at] for at in run), *(low[at] for at in reversed(run))],
                "fill": "toself",
                "fillcolor": faded(colour, 0.2),
                "line": {"width": 0, "color": faded(colour, 0.2)},
                "hoverinfo": "skip",
                **more,
            }
        )
    return pieces


def _runs(low: Series, high: Series) -> list[list[int]]:
    runs: list[list[int]] = [[]]
    for at, (one, other) in enumerate(zip(low, high, strict=True)):
        if one is None or other is None:
            runs.append([])
        else:
            runs[-1].append(at)
    return [run for run in runs if run]


def heat(
    x: Sequence[Any],
    y: Sequence[Any],
    z: Sequence[Sequence[float | None]],
    *,
    scale: Any,
    low: float,
    high: float,
    bar: str,
    hover: str,
    **more: Any,
) -> dict[str, Any]:
    """A heat map with its scale beside it; None leaves the cell empty."""
    return {
        "type": "heatmap",
        "x": list(x),
        "y": list(y),
        "z": [list(row) for row in z],
        "colorscale": scale,
        "zmin": low,
        "zmax": high,
        "hoverongaps": False,
        "hovertemplate": f"{hover}<extra></extra>",
        "colorbar": {"title": {"text": bar, "side": "right"}, "thickness": 12, "len": 0.9, "outlinewidth": 0},
        **more,
    }
