"""From samples to figures, and the figures as tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from speed_cells import AUXK_GOAL, GOALS, LEAD_GOALS, OURS, PORTABLE_GOALS

Sample = dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """Of one cell.

    Attributes:
        ratio: step over reference product, the median over steps; each step is divided by the median of the four
            products around it.
        low, high: quartiles of the same.
        step_s, gemm_s: medians.
        steps: timed steps.
    """

    ratio: float
    low: float
    high: float
    step_s: float
    gemm_s: float
    steps: int


def figures(samples: Sequence[Sample]) -> Figures:
    """Medians of a cell's samples.

    Raises:
        ValueError: if there are none.
    """
    if not samples:
        raise ValueError("no samples")
    ratios = sorted(s["step"] / statistics.median([*s["before"], *s["after"]]) for s in samples)
    products = [seconds for s in samples for seconds in (*s["before"], *s["after"])]
    low, high = (ratios[0], ratios[-1]) if len(ratios) < 4 else _quartiles(ratios)
    return Figures(
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        step_s=statistics.median(s["step"] for s in samples),
        gemm_s=statistics.median(products),
        steps=len(samples),
    )


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Exponent of the power law y = a x^b that fits best: least squares in logarithms.

    Raises:
        ValueError: for fewer than two different, or not positive, values.
    """
    if len(set(xs)) < 2 or min(*xs, *ys) <= 0:
        raise ValueError(f"no slope through {list(zip(xs, ys, strict=True))}")
    logs_x, logs_y = [math.log(x) for x in xs], [math.log(y) for y in ys]
    return statistics.linear_regression(logs_x, logs_y).slope


def lead(ours: Figures, peer: Figures) -> float:
    """How many times less ours takes, by step over product."""
    return peer.ratio / ours.ratio


def goal_of(cell: dict[str, Any]) -> float | None:
    """Most that step over product may be, or None where nothing was promised."""
    if cell["library"] != OURS or cell["dead"] or cell["k"] not in (0, 32):
        return None
    if cell["variant"] == "torch":
        return PORTABLE_GOALS.get(cell["features"]) if cell["architecture"] in ("topk", "batchtopk") else None
    return GOALS.get((cell["architecture"], cell["start"], cell["features"]))


# --- tables -----------------------------------------------------------------------------------------------------------


def markdown(record: dict[str, Any]) -> str:
    """The whole report."""
    machine = record["machine"]
    lines = [
        f"# Speed, {record['date']}" + (" (quick)" if record["quick"] else ""),
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads for every library, "
        f"{machine['memory_gib']:.0f} GiB; {machine['system']}; commit {record['commit']}.",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in record["versions"].items()) + ".",
        "",
        "`step/G` is a whole training step over the encoder's forward product `torch.mm(x[B, d], W[d, F], out=)`, each step "
        "divided by the median of the four products around it: median over steps [quartiles; range under 4 steps].",
        "`ours x` says how many times the step/G of `neuronmap auto` a library takes.",
        "",
    ]
    if not record["complete"]:
        lines += ["THE RUN WAS STOPPED: what is missing was not measured.", ""]
    for group in record["groups"]:
        lines += [*_group_table(group), ""]
    lines += _auxk(record["groups"]) + _parts(record["groups"])
    lines += _growth(record["growth"]) + _tokens(record["tokens"]) + _memory(record["memory"])
    return "\n".join(lines).rstrip() + "\n"


def title(cell: dict[str, Any]) -> str:
    """What a group measures."""
    start = {"usual": "", "sparse": ", L0 held at 64", "dense": ", dense start (L0 = F/2)"}[cell["start"]]
    k = f", k={cell['k']}" if cell["k"] else ""
    return f"{cell['architecture']}: d={cell['width']}, F={cell['features']}{k}, B={cell['batch']}{start}"


def ours_of(cells: Iterable[dict[str, Any]]) -> Figures | None:
    """The figures that others are compared with."""
    for entry in cells:
        cell = entry["cell"]
        if cell["library"] == OURS and cell["variant"] == "auto" and not cell["dead"] and entry["samples"]:
            return figures(entry["samples"])
    return None


