"""Small plots as inline SVG: drawn on the server, readable without scripts, coloured by the style sheet.

Classes used by ``explorer.css``: ``chart``, ``bar``, ``line``, ``axis``, ``grid``, ``tick``, ``mark``, ``series-0`` to ``series-5``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

__all__ = ["Series", "bars", "heat", "histogram", "lines", "spark", "ticks"]

_WIDE, _TALL = 360, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 10, 8, 34
_SERIES = 6


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        name: in the legend.
        x, y: its points; None or NaN in ``y`` makes a gap.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None] = field(default_factory=list)


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most about ``most``."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    size = 10 ** math.floor(math.log10((high - low) / max(most, 1)))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (size * factor) <= most + 1)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def shown(value: float) -> str:
    """A number at an axis: 12k, 3.5M, 0.02, 1e-5."""
    size = abs(value)
    if size >= 1e9:
        return f"{value / 1e9:g}G"
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 1e4:
        return f"{value / 1e3:g}k"
    if size == 0 or size >= 1e-3:
        return f"{value:.4g}"
    return f"{value:.0e}".replace("e-0", "e-")


def bars(
    counts: Sequence[float],
    titles: Sequence[str],
    label: str,
    *,
    links: Sequence[str] = (),
    low: str = "",
    high: str = "",
    chosen: int | None = None,
    root: bool = True,
    height: int = 70,
) -> Markup:
    """Bars without axes, for cards and small places; each has its numbers in a title.

    Args:
        counts: heights.
        titles: what each bar says when pointed at.
        label: what the plot shows, for those who do not see it.
        links: where each bar leads; empty for nowhere.
        low, high: what stands below the ends.
        chosen: the bar that is marked.
        root: heights by square root, so that rare ones are seen.
        height: of the plot.
    """
    sizes = [math.sqrt(count) if root else count for count in counts]
    most = max(sizes, default=0) or 1
    wide = 300 / max(len(sizes), 1)
    parts = []
    for at, size in enumerate(sizes):
        tall = max(height * size / most, 1.5) if size else 0
        mark = " mark" if at == chosen else ""
        rect = (
            f'<rect class="bar{mark}" x="{at * wide + wide * 0.06:.1f}" y="{height - tall:.1f}" width="{wide * 0.88:.1f}" '
            f'height="{tall:.1f}"/><rect class="over" x="{at * wide:.1f}" y="0" width="{wide:.1f}" height="{height}">'
            f"<title>{escape(titles[at])}</title></rect>"
        )
        if links and links[at]:
            rect = f'<a href="{escape(links[at])}" aria-label="{escape(titles[at])}">{rect}</a>'
        parts.append(rect)
    ends = (
        f'<p class="ends" aria-hidden="true"><span>{escape(low)}</span><span>{escape(high)}</span></p>'
        if low or high
        else ""
    )
    role = "group" if links else "img"
    return Markup(
        f'<svg class="chart bars" viewBox="0 0 300 {height}" preserveAspectRatio="none" role="{role}" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>{ends}"
    )


def spark(counts: Sequence[float], label: str, *, height: int = 36) -> Markup:
    """Bars as one shape, for places where there are many plots: heights by square root, no numbers of single bars.

    Args:
        counts: heights.
        label: what the plot shows, for those who do not see it.
        height: of the plot.
    """
    sizes = [math.sqrt(count) for count in counts]
    most, wide = max(sizes, default=0) or 1, 300 / max(len(sizes), 1)
    path = "".join(
        f"M{at * wide:.0f} {height}v{-max(height * size / most, 1.5):.1f}h{wide * 0.88:.1f}V{height}z"
        for at, size in enumerate(sizes)
        if size
    )
    frame = (
        '<svg class="chart bars" viewBox="0 0 300 {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    )
    return Markup(frame).format(height, label, Markup('<path class="bar" d="{}"/>').format(path))


def histogram(
    counts: Sequence[float],
    edges: Sequence[float],
    label: str,
    *,
    x_name: str,
    y_name: str,
    titles: Sequence[str] = (),
    extra: tuple[str, float] | None = None,
) -> Markup:
    """Bars with axes.

    Args:
        counts: heights.
        edges: one more than counts; ticks are read at them.
        label: what it shows.
        x_name, y_name: of the axes, with units.
        titles: of each bar; made from counts and edges when left out.
        extra: name and height of a bar apart, left of the others (``never``).
    """
    tops = [*counts, *([extra[1]] if extra else [])]
    highest = max(tops, default=0) or 1
    apart = 48 if extra else 0
    left = _LEFT + apart
    wide = (_WIDE - left - _RIGHT) / max(len(counts), 1)
    base = _TALL - _BOTTOM

    def y_of(value: float) -> float:
        return base - (base - _TOP) * value / highest

    parts = [_y_axis(0, highest, y_of)]
    if extra:
        parts.append(_bar(_LEFT + 4, 22, y_of(extra[1]), base, f"{extra[0]}: {extra[1]:,.0f}", "bar never"))
        parts.append(
            f'<text class="tick" x="{_LEFT + 15}" y="{base + 14}" text-anchor="middle">{escape(extra[0])}</text>'
        )
    for at, count in enumerate(counts):
        title = titles[at] if titles else f"{shown(edges[at])} to {shown(edges[at + 1])}: {count:,.0f}"
        parts.append(_bar(left + at * wide, wide * 0.92, y_of(count), base, title))
    low, high = edges[0], edges[-1]
    for tick in ticks(low, high, 5):
        x = left + (_WIDE - left - _RIGHT) * (tick - low) / ((high - low) or 1)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{base + 14}" text-anchor="middle">{escape(shown(tick))}</text>'
        )
    return _framed(parts, label, x_name, y_name)


def lines(series: Sequence[Series], label: str, *, x_name: str, y_name: str, zero: bool = False) -> Markup:
    """Curves with axes and, for more than one, a legend.

    Args:
        series: at most six; without points there is a sentence instead.
        label: what it shows.
        x_name, y_name: of the axes, with units.
        zero: let the y axis begin at 0.
    """
    found = [(x, y) for one in series for x, y in zip(one.x, one.y, strict=True) if y is not None and math.isfinite(y)]
    if not found:
        return Markup('<p class="soft">No points yet.</p>')
    xs, ys = [x for x, _ in found], [y for _, y in found]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = (min(0.0, min(ys)) if zero else min(ys)), max(ys)
    if y_high - y_low < 1e-12 * max(abs(y_high), 1):
        y_low, y_high = y_low - 0.5 * (abs(y_low) or 1), y_high + 0.5 * (abs(y_high) or 1)
    base = _TALL - _BOTTOM

    def x_of(value: float) -> float:
        return _LEFT + (_WIDE - _LEFT - _RIGHT) * (value - x_low) / ((x_high - x_low) or 1)

    def y_of(value: float) -> float:
        return base - (base - _TOP) * (value - y_low) / (y_high - y_low)

    parts = [_y_axis(y_low, y_high, y_of)]
    parts += [
        f'<text class="tick" x="{x_of(tick):.1f}" y="{base + 14}" text-anchor="middle">{escape(shown(tick))}</text>'
        for tick in ticks(x_low, x_high, 4)
    ]
    for at, one in enumerate(series[:_SERIES]):
        parts.append(_line(one, at, x_of, y_of))
    legend = ""
    if len(series) > 1:
        keys = "".join(f'<li class="series-{at}">{escape(one.name)}</li>' for at, one in enumerate(series[:_SERIES]))
        legend = f'<ul class="legend">{keys}</ul>'
    return Markup(_framed(parts, label, x_name, y_name) + Markup(legend))


def heat(
    values: Sequence[Sequence[float | None]], names: Sequence[str], label: str, titles: Sequence[Sequence[str]]
) -> Markup:
    """A square table of values from -1 to 1 as shades, with the numbers in it.

    Args:
        values: one row a name.
        names: of rows and columns.
        label: what it shows.
        titles: of each cell.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = []
    for name, row, said in zip(names, values, titles, strict=True):
        cells = "".join(
            f'<td class="{_shade(value)}" title="{escape(title)}">{"" if value is None else f"{value:.2f}"}</td>'
            for value, title in zip(row, said, strict=True)
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return Markup(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table class="heat"><caption class="hidden">'
        f"{escape(label)}</caption><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _shade(value: float | None) -> str:
    if value is None:
        return ""
    level = min(20, round(20 * abs(value)))
    return f"{'a' if value >= 0 else 'n'}{level}" if level else ""


def _bar(x: float, wide: float, y: float, base: float, title: str, kind: str = "bar") -> str:
    tall = max(base - y, 0)
    return (
        f'<g><rect class="{kind}" x="{x:.1f}" y="{base - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'
        f'<rect class="over" x="{x:.1f}" y="{_TOP}" width="{wide:.1f}" height="{base - _TOP:.1f}"><title>{escape(title)}</title></rect></g>'
    )


def _y_axis(low: float, high: float, y_of: Callable[[float], float]) -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y_of(tick):.1f}" y2="{y_of(tick):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 5}" y="{y_of(tick) + 4:.1f}" text-anchor="end">{escape(shown(tick))}</text>'
        for tick in ticks(low, high, 4)
    )


