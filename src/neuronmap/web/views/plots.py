"""Plots of an SAE: what each shows, its numbers, and its drawing. The same numbers are in the page, in its JSON and in the CSV."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from pydantic import BaseModel, Field

from neuronmap.features.export.records import finite
from neuronmap.features.storage.store import FeatureStore
from neuronmap.saes.metadata import BundleInfo
from neuronmap.web import charts

__all__ = ["PLOTS", "Plot", "analysis_plots", "curves", "density_plot", "overlaid", "training_curves"]

HISTORY_FILE = "history.parquet"
_MOST_POINTS = 300
"""Points of a curve that are drawn; the CSV of a curve has these too."""
_L0_BARS = 60

PLOTS = (
    *("density", "l0", "l0-position", "explained-position"),
    *("curve-explained", "curve-loss", "curve-l0", "curve-dead", "curve-rate", "curve-speed"),
)
"""Names of all plots of an SAE; not every SAE has each."""


class Plot(BaseModel):
    """One plot."""

    name: str = Field(description="One of PLOTS; its CSV is at /sae/{id}/-/plot/{name}.csv.")
    title: str
    about: str = Field(description="What it shows, and how to read it.")
    kind: Literal["histogram", "lines"]
    x_name: str
    y_name: str
    columns: list[str]
    rows: list[list[float | int | None]]
    apart: float | None = Field(
        default=None, description="Height of the bar left of the others: features that never fired."
    )

    @property
    def drawn(self) -> Markup:
        """As SVG."""
        if self.kind == "histogram":
            edges = [float(row[0] or 0) for row in self.rows] + [float(self.rows[-1][1] or 0)]
            counts = [float(row[2] or 0) for row in self.rows]
            extra = ("never", self.apart) if self.apart is not None else None
            return charts.histogram(counts, edges, self.title, x_name=self.x_name, y_name=self.y_name, extra=extra)
        found = [
            charts.Series(_words(name), [float(row[0] or 0) for row in self.rows], [row[at] for row in self.rows])
            for at, name in enumerate(self.columns[1:], 1)
        ]
        # a curve with gaps between its points (measured now and then) is joined over them
        series = [_joined(one) for one in found if any(value is not None for value in one.y)]
        return charts.lines(series, self.title, x_name=self.x_name, y_name=self.y_name)

    def table(self) -> Iterator[dict[str, Any]]:
        """Its numbers, row by row, by column."""
        if self.apart is not None:
            yield dict(zip(self.columns, ("never", "never", self.apart), strict=True))
        for row in self.rows:
            yield dict(zip(self.columns, row, strict=True))


def _words(column: str) -> str:
    return column.replace("heldout_", "held-out ").replace("_", " ").replace("l0", "L0").replace("mse", "squared error")


def _joined(one: charts.Series) -> charts.Series:
    points = [(x, y) for x, y in zip(one.x, one.y, strict=True) if y is not None]
    return charts.Series(one.name, [x for x, _ in points], [y for _, y in points])


# --- of an analysis ----------------------------------------------------------------------------------------------------


def analysis_plots(store: FeatureStore) -> list[Plot]:
    """The plots over the whole dictionary."""
    overview = store.overview
    found = [density_plot(overview["density_histogram"]), _l0(overview["l0"])]
    for name, title, about, y_name, values in (
        (
            "l0-position",
            "Active features by position",
            "Mean number of features that are active on a token, by its position in the context. Positions at the very beginning have "
            "little to look back at; those that the mask leaves out are missing.",
            "mean L0",
            overview["l0"]["by_position"],
        ),
        (
            "explained-position",
            "Explained variance by position",
            "Share of the activations' variance that the reconstruction explains, by position in the context, on the coded sample of the "
            f"analysis ({overview['explained_variance']['rows']:,} tokens).",
            "explained variance",
            overview["explained_variance"]["by_position"],
        ),
    ):
        rows = [[at, finite(value)] for at, value in enumerate(values)]
        if any(value is not None for _, value in rows):
            found.append(_lines(name, title, about, "position in the context", y_name, ["position", y_name], rows))
    return found


def density_plot(histogram: dict[str, Any]) -> Plot:
    """Features by density, as :func:`neuronmap.saes.density.density_bins` counts them: edges (log10), counts, never."""
    edges, counts = histogram["edges"], histogram["counts"]
    return Plot(
        name="density",
        title="How often features fire",
        about="Features by density: the share of tokens on which each is active, as power of ten (-3 is one token in a thousand). Features "
        "far right fire on almost everything; the bar apart counts those that never fired on this text.",
        kind="histogram",
        x_name="log10 of density",
        y_name="features",
        columns=["from_log10", "to_log10", "features"],
        rows=[[edges[at], edges[at + 1], count] for at, count in enumerate(counts)],
        apart=histogram["never"],
    )


def _l0(figures: dict[str, Any]) -> Plot:
    """Tokens by active features, in bars of equal width up to the 99.9th percentile; the last bar is open."""
    counts = np.array(figures["histogram"] or [0], np.int64)
    overflow = int(figures["overflow"])
    total = max(int(counts.sum()) + overflow, 1)
    end = int(np.searchsorted(np.cumsum(counts), 0.999 * total)) + 1
    width = max(1, math.ceil(end / _L0_BARS))
    bars = math.ceil(end / width)
    rows: list[list[float | int | None]] = [
        [at * width, (at + 1) * width, int(counts[at * width : (at + 1) * width].sum())] for at in range(bars)
    ]
    beyond = int(counts[bars * width :].sum()) + overflow
    said = f" {beyond:,} tokens with {bars * width:,} or more lie beyond the right end." if beyond else ""
    return Plot(
        name="l0",
        title="Active features a token (L0)",
        about=f"Tokens by how many features are active on them. The mean is {figures['mean']:.1f}.{said}",
        kind="histogram",
        x_name="active features",
        y_name="tokens",
        columns=["from", "below", "tokens"],
        rows=rows,
    )


# --- of the training ---------------------------------------------------------------------------------------------------

_CURVES: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "curve-explained",
        "Explained variance",
        "Share of the variance that the reconstruction explains: of the batch that was being trained on, and of held-out text.",
        "explained variance",
        ("explained_variance", "heldout_explained_variance"),
    ),
    (
        "curve-loss",
        "Loss",
        "The training loss, and the squared error in it, both over the energy of the activation.",
        "loss",
        ("loss", "mse"),
    ),
    (
        "curve-l0",
        "Active features a token (L0)",
        "Mean number of active features a token: in training, and on held-out text.",
        "L0",
        ("l0", "heldout_l0"),
    ),
    (
        "curve-dead",
        "Dead features",
        "Features that have not fired for a stated number of tokens.",
        "features",
        ("dead",),
    ),
    ("curve-rate", "Learning rate", "Step size, with warm-up and decay.", "learning rate", ("learning_rate",)),
    ("curve-speed", "Speed", "Activations trained on in a second.", "tokens/s", ("tokens_per_second",)),
)


def curves(info: BundleInfo) -> list[Plot]:
    """The training curves of a bundle; none where it has no history.

    Raises:
        DamagedError: the history cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from neuronmap.errors import DamagedError

    file = info.folder / HISTORY_FILE
    if not file.is_file():
        return []
    try:
        with pq.ParquetFile(
            file
        ) as history:  # not read_table(): pyarrow imports its datasets for it, and they import pandas
            return training_curves(history.read().to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(f"{HISTORY_FILE} cannot be read ({str(error).splitlines()[0]}).") from error


def training_curves(history: Sequence[Mapping[str, float | None]]) -> list[Plot]:
    """The curves of a training from the rows of its history, of a finished one as of one that runs.

    Args:
        history: rows in order; a figure that was not measured at a row is absent or None.
    """
    rows = [history[at] for at in _spread(history)]
    found = []
    for name, title, about, y_name, columns in _CURVES:
        there = [column for column in columns if any(row.get(column) is not None for row in rows)]
        if there:
            points = [[row.get("tokens"), *(finite(row.get(column)) for column in there)] for row in rows]
            found.append(_lines(name, title, about, "tokens seen", y_name, ["tokens", *there], points))
    return found


def _spread(history: Sequence[Mapping[str, float | None]]) -> list[int]:
    """Rows that are drawn: evenly spread, with the last, and those with a held-out figure, which is measured now and then."""
    even = np.linspace(0, len(history) - 1, min(len(history), _MOST_POINTS)).astype(np.int64)
    rare = [
        at
        for at, row in enumerate(history)
        if any(name.startswith("heldout") and row[name] is not None for name in row)
    ]
    return sorted({*even.tolist(), *(rare if len(rare) <= _MOST_POINTS else rare[:: -(-len(rare) // _MOST_POINTS)])})


def overlaid(runs: Sequence[tuple[str, Sequence[Plot]]], name: str) -> Markup:
    """The same curve of several runs, one over the other.

    Args:
        runs: what each is called, and its curves.
        name: of the curve.
    """
    found = [(run, plot) for run, plots in runs for plot in plots if plot.name == name]
    if not found:
        return Markup('<p class="soft">No points yet.</p>')
    series = [
        _joined(charts.Series(run, [row[0] or 0 for row in plot.rows], [row[1] for row in plot.rows]))
        for run, plot in found
    ]
    first = found[0][1]
    return charts.lines(series, f"{first.title}, of each run", x_name=first.x_name, y_name=first.y_name)


def _lines(
    name: str,
    title: str,
    about: str,
    x_name: str,
    y_name: str,
    columns: list[str],
    rows: list[list[float | int | None]],
) -> Plot:
    return Plot(
        name=name, title=title, about=about, kind="lines", x_name=x_name, y_name=y_name, columns=columns, rows=rows
    )
