"""The growth of the analysis with F and with tokens, as a picture with logarithmic axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis_cells import CONTEXT, OURS, PEER
from analysis_report import growth_points
from speed_report import slope

STYLES = {
    "token pass": ("o-", "tab:blue"),
    "encoder product": ("--", "tab:gray"),
    "weights": ("^:", "tab:green"),
    "store": ("v:", "tab:olive"),
    "SAEDashboard": ("s-", "tab:orange"),
}


def series_of(name: str, groups: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Line -> points (x, seconds); only lines with a point."""
    ours = growth_points(name, groups, OURS)
    lines = {
        "token pass": [(x, found.seconds) for x, found, _ in ours],
        "encoder product": [(x, found.product_s) for x, found, _ in ours],
        "weights": [(x, entry["described"]["seconds"]["weights"]) for x, _, entry in ours],
        "store": [(x, entry["described"]["seconds"]["finish"]) for x, _, entry in ours],
        "SAEDashboard": [(x, found.seconds) for x, found, _ in growth_points(name, groups, PEER)],
    }
    return {line: points for line, points in lines.items() if points}


def draw(record: dict[str, Any], file: Path) -> Path | None:
    """Write the picture; None where there is nothing to draw."""
    panels = {name: groups for name, groups in record["growth"].items() if growth_points(name, groups, OURS)}
    if not panels:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(6 * len(panels), 4.5), squeeze=False, layout="constrained")
    for axis, (name, groups) in zip(axes[0], panels.items(), strict=True):
        for line, points in series_of(name, groups).items():
            xs, ys = [x for x, _ in points], [y for _, y in points]
            marker, colour = STYLES[line]
            power = f" ~ {name}^{slope(xs, ys):.2f}" if len(xs) > 1 else ""
            axis.loglog(xs, ys, marker, color=colour, label=line + power)
        cell = groups[0]["cells"][0]["cell"]
        fixed = f"{cell['contexts'] * CONTEXT:,} tokens" if name == "F" else f"F = {cell['features']:,}"
        axis.set_xlabel("features F" if name == "F" else "tokens")
        axis.set_ylabel("seconds for all features")
        axis.set_title(f"with {name}, {fixed}")
        axis.grid(True, which="both", alpha=0.25)
        axis.legend(fontsize="small")
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
    return file
