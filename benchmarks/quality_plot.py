"""Pareto plots of the sheet: every figure over L0, one column an architecture, one line a library, with bands over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quality_cells import ARCHITECTURES, LIBRARIES
from quality_record import Place, best_place, default_place

COLOURS = dict(zip(LIBRARIES, ("tab:blue", "tab:orange", "tab:green"), strict=True))
PLOTTED = (
    ("explained_variance", "explained variance"),
    ("ce_recovered_mean", "CE recovered (mean)"),
    ("auc_5", "probing AUC, k = 5"),
)


def curve(places: list[Place], name: str) -> list[tuple[float, float, float, float]]:
    """L0, mean, lowest and highest seed of the places that have the figure, by L0."""
    found = []
    for place in places:
        mean, span, l0 = place.mean(name), place.span(name), place.mean("l0")
        if mean is not None and span is not None and l0 is not None:
            found.append((float(place.l0) if place.fair else l0, mean, *span))
    return sorted(found)


def draw_pareto(record: dict[str, Any], features: int) -> Any:
    """A matplotlib figure of one width: solid with a band the best settings, dotted the defaults where they are others."""
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(
        len(PLOTTED),
        len(ARCHITECTURES),
        figsize=(3.1 * len(ARCHITECTURES), 8),
        sharex=True,
        sharey=False,
        layout="constrained",
    )
    l0s = sorted(record["grid"]["l0s"])
    for column, architecture in enumerate(ARCHITECTURES):
        axes[0][column].set_title(architecture)
        for library, colour in COLOURS.items():
            best = [best_place(record, library, architecture, features, l0) for l0 in l0s]
            other = [default_place(record, library, architecture, features, l0) for l0 in l0s]
            for row, (name, title) in enumerate(PLOTTED):
                axis = axes[row][column]
                _line(axis, curve(best, name), colour, "-", band=True)
                if best[0].variant != "default":
                    _line(axis, curve(other, name), colour, ":", band=False)
                if column == 0:
                    axis.set_ylabel(title)
    for axis in axes.flat:
        axis.set_xscale("log", base=2)
        axis.set_xticks(l0s, [str(l0) for l0 in l0s])
        axis.set_xlim(l0s[0] / 1.2, l0s[-1] * 1.2)
        axis.grid(True, alpha=0.25)
    for axis in axes[-1]:
        axis.set_xlabel("L0")
    _legend(axes[0][0])
    return drawn


def _line(axis: Any, points: list[tuple[float, float, float, float]], colour: str, style: str, *, band: bool) -> None:
    if not points:
        return
    l0, mean, low, high = zip(*points, strict=True)
    axis.plot(l0, mean, style, marker="o" if band else ".", markersize=4, color=colour)
    if band:
        axis.fill_between(l0, low, high, color=colour, alpha=0.2, linewidth=0)


def _legend(axis: Any) -> None:
    for library, colour in COLOURS.items():
        axis.plot([], [], "-", color=colour, label=library)
    axis.plot([], [], ":", color="black", label="default settings")
    axis.legend(fontsize="small")


def save_plots(record: dict[str, Any], folder: Path, stem: str) -> dict[int, Path]:
    """One SVG for each width that has runs."""
    from matplotlib import pyplot

    found = {}
    for features in record["grid"]["widths"]:
        if any(run["run"]["features"] == features for run in record["runs"]):
            file = folder / f"{stem}-{features}.svg"
            folder.mkdir(parents=True, exist_ok=True)
            drawn = draw_pareto(record, features)
            drawn.savefig(file, metadata={"Date": None})
            pyplot.close(drawn)
            found[features] = file
    return found