def _line(one: Series, at: int, x_of: Callable[[float], float], y_of: Callable[[float], float]) -> str:
    points, path, pen = list(zip(one.x, one.y, strict=True)), [], "M"
    for x, y in points:
        if y is None or not math.isfinite(y):
            pen = "M"
            continue
        path.append(f"{pen}{x_of(x):.1f} {y_of(y):.1f}")
        pen = "L"
    single = sum(1 for _, y in points if y is not None) == 1
    if single:
        x, y = next((x, y) for x, y in points if y is not None)
        return f'<circle class="dot series-{at}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3"/>'
    return f'<path class="line series-{at}" d="{" ".join(path)}"><title>{escape(one.name)}</title></path>'


def _framed(parts: Sequence[str], label: str, x_name: str, y_name: str) -> Markup:
    base = _TALL - _BOTTOM
    return Markup(
        f'<svg class="chart axes" viewBox="0 0 {_WIDE} {_TALL}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}"
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{base}" y2="{base}"/>'
        f'<text class="name" x="{(_LEFT + _WIDE) / 2}" y="{_TALL - 4}" text-anchor="middle">{escape(x_name)}</text>'
        f'<text class="name" x="11" y="{(base + _TOP) / 2}" text-anchor="middle" transform="rotate(-90 11 {(base + _TOP) / 2})">'
        f"{escape(y_name)}</text></svg>"
    )
