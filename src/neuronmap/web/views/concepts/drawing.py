"""Line plots drawn on the server: the figure that Plotly would draw, as SVG that is read without scripts.

Taken from a figure: traces of the type ``scatter`` on the first axes (lines, points, areas, intervals, words), lines and areas across the
plot, and ticks. What is hidden until it is asked for stays hidden. Sizes are those of the ``viewBox``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from neuronmap.web.charts import shown, ticks

__all__ = ["draw"]

_WIDE, _RIGHT, _TOP, _BOTTOM = 640, 14, 10, 44
_DASHES = {"dash": "7 4", "dot": "2 3", "dashdot": "8 3 2 3", "longdash": "12 4", "longdashdot": "12 4 2 4"}
_LETTER = 6.4
"""Width of a letter at an axis."""


@dataclass(frozen=True)
class _Frame:
    """Where values lie on the paper."""

    left: float
    tall: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    log: bool

    @property
    def base(self) -> float:
        return self.tall - _BOTTOM

    def x(self, value: float) -> float:
        share = (value - self.x_low) / ((self.x_high - self.x_low) or 1)
        return self.left + (_WIDE - self.left - _RIGHT) * share

    def y(self, value: float) -> float:
        value = math.log10(max(value, 1e-12)) if self.log else value
        share = (value - self.y_low) / ((self.y_high - self.y_low) or 1)
        return self.base - (self.base - _TOP) * min(max(share, -0.02), 1.02)


def draw(figure: dict[str, Any], label: str) -> Markup:
    """A figure as SVG with a legend; empty for figures that are not made of lines and points.

    Args:
        figure: ``data`` and ``layout``, as Plotly takes them.
        label: what it shows, for those who do not see it.
    """
    traces = [one for one in figure.get("data", []) if _is_drawn(one)]
    layout = figure.get("layout", {})
    frame = _frame(traces, layout)
    if frame is None or any(one["type"] != "scatter" for one in figure["data"]):
        return Markup("")
    parts = [*_shapes(layout, frame), *_y_axis(layout, frame), *_x_axis(layout, frame)]
    for one in sorted(traces, key=lambda trace: trace.get("fill") != "toself"):
        parts += _trace(one, frame)
    named = " named" if layout.get("yaxis", {}).get("ticktext") else ""
    svg = (
        f'<svg class="chart drawn{named}" viewBox="0 0 {_WIDE} {frame.tall:.0f}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
    return Markup(svg) + _legend(traces)


def _is_drawn(trace: dict[str, Any]) -> bool:
    return (
        trace.get("type") == "scatter"
        and trace.get("yaxis", "y") == "y"
        and trace.get("visible", True) is True
        and any(x is not None and y is not None for x, y in zip(trace["x"], trace["y"], strict=True))
    )


def _frame(traces: Sequence[dict[str, Any]], layout: dict[str, Any]) -> _Frame | None:
    x_axis, y_axis = layout.get("xaxis", {}), layout.get("yaxis", {})
    log = y_axis.get("type") == "log"
    xs = [x for one in traces for x in one["x"] if x is not None]
    ys = [y for one in traces for end in _ends(one, "y") for y in end if y is not None]
    if not xs or not ys or not all(isinstance(value, int | float) for value in [*xs, *ys]):
        return None
    ys = [math.log10(max(y, 1e-12)) for y in ys] if log else ys
    low, high = y_axis.get("range") or _padded(min(ys), max(ys))
    if y_axis.get("rangemode") == "tozero" and not log:
        low = min(0.0, low)
    x_low, x_high = x_axis.get("range") or _padded(min(xs), max(xs), 0.015)
    named = [str(text) for text in y_axis.get("ticktext", [])]
    left = min(260.0, 26 + _LETTER * max(map(len, named))) if named else 58.0
    tall = 78 + 30 * len(named) if named else 270
    return _Frame(left, tall, float(x_low), float(x_high), float(low), float(high), log)


def _padded(low: float, high: float, share: float = 0.05) -> tuple[float, float]:
    size = (high - low) or abs(high) or 1.0
    return low - share * size, high + share * size


def _ends(trace: dict[str, Any], axis: str) -> Iterator[list[float | None]]:
    """The values themselves, and both ends of their intervals."""
    values = list(trace[axis])
    yield values
    error = trace.get(f"error_{axis}")
    if error:
        for side, sign in (("array", 1), ("arrayminus", -1)):
            yield [
                None if value is None or size is None else value + sign * size
                for value, size in zip(values, error.get(side) or [None] * len(values), strict=True)
            ]


# --- parts -------------------------------------------------------------------------------------------------------------


def _shapes(layout: dict[str, Any], frame: _Frame) -> Iterator[str]:
    right = _WIDE - _RIGHT
    for one in layout.get("shapes", []):
        if one["type"] == "rect":
            top, bottom = frame.y(one["y1"]), frame.y(one["y0"])
            yield f'<rect class="shade" x="{frame.left}" y="{top:.1f}" width="{right - frame.left:.1f}" height="{bottom - top:.1f}"/>'
        elif one["y0"] == one["y1"] and frame.y_low <= one["y0"] <= frame.y_high:
            yield f'<line class="level" x1="{frame.left}" x2="{right}" y1="{frame.y(one["y0"]):.1f}" y2="{frame.y(one["y0"]):.1f}"/>'


def _y_axis(layout: dict[str, Any], frame: _Frame) -> Iterator[str]:
    axis = layout.get("yaxis", {})
    if axis.get("ticktext"):
        marks = [(float(value), str(text)) for value, text in zip(axis["tickvals"], axis["ticktext"], strict=True)]
    elif frame.log:
        powers = range(math.ceil(frame.y_low), math.floor(frame.y_high) + 1)
        marks = [(10.0**power, shown(10.0**power)) for power in powers]
    else:
        marks = [(tick, shown(tick)) for tick in ticks(frame.y_low, frame.y_high, 5)]
    for value, text in marks:
        y = frame.y(value)
        if not axis.get("ticktext"):
            yield f'<line class="grid" x1="{frame.left}" x2="{_WIDE - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        short = text if len(text) <= 36 else f"{text[:35]}…"
        yield f'<text class="tick" x="{frame.left - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(short)}</text>'
    name = _name(axis)
    if name:
        middle = (frame.base + _TOP) / 2
        yield (
            f'<text class="name" x="12" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 12 {middle:.1f})">'
            f"{escape(name)}</text>"
        )


def _x_axis(layout: dict[str, Any], frame: _Frame) -> Iterator[str]:
    axis = layout.get("xaxis", {})
    values = axis.get("tickvals") or ticks(frame.x_low, frame.x_high, 6)
    words = axis.get("ticktext") or [shown(value) for value in values]
    for value, text in zip(values, words, strict=True):
        yield f'<text class="tick" x="{frame.x(value):.1f}" y="{frame.base + 16:.1f}" text-anchor="middle">{escape(str(text))}</text>'
    yield f'<line class="axis" x1="{frame.left}" x2="{_WIDE - _RIGHT}" y1="{frame.base}" y2="{frame.base}"/>'
    middle = (frame.left + _WIDE - _RIGHT) / 2
    yield f'<text class="name" x="{middle:.0f}" y="{frame.tall - 8:.0f}" text-anchor="middle">{escape(_name(axis))}</text>'


def _name(axis: dict[str, Any]) -> str:
    title = axis.get("title") or ""
    return str(title.get("text", "") if isinstance(title, dict) else title)


def _trace(trace: dict[str, Any], frame: _Frame) -> Iterator[str]:
    name, colour = escape(str(trace.get("name", ""))), _colour(trace)
    points = [
        None if x is None or y is None else (frame.x(x), frame.y(y))
        for x, y in zip(trace["x"], trace["y"], strict=True)
    ]
    mode = str(trace.get("mode", "lines"))
    if trace.get("fill") == "toself":
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in filter(None, points))
        yield f'<polygon points="{corners}" fill="{escape(str(trace.get("fillcolor", colour)))}"><title>{name}</title></polygon>'
        return
    if "text" in mode:
        for point, text in zip(points, trace["text"], strict=True):
            if point is not None:
                yield f'<text class="tick" x="{point[0] + 4:.1f}" y="{point[1] + 4:.1f}">{escape(str(text))}</text>'
        return
    yield from _intervals(trace, frame, colour)
    if "lines" in mode:
        dash = _DASHES.get(str(trace.get("line", {}).get("dash", "")), "")
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        wide = float(trace.get("line", {}).get("width", 2))
        yield (
            f'<path d="{_path(points)}" fill="none" stroke="{escape(colour)}" stroke-width="{wide:g}"{dashed}>'
            f"<title>{name}</title></path>"
        )
    if "markers" in mode and sum(point is not None for point in points) <= 60:
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in filter(None, points))
        yield f'<g fill="{escape(colour)}">{dots}</g>'


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    parts, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        parts.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "L"
    return "".join(parts)


def _intervals(trace: dict[str, Any], frame: _Frame, colour: str) -> Iterator[str]:
    for axis in ("x", "y"):
        if not trace.get(f"error_{axis}"):
            continue
        _, highs, lows = _ends(trace, axis)
        others: list[float | None] = trace["y" if axis == "x" else "x"]
        place: Callable[[float], float] = frame.x if axis == "x" else frame.y
        for low, high, other in zip(lows, highs, others, strict=True):
            if low is None or high is None or other is None:
                continue
            one, two = place(low), place(high)
            across = frame.y(other) if axis == "x" else frame.x(other)
            ends = (one, across, two, across) if axis == "x" else (across, one, across, two)
            x1, y1, x2, y2 = ends
            yield f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{escape(colour)}" stroke-width="2"/>'


def _colour(trace: dict[str, Any]) -> str:
    return str(trace.get("line", {}).get("color") or trace.get("marker", {}).get("color") or "currentColor")


def _legend(traces: Sequence[dict[str, Any]]) -> Markup:
    """Each name once, with a piece of its line."""
    lines = [one for one in traces if "text" not in str(one.get("mode", ""))]
    named = {str(one["name"]): one for one in lines if one.get("name") and one.get("showlegend", True)}
    if len(named) < 2:
        return Markup("")
    items = Markup("").join(Markup("<li>{}{}</li>").format(_sample(one), name) for name, one in named.items())
    return Markup('<ul class="keys-of-lines">{}</ul>').format(items)


def _sample(trace: dict[str, Any]) -> Markup:
    if trace.get("fill") == "toself":
        return Markup(
            '<svg viewBox="0 0 26 10" aria-hidden="true"><rect width="26" height="10" fill="{}"/></svg>'
        ).format(str(trace.get("fillcolor", "")))
    dash = _DASHES.get(str(trace.get("line", {}).get("dash", "")), "none")
    return Markup(
        '<svg viewBox="0 0 26 10" aria-hidden="true">'
        '<line x1="0" x2="26" y1="5" y2="5" stroke="{}" stroke-width="2.4" stroke-dasharray="{}"/></svg>'
    ).format(_colour(trace), dash)
