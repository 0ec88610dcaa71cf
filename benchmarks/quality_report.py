"""The results file as a table for people."""

from __future__ import annotations

import statistics
from typing import Any


def markdown(record: dict[str, Any]) -> str:
    """Tables by architecture, best first, with the spread over seeds and how the common L0 was reached."""
    budget, data = record["budget"], record["data"]
    lines = [
        f"# Quality at equal L0, {record['date']}",
        "",
        f"{data['model']} block {data['layer']} residual stream over {data['corpus']}; {budget['d_sae']:,} features, "
        f"L0 = {budget['k']}, {budget['steps']} steps of {budget['batch_rows']:,} rows "
        f"({budget['steps'] * budget['batch_rows']:,} visits of {data['parts']['train']:,} rows), {budget['threads']} threads.",
        f"Measured on {data['parts']['heldout']:,} held-out rows by one meter, raw activations, inference rules."
        + (" QUICK RUN: too small to conclude anything from." if record["quick"] else ""),
        "",
    ]
    for architecture in dict.fromkeys(method["architecture"] for method in record["methods"]):
        chosen = [method for method in record["methods"] if method["architecture"] == architecture]
        lines += _table(architecture, chosen, budget)
    return "\n".join(lines)


def _table(architecture: str, methods: list[dict[str, Any]], budget: dict[str, Any]) -> list[str]:
    lines = [
        f"## {architecture}",
        "",
        "| library | settings | explained variance | by seed | median per dimension | how | alive | saved as: EV at L0 | rows/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in sorted(methods, key=lambda m: -_mean(m, "explained_variance")):
        values = _values(method, "explained_variance")
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        runs = [run for seed in method["seeds"].values() for run in seed["runs"]]
        alive = statistics.fmean((run["recalibrated"] or run["saved"])["fraction_alive"] for run in runs)
        rate = statistics.fmean(budget["steps"] * budget["batch_rows"] / run["seconds"] for run in runs)
        how = ", ".join(sorted({seed["at_common_l0"]["how"] for seed in method["seeds"].values()}))
        lines.append(
            f"| {method['library']} | {method['variant']} | **{statistics.fmean(values):.4f}**{spread} "
            f"| {', '.join(f'{value:.4f}' for value in values)} "
            f"| {_mean(method, 'explained_variance_median'):.4f} | {how} | {alive:.0%} | {_as_saved(runs)} | {rate:,.0f} |"
        )
    return [*lines, "", _verdict(methods), ""]


def _values(method: dict[str, Any], name: str) -> list[float]:
    return [seed["at_common_l0"][name] for seed in method["seeds"].values()]


def _mean(method: dict[str, Any], name: str) -> float:
    return statistics.fmean(_values(method, name))


def _as_saved(runs: list[dict[str, Any]]) -> str:
    """Only where measuring needed another threshold than the saved one."""
    changed = [run["saved"] for run in runs if run["recalibrated"] is not None]
    if not changed:
        return "the same"
    shown = [f"{saved['explained_variance']:.4f} at {saved['l0']:.0f}" for saved in changed]
    return "; ".join(shown)


def _verdict(methods: list[dict[str, Any]]) -> str:
    ours = [method for method in methods if method["library"] == "neuronmap"]
    peers = [method for method in methods if method["library"] != "neuronmap"]
    if not ours or not peers:
        return "No comparison: NeuronMap or the peers were left out."
    best = max(peers, key=lambda m: _mean(m, "explained_variance"))
    gap = _mean(ours[0], "explained_variance") - _mean(best, "explained_variance")
    seeds = min(len(_values(ours[0], "explained_variance")), len(_values(best, "explained_variance")))
    if seeds < 2:
        return f"NeuronMap minus the best peer ({best['library']}): {gap:+.4f} (one seed, no error)."
    error = sum(statistics.variance(_values(m, "explained_variance")) / len(m["seeds"]) for m in (ours[0], best)) ** 0.5
    if gap >= 0:
        said = "at least as good"
    else:
        said = "behind, by less than two standard errors" if gap >= -2 * error else "WORSE"
    return f"NeuronMap minus the best peer ({best['library']}): {gap:+.4f} ± {error:.4f} over {seeds} seeds: {said}."
