"""The leaderboard as pages and routes show it: the table, its plots, and what can be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Query
from pydantic import BaseModel, Field, StringConstraints

from neuronmap.evaluation.suites.record import SUITES
from neuronmap.hub.leaderboard import leaderboard
from neuronmap.hub.leaderboard_record import Leaderboard, LeaderboardColumn, RankedSAE
from neuronmap.paths import public_name
from neuronmap.web.errors import WebError
from neuronmap.web.explorer import Explorer
from neuronmap.web.views.concepts.plots import PlotDocument, ShownPlot

__all__ = ["BoardQuery", "BoardQueryOf", "LeaderboardPage", "board_of", "board_plot", "leaderboard_page"]

_FRONT = "front"
_FRONT_HUE, _OTHER_HUE = "#d9650f", "#2b83c6"
_NAMED_AT_MOST = 12
"""Points of the front whose names stand in the plot; of more they would cover each other, and the table has them."""
_MARGIN = {"l": 64, "r": 16, "t": 40, "b": 52}

_Word = Annotated[str, StringConstraints(max_length=300)]


class BoardQuery(BaseModel):
    """What is compared. An empty text is none."""

    suite: str = Field(default="core", max_length=30, description=f"One of {', '.join(SUITES)}.")
    model: str = Field(default="", max_length=300, description="Language model; * and ? as in file names.")
    layer: int | None = Field(default=None, ge=0, le=10_000, description="Block, counted from 0.")
    hook: str = Field(default="", max_length=300, description="Component (residual, mlp, ...) or exact hook.")
    architecture: str = Field(default="", max_length=100, description="topk, batchtopk, ...")
    features: str = Field(default="", max_length=60, description="Number of features: LOW:HIGH, or one number.")
    l0: str = Field(default="", max_length=60, description="Measured L0: LOW:HIGH, or one number.")
    tag: list[_Word] = Field(default=[], max_length=20, description="Tags that must all be there.")
    metric: list[_Word] = Field(default=[], max_length=20, description="Columns; the chief ones when left out.")
    sort: str = Field(default="", max_length=100, description="A column, best first; or l0, features, name.")
    group: str = Field(
        default="", max_length=80, description="Beginning of a comparison key; the largest group if none."
    )

    def address(self, path: str) -> str:
        """An address with this query."""
        given = {name: value for name, value in self.model_dump().items() if value not in ("", None, [])}
        if given.get("suite") == "core":
            del given["suite"]
        return f"{path}?{urlencode(given, doseq=True)}" if given else path


BoardQueryOf = Annotated[BoardQuery, Query()]


class LeaderboardPage(BaseModel):
    """SAEs of one model and hook side by side."""

    board: Leaderboard
    plots: list[ShownPlot] = Field(description="The front against L0, then each metric with its intervals.")
    csv: str = Field(description="Address of the table as CSV.")
    suites: list[str]
    models: list[str] = Field(description="Language models of the library, to choose from.")
    hooks: list[str]
    architectures: list[str]


def board_of(explorer: Explorer, asked: BoardQuery) -> Leaderboard:
    """The leaderboard that was asked for.

    Raises:
        ConfigError: a suite, metric or group that there is not, or a range that cannot be read.
    """
    return leaderboard(
        explorer.hub,
        suite=asked.suite or "core",
        model=asked.model or None,
        layer=asked.layer,
        hook=asked.hook or None,
        architecture=asked.architecture or None,
        tag=[tag for tag in asked.tag if tag],
        features=asked.features or None,
        l0=asked.l0 or None,
        metrics=[name for name in asked.metric if name],
        sort=asked.sort or None,
        group=asked.group or None,
    )


def leaderboard_page(explorer: Explorer, asked: BoardQuery) -> LeaderboardPage:
    """The page: table, plots, and the values that its form offers."""
    board = board_of(explorer, asked)
    entries = [entry for entry in explorer.entries() if not entry.problem]
    return LeaderboardPage(
        board=board,
        plots=[_shown(plot, asked) for plot in _plots(board)],
        csv=asked.address("/api/sae/leaderboard.csv"),
        suites=list(SUITES),
        models=sorted({public_name(entry.model) for entry in entries if entry.model}),
        hooks=sorted({entry.hook for entry in entries if entry.hook}),
        architectures=sorted({entry.architecture for entry in entries}),
    )


def board_plot(board: Leaderboard, name: str) -> PlotDocument:
    """One of the plots of a leaderboard.

    Raises:
        WebError: 404, it has no such plot.
    """
    found = _plots(board)
    for one in found:
        if one.name == name:
            return one
    names = ", ".join(one.name for one in found) or "none"
    raise WebError(404, "not_found", f"This leaderboard has no plot '{name}'.", hint=f"It has {names}.")


# --- plots --------------------------------------------------------------------------------------------------------------


def _shown(plot: PlotDocument, asked: BoardQuery) -> ShownPlot:
    address = f"/api/sae/leaderboard/plots/{quote(plot.name, safe='')}"
    made = ShownPlot(
        name=plot.name,
        title=plot.title,
        about=plot.about,
        figure=asked.address(address),
        csv=asked.address(f"{address}.csv"),
    )
    made._figure = plot.figure
    return made


def _plots(board: Leaderboard) -> list[PlotDocument]:
    front = next((one for one in board.metrics if one.name == board.front_metric), None)
    found = [_front_plot(board, front)] if front is not None else []
    plots = [*found, *(_metric_plot(board, metric) for metric in board.metrics)]
    return [plot for plot in plots if plot.rows]


def _front_plot(board: Leaderboard, metric: LeaderboardColumn) -> PlotDocument:
    name = metric.name
    there = [row for row in board.rows if row.l0.value is not None and row.figures[name].value is not None]
    there.sort(key=lambda row: row.l0.value or 0.0)
    front, rest = [row for row in there if row.on_front], [row for row in there if not row.on_front]
    traces = [
        _points(rows, name, title, hue, mode)
        for rows, title, hue, mode in (
            (rest, "others", _OTHER_HUE, "markers"),
            (front, "on the front", _FRONT_HUE, "lines+markers"),
        )
        if rows
    ]
    if 0 < len(front) <= _NAMED_AT_MOST:
        words = {**_points(front, name, "", _FRONT_HUE, "text"), "error_y": None, "showlegend": False}
        traces.append(
            {**words, "textposition": "middle right", "text": [f"\u00a0\u00a0{one}" for one in words["text"]]}
        )
    sizes = [row.l0.value or 0.0 for row in there]
    return PlotDocument(
        name=_FRONT,
        title=f"{metric.title} against L0",
        about=f"Each point is an SAE; lines are 95 % intervals. On the front no other SAE has {metric.title} as good at an L0 as low "
        f"({metric.better} is better). A front is of the values; where intervals overlap it may be chance.",
        columns=["sae", "l0", name, f"{name}_low", f"{name}_high", "on_front"],
        rows=[[row.sae, row.l0.value, *_ends(row, name), row.on_front] for row in there],
        figure={
            "data": traces,
            "layout": {
                "xaxis": {"title": {"text": "active features a token (L0)"}, "range": _roomy(sizes)},
                "yaxis": {"title": {"text": metric.title}},
                "hovermode": "closest",
                "legend": {"orientation": "h", "y": 1.08},
                "margin": _MARGIN,
                "height": 420,
            },
        },
    )


def _roomy(values: Sequence[float]) -> list[float]:
    """A range with room for names to the right of the last point."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    size = (high - low) or high or 1.0
    return [max(low - 0.08 * size, 0.0), high + 0.3 * size]


