"""Explained variance over L0 as SVG: a panel for each hook, a line for each architecture and width. Opens from a disk, needs no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Point", "pareto_svg"]

_WIDE, _TALL = 430, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 30, 44
_LINE = 18
_COLOURS = ("#4c6ef5", "#e8590c", "#2b8a3e", "#9c36b5", "#c92a2a", "#1098ad", "#846358", "#5f3dc4")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#212529}.soft{fill:#6c757d}.grid{stroke:#dee2e6}.back{fill:#fff}"
    "@media (prefers-color-scheme:dark){text{fill:#e9ecef}.soft{fill:#adb5bd}.grid{stroke:#343a40}.back{fill:#16181b}}"
)


class Point(NamedTuple):
    """One SAE.

    Attributes:
        series: architecture and width: points of one series are joined.
        l0, explained: its place.
        name: shown when it is pointed at.
        front: whether no other beats it; drawn filled.
    """

    series: str
    l0: float
    explained: float
    name: str
    front: bool


def pareto_svg(panels: Mapping[str, Sequence[Point]]) -> str:
    """The drawing as one SVG document.

    Args:
        panels: points by hook.
    """
    series = list(dict.fromkeys(point.series for points in panels.values() for point in points))
    legend = _LINE * (len(series) + 2)
    width, height = max(_WIDE * min(len(panels), 2), _WIDE), _TALL * math.ceil(len(panels) / 2) + legend
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="Explained variance over L0"><style>{_STYLE}</style><rect class="back" width="{width}" height="{height}"/>'
    ]
    for number, (hook, points) in enumerate(panels.items()):
        x, y = _WIDE * (number % 2), _TALL * (number // 2)
        parts.append(f'<g transform="translate({x} {y})">{_panel(hook, points, series)}</g>')
    top = height - legend + _LINE
    for number, name in enumerate(series):
        y = top + _LINE * number
        parts.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + 28}" y1="{y - 4}" y2="{y - 4}" {_stroke(number)}/>'
            f'<text x="{_LEFT + 36}" y="{y}">{escape(name)}</text>'
        )
    words = "filled: no other SAE of the hook is better at an L0 as low"
    parts.append(f'<text class="soft" x="{_LEFT}" y="{top + _LINE * len(series)}">{words}</text></svg>\n')
    return "".join(parts)


def _panel(hook: str, points: Sequence[Point], series: Sequence[str]) -> str:
    x_low, x_high = _range([point.l0 for point in points])
    y_low, y_high = _range([point.explained for point in points])

    def place(l0: float, explained: float) -> tuple[float, float]:
        x = _LEFT + (l0 - x_low) / (x_high - x_low) * (_WIDE - _LEFT - _RIGHT)
        y = _TOP + (y_high - explained) / (y_high - y_low) * (_TALL - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    parts = [f'<text x="{_LEFT}" y="18" font-weight="600">{escape(hook)}</text>']
    for value in _ticks(y_low, y_high):
        y = place(x_low, value)[1]
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text class="soft" x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>'
        )
    for value in _ticks(x_low, x_high):
        x = place(value, y_low)[0]
        parts.append(f'<text class="soft" x="{x}" y="{_TALL - _BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    parts.append(
        f'<text class="soft" x="{_WIDE - _RIGHT}" y="{_TALL - 10}" text-anchor="end">L0, active features per activation</text>'
        f'<text class="soft" x="{_LEFT - 46}" y="{_TOP - 4}" font-size="10">EV</text>'
    )
    for number, name in enumerate(series):
        own = sorted((point for point in points if point.series == name), key=lambda point: point.l0)
        if len(own) > 1:
            corners = " ".join(f"{x},{y}" for x, y in (place(point.l0, point.explained) for point in own))
            parts.append(f'<polyline points="{corners}" fill="none" {_stroke(number)}/>')
        for point in own:
            x, y = place(point.l0, point.explained)
            fill = _COLOURS[number % len(_COLOURS)] if point.front else "none"
            about = f"{point.name}: L0 {point.l0:.1f}, explained variance {point.explained:.4f}"
            parts.append(
                f'<circle cx="{x}" cy="{y}" r="4.5" {_stroke(number, fill)}><title>{escape(about)}</title></circle>'
            )
    return "".join(parts)


def _stroke(number: int, fill: str | None = None) -> str:
    dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
    dashes = f' stroke-dasharray="{dash}"' if dash and fill is None else ""
    filled = f' fill="{fill}"' if fill is not None else ""
    return f'stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-width="1.6"{dashes}{filled}'


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or max(abs(high) * 0.1, 0.01)
    return low - room, high + room


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    size = 10 ** math.floor(math.log10((high - low) / most))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (size * factor) <= most)
    first = math.ceil(low / step)
    return [round(number * step, 10) for number in range(first, math.floor(high / step) + 1)]
