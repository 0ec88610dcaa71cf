"""The results file of ``ground_truth.py`` as a table for people."""

from __future__ import annotations

import statistics
from typing import Any

from neuronmap.evaluation.synthetic import GroundTruth

COLUMNS = (
    ("cosine", "cosine"),
    ("recovered", "recovered"),
    ("f1", "F1"),
    ("f1_truths", "F1, all truths"),
    ("f1_latent_mean", "F1, SAELens"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("mmcs_truth", "MMCS truths"),
    ("mmcs_latent", "MMCS latents"),
    ("mcc", "MCC"),
    ("amplitude_r2", "amplitude R²"),
    ("absorption_rate", "absorbed"),
    ("absorption_missed_alone", "missed alone"),
    ("explained_variance", "EV"),
    ("l0", "L0"),
    ("dead", "dead"),
)


def markdown(record: dict[str, Any]) -> str:
    """Settings, baselines and runs; a run's figures are means over seeds with their standard deviation."""
    synthetic, facts, baselines = record["synthetic"], record["facts"], record["baselines"]
    probes, frequent = baselines["probes_f1"], baselines["probes_frequent_f1"]
    lines = [
        f"# Ground truth: {synthetic['name']}, {record['date']}",
        "",
        f"{synthetic['features']:,} truths in {synthetic['d_in']} dimensions; true L0 {facts['l0']:.2f}, interference "
        f"sqrt(L0 / d) {facts['interference']:.3f}, mean largest overlap {facts['mean_max_overlap']:.3f}. {record['latents']:,} latents, "
        f"{record['rows']:,} different rows in steps of {record['batch']:,}; measured on {record['measure_rows']:,} others. "
        f"{record['threads']} threads, {record['device']}."
        + (" QUICK RUN: too small to conclude anything from." if record["quick"] else ""),
        "",
        f"Ceilings: logistic probes reach F1 {_interval(frequent)} among the {record['latents']:,} most frequent truths, as many as "
        f"there are latents, and {_interval(probes)} among all, the rarest of which have few rows to learn from; the true code explains "
        f"{baselines['explained_variance_ceiling']:.4f} of the variance.",
        "",
        "With one seed, ± is the standard error from resampling truths (rows for EV and L0); with more, the standard deviation over seeds.",
        "",
        "| SAE | " + " | ".join(title for _, title in COLUMNS) + " |",
        "| --- |" + " --- |" * len(COLUMNS),
    ]
    lines += [_row(name, [truth]) for name, truth in baselines["measured"].items()]
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in record["runs"]:
        groups.setdefault(f"**{run['recipe']}**, {run['setting']}", []).append(run["truth"])
    lines += [_row(name, truths) for name, truths in groups.items()]
    return "\n".join([*lines, ""])


def _interval(estimate: dict[str, Any]) -> str:
    between = "" if estimate["low"] is None else f"{estimate['low']:.3f} to {estimate['high']:.3f}, "
    return f"{estimate['value']:.3f} ({between}{estimate['count']} probed)"


def _row(name: str, truths: list[dict[str, Any]]) -> str:
    tables = [{row.name: row for row in GroundTruth.from_dict(truth).rows()} for truth in truths]
    cells = []
    for column, _ in COLUMNS:
        rows = [table[column] for table in tables if column in table]
        values = [row.value for row in rows if row.value is not None]
        if not values:
            cells.append("-")
            continue
        places = 1 if column in ("l0", "dead") else 3
        spread = statistics.stdev(values) if len(values) > 1 else rows[0].error
        shown = f"{statistics.fmean(values):.{places}f}"
        cells.append(shown if spread is None else f"{shown} ± {spread:.{places}f}")
    return f"| {name} | " + " | ".join(cells) + " |"