def _points(rows: Sequence[RankedSAE], name: str, title: str, hue: str, mode: str) -> dict[str, Any]:
    values = [row.figures[name].value for row in rows]
    return {
        "type": "scatter",
        "mode": mode,
        "name": title,
        "x": [row.l0.value for row in rows],
        "y": values,
        "text": [row.sae.rsplit("/", 1)[-1] for row in rows],
        "error_y": _whiskers(rows, name),
        "marker": {"color": hue, "size": 9},
        "line": {"color": hue, "width": 1.4},
    }


def _whiskers(rows: Sequence[RankedSAE], name: str) -> dict[str, Any] | None:
    figures = [row.figures[name] for row in rows]
    if not any(figure.has_interval for figure in figures):
        return None
    # a resample's percentile may lie on the other side of the figure by a hair
    up = [max((one.high or 0.0) - (one.value or 0.0), 0.0) if one.has_interval else None for one in figures]
    down = [max((one.value or 0.0) - (one.low or 0.0), 0.0) if one.has_interval else None for one in figures]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down}


def _metric_plot(board: Leaderboard, metric: LeaderboardColumn) -> PlotDocument:
    """The SAEs in the order of the table, from the top down; what is not established has no point."""
    name, rows = metric.name, board.rows
    places = list(range(len(rows) - 1, -1, -1))
    there = [(row, place) for row, place in zip(rows, places, strict=True) if row.figures[name].value is not None]
    points = _points([row for row, _ in there], name, name, _OTHER_HUE, "markers")
    trace = {
        **points,
        "x": points["y"],
        "y": [place for _, place in there],
        "error_x": points["error_y"],
        "error_y": None,
    }
    said = f"{metric.better} is better" if metric.better else "neither side is better by itself"
    absent = len(rows) - len(there)
    return PlotDocument(
        name=f"metric-{name}",
        title=metric.title,
        about=f"{metric.about} ({said}). Lines are 95 % intervals, whole contexts resampled; a point without one has none stored."
        + (f" {absent} without a figure {'has' if absent == 1 else 'have'} no point." if absent else ""),
        columns=["sae", "l0", name, f"{name}_low", f"{name}_high"],
        rows=[[row.sae, row.l0.value, *_ends(row, name)] for row in rows] if there else [],
        figure={
            "data": [trace],
            "layout": {
                "xaxis": {"title": {"text": metric.title}, "range": _around([row for row, _ in there], name)},
                "yaxis": {
                    "tickvals": places,
                    "ticktext": [f"{row.sae.rsplit('/', 1)[-1]}  L0 {_l0(row)}" for row in rows],
                    "range": [-0.6, len(rows) - 0.4],
                    "automargin": True,
                },
                "margin": _MARGIN,
                "height": 110 + 30 * len(rows),
                "showlegend": False,
            },
        },
    )


def _around(rows: Sequence[RankedSAE], name: str) -> list[float]:
    """A range that holds all figures and intervals."""
    ends = [end for row in rows for end in _ends(row, name) if end is not None] or [0.0]
    low, high = min(ends), max(ends)
    size = (high - low) or abs(high) or 1.0
    return [low - 0.04 * size, high + 0.04 * size]


def _l0(row: RankedSAE) -> str:
    return "–" if row.l0.value is None else f"{row.l0.value:.3g}"


def _ends(row: RankedSAE, name: str) -> list[float | None]:
    figure = row.figures[name]
    return [figure.value, figure.low, figure.high]
