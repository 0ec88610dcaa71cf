"""The L0 sweep of ``ground_truth.py`` as one picture: figures against measured L0, a line a recipe, a band over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from neuronmap.evaluation.synthetic import GroundTruth

PLOTTED = (
    ("f1_latent_mean", "F1, mean over latents"),
    ("cosine", "signed cosine"),
    ("absorption_rate", "absorbed"),
    ("explained_variance", "explained variance"),
)


class Point(NamedTuple):
    """One recipe at one sparsity.

    Attributes:
        l0: measured, mean of the seeds.
        mean, low, high: of the figure: mean, lowest and highest of the seeds.
        seeds: how many have it.
    """

    l0: float
    mean: float
    low: float
    high: float
    seeds: int


def curves(record: dict[str, Any], name: str) -> dict[str, list[Point]]:
    """By recipe, its points from the lowest L0 up; seeds in which the figure is undefined are left out."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for run in record["runs"]:
        rows = {row.name: row.value for row in GroundTruth.from_dict(run["truth"]).rows()}
        l0, value = rows["l0"], rows.get(name)
        if l0 is not None and value is not None:
            found.setdefault(run["recipe"], {}).setdefault(run["setting"], []).append((l0, value))
    return {recipe: sorted(_point(seeds) for seeds in settings.values()) for recipe, settings in found.items()}


def _point(seeds: list[tuple[float, float]]) -> Point:
    values = [value for _, value in seeds]
    return Point(
        statistics.fmean(l0 for l0, _ in seeds), statistics.fmean(values), min(values), max(values), len(values)
    )


def apart(l0s: Iterable[int]) -> list[int]:
    """Those that can stand side by side on a logarithmic axis, from the lowest up: each a sixth above the one before."""
    kept: list[int] = []
    for l0 in sorted(set(l0s)):
        if not kept or l0 >= kept[-1] * 7 / 6:
            kept.append(l0)
    return kept


def draw_sweep(record: dict[str, Any]) -> Any:
    """A matplotlib figure; the dashed line is the true L0, the grey band what probes reach among as many truths as there are latents."""
    from matplotlib import pyplot

    found = {
        name: lines for name, _ in PLOTTED if (lines := curves(record, name))
    }  # nothing is absorbed without a hierarchy
    titles = dict(PLOTTED)
    ticks = apart(round(point.l0) for lines in found.values() for one in lines.values() for point in one)
    drawn, axes = pyplot.subplots(1, len(found), figsize=(4.0 * len(found), 3.6), layout="constrained")
    probes = record["baselines"]["probes_frequent_f1"]
    for axis, (name, lines) in zip(axes, found.items(), strict=True):
        for at, (recipe, points) in enumerate(lines.items()):
            l0s, colour = [point.l0 for point in points], f"C{at}"
            axis.plot(l0s, [point.mean for point in points], "o-", markersize=4, color=colour, label=recipe)
            low, high = [point.low for point in points], [point.high for point in points]
            axis.fill_between(l0s, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.axvline(record["facts"]["l0"], color="black", linestyle="--", linewidth=0.8)
        if name == "f1_latent_mean":
            axis.axhspan(probes["low"], probes["high"], color="tab:gray", alpha=0.3)
        axis.set_title(titles[name], fontsize="medium")
        axis.set_xlabel("L0, measured")
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.grid(True, alpha=0.25)
    axes[0].legend(fontsize="small")
    return drawn


def save_sweep(record: dict[str, Any], file: Path) -> None:
    """Write the picture; the format is that of the file's name."""
    from matplotlib import pyplot

    file.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_sweep(record)
    drawn.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(drawn)