def _group_table(group: dict[str, Any]) -> list[str]:
    cells = group["cells"]
    ours = ours_of(cells)
    lines = [
        f"## {title(cells[0]['cell'])}",
        "",
        "| | step/G | goal | step ms | G ms | rows/s | ours x | L0 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in cells:
        cell = entry["cell"]
        if not entry["samples"]:
            lines.append(f"| {entry['label']} | {entry['note']} | | | | | | |")
            continue
        found = figures(entry["samples"])
        ran = entry["described"].get("ran")
        label = entry["label"] + (f" ({ran})" if ran and ran != cell["variant"] else "")
        against = "" if ours is None or cell["library"] == OURS else _lead_shown(cell, lead(ours, found))
        lines.append(
            f"| {label} | **{found.ratio:.2f}** [{found.low:.2f}, {found.high:.2f}] | {_goal_shown(cell, found)} "
            f"| {found.step_s * 1e3:,.0f} | {found.gemm_s * 1e3:,.0f} | {cell['batch'] / found.step_s:,.0f} "
            f"| {against} | {entry['described'].get('l0', math.nan):,.0f} |"
        )
    return lines


def _goal_shown(cell: dict[str, Any], found: Figures) -> str:
    goal = goal_of(cell)
    return "" if goal is None else f"{goal:g}: {'met' if found.ratio <= goal else 'MISSED'}"


def _lead_shown(cell: dict[str, Any], times: float) -> str:
    least = LEAD_GOALS.get(cell["library"])
    if least is None or cell["start"] == "dense":
        return f"{times:.1f}"
    return f"{times:.1f}" + ("" if times >= least else f" (goal {least:g}: MISSED)")


def _auxk(groups: list[dict[str, Any]]) -> list[str]:
    rows = []
    for group in groups:
        without = ours_of(group["cells"])
        for entry in group["cells"]:
            if entry["cell"]["dead"] and entry["samples"] and without is not None:
                share = figures(entry["samples"]).ratio - without.ratio
                verdict = "met" if share <= AUXK_GOAL else "MISSED"
                rows.append(f"| {title(entry['cell'])} | {share:+.2f} | {AUXK_GOAL:g}: {verdict} |")
    if not rows:
        return []
    return ["## What AuxK adds with 5 % dead features, in G", "", "| | | goal |", "| --- | --- | --- |", *rows, ""]


def _parts(groups: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for group in groups:
        for entry in group["cells"]:
            parts = entry.get("parts")
            if not parts:
                continue
            for way, spent in parts.items():
                shown = ", ".join(
                    f"{name} {seconds / spent['G']:.2f}" for name, seconds in sorted(spent.items()) if name != "G"
                )
                lines.append(f"- {title(entry['cell'])}, by {way}: {shown}")
    return ["## Parts of our step, in G", "", *lines, ""] if lines else []


def _growth(series: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines: list[str] = []
    for name, entries in series.items():
        points = [(_number(name, entry["cell"]), figures(entry["samples"])) for entry in entries if entry["samples"]]
        if len(points) < 2:
            continue
        xs = [x for x, _ in points]
        over = [f.ratio for _, f in points]
        lines.append(
            f"| {name} = {', '.join(f'{x:g}' for x in xs)} | {slope(xs, [f.step_s for _, f in points]):.2f} "
            f"| {slope(xs, [f.gemm_s for _, f in points]):.2f} | {slope(xs, over):+.2f} "
            f"| {', '.join(f'{ratio:.2f}' for ratio in over)} |"
        )
    if not lines:
        return []
    head = "| topk from d=576, F=8192, k=32, B=4096 | step ~ x^ | G ~ x^ | step/G ~ x^ | step/G |"
    return ["## Growth (slopes in log-log)", "", head, "| --- | --- | --- | --- | --- |", *lines, ""]


def _number(name: str, cell: dict[str, Any]) -> float:
    return float(cell[{"k": "k", "F": "features", "d": "width", "B": "batch"}[name]])


def _tokens(entries: list[dict[str, Any]]) -> list[str]:
    if len(entries) < 2:
        return []
    xs, ys = [e["tokens"] for e in entries], [e["seconds"] for e in entries]
    shown = ", ".join(f"{x:,}: {y:.2f} s" for x, y in zip(xs, ys, strict=True))
    return [f"Time over tokens trained on: tokens^{slope(xs, ys):.2f} ({shown}).", ""]


def _memory(entries: list[dict[str, Any]]) -> list[str]:
    if not entries:
        return []
    lines = [
        "## Peak memory of a process over the loaded rows",
        "",
        "Weights, gradients, Adam's moments and the step's scratch space; fresh process each, no reference product. One "
        "B x F float32 matrix is given for scale.",
        "",
        "| | library | peak MiB | of which before the first step | B x F MiB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry in entries:
        cell, found = entry["cell"], entry["found"]
        matrix = cell["batch"] * cell["features"] * 4 / 2**20
        if "over_data" not in found:
            lines.append(f"| {title(cell)} | {entry['label']} | {entry['note']} | | {matrix:,.0f} |")
            continue
        before = (found["built"] - found["ground"]) / 2**20
        marked = "" if found["peak_reset"] else " (with imports)"
        lines.append(
            f"| {title(cell)} | {entry['label']} | {found['over_data'] / 2**20:,.0f}{marked} | {before:,.0f} | {matrix:,.0f} |"
        )
    return [*lines, ""]
