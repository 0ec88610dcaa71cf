"""What the summary of a concept says, as rows under its curve: emergence, half depth, peak set."""

from __future__ import annotations

from typing import Any

from neuronmap.abstraction.plots.look import BLUE, GREEN, ORANGE
from neuronmap.abstraction.record import ConceptResult

__all__ = ["mark_rows", "marks"]

_ROWS = ("peak set", "half depth", "emergence")


def mark_rows() -> dict[str, Any]:
    """The axis of the rows, below the curve's."""
    return {
        "domain": [0, 0.17],
        "range": [-0.6, 2.6],
        "tickmode": "array",
        "tickvals": [0, 1, 2],
        "ticktext": list(_ROWS),
        "fixedrange": True,
        "automargin": True,
        "zeroline": False,
        "showgrid": False,
    }


def marks(result: ConceptResult) -> list[dict[str, Any]]:
    """The rows' marks; where a figure is not established, the row says so and why."""
    summary = result.summary
    half = summary.half_depth
    emergence = summary.emergence_interval or ([summary.emergence] * 2 if summary.emergence is not None else None)
    found = [
        _row(2, summary.emergence, emergence, GREEN, "diamond", half.reason),
        _row(1, half.value, [half.low, half.high] if half.low is not None else None, ORANGE, "circle", half.reason),
    ]
    peak = summary.peak
    first, last = result.layers[0], result.layers[-1]
    if peak:
        text = f"peak set: {', '.join(str(layer) for layer in peak)}"
        found.append(_points(0, [float(layer) for layer in peak], BLUE, "square", text))
    else:
        found.append(_words(0, (first + last) / 2, "none: not detected"))
    middle = (first + last) / 2
    return [{**one, "x": [middle]} if one.get("mode") == "text" else one for one in found]


def _row(row: int, value: float | None, interval: Any, colour: str, symbol: str, reason: str | None) -> dict[str, Any]:
    if value is None:
        why = f": {reason.partition(':')[0]}" if reason else ""
        return _words(row, 0, f"not established{why}")
    text = f"{_ROWS[row]}: {value:.2f}".rstrip("0").rstrip(".")
    made = _points(row, [float(value)], colour, symbol, text)
    if interval is not None and None not in interval:
        low, high = float(interval[0]), float(interval[1])
        made["text"] = [f"{text} ({low:.3g} to {high:.3g})"]
        made["error_x"] = {
            "type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low],
            "thickness": 3, "width": 6, "color": colour,
        }  # fmt: skip
    return made


def _points(row: int, x: list[float], colour: str, symbol: str, text: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "x": x, "y": [row] * len(x), "yaxis": "y2", "name": _ROWS[row],
        "marker": {"color": colour, "symbol": symbol, "size": 9}, "text": [text] * len(x), "showlegend": False,
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _words(row: int, x: float, text: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "text", "x": [x], "y": [row], "yaxis": "y2", "name": _ROWS[row], "text": [text],
        "textfont": {"size": 12}, "showlegend": False, "hoverinfo": "skip",
    }  # fmt: skip
