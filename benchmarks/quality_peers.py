"""Ours against each peer alone, over all places of a width.

A place's difference from "the best peer" is one from the larger of two noisy figures, so it is below zero for equals too. Here each peer
is a sum of its own, over architectures and L0, with an interval from resampling what the sum is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from quality_cells import ARCHITECTURES, OURS, PEERS
from quality_record import best_place

COMPARED = (
    ("explained_variance", "EV", 4),
    ("ce_recovered_mean", "CE recovered, mean", 4),
    ("auc_1", "AUC, k = 1", 3),
    ("auc_5", "AUC, k = 5", 3),
)
RESAMPLES = 4000


@dataclass(frozen=True)
class Sum:
    """Ours minus a peer in one figure.

    Attributes:
        mean: over places.
        low, high: ends of the 95 % interval of the mean.
        ahead, places: in how many of how many places ours is larger.
    """

    mean: float
    low: float
    high: float
    ahead: int
    places: int

    def shown(self, digits: int) -> str:
        return f"{self.mean:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}], ahead in {self.ahead} of {self.places}"


def sums(record: dict[str, Any], features: int, peer: str) -> dict[str, Sum]:
    """Each figure of :data:`COMPARED` that has a place of both; best settings of each."""
    found = {}
    pairs = {
        architecture: [
            (best_place(record, OURS, architecture, features, l0), best_place(record, peer, architecture, features, l0))
            for l0 in record["grid"]["l0s"]
        ]
        for architecture in ARCHITECTURES
    }
    for name, _, _ in COMPARED:
        clusters = []
        for places in pairs.values():
            rows = [
                row for ours, theirs in places if (row := _difference(ours.values, theirs.values, name)) is not None
            ]
            if rows:
                clusters.append(rows)
        if clusters:
            found[name] = summed(clusters)
    return found


def _difference(ours: dict[str, list[float]], theirs: dict[str, list[float]], name: str) -> list[float] | None:
    """The parts of a figure (the probed concepts of an AUC), ours minus theirs; the figure itself where it has no parts."""
    if not ours.get(name) or not theirs.get(name):
        return None
    parts = sorted(part for part in ours if part.startswith(f"{name}/")) or [name]
    return [float(np.mean(ours[part]) - np.mean(theirs[part])) for part in parts]


def summed(clusters: list[list[list[float]]]) -> Sum:
    """The mean of differences, resampled by architecture and by part at once.

    Args:
        clusters: for each architecture its places (the L0 of one architecture move together), each the same parts.
    """
    places = [np.mean(row) for rows in clusters for row in rows]
    weights_A = np.array([len(rows) for rows in clusters], float)
    means_AC = np.array([np.mean(rows, axis=0) for rows in clusters])
    many, parts = means_AC.shape
    draw = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        a = draw.integers(0, many, many)
        c = draw.integers(0, parts, parts)
        means.append(np.average(means_AC[np.ix_(a, c)].mean(1), weights=weights_A[a]))
    low, high = np.quantile(means, [0.025, 0.975])
    return Sum(float(np.mean(places)), float(low), float(high), int(sum(value > 0 for value in places)), len(places))


def lines(record: dict[str, Any], features: int) -> list[str]:
    """A table of one row for each peer."""
    rows = []
    for peer in PEERS:
        found = sums(record, features, peer)
        cells = [found[name].shown(digits) if name in found else "not run" for name, _, digits in COMPARED]
        rows.append(f"| {peer} | " + " | ".join(cells) + " |")
    return [
        "NeuronMap minus each peer alone, mean over the architectures and L0 that both ran, best settings of each. In brackets 95 % of "
        f"{RESAMPLES:,} resamplings of the architectures and, for AUC, of the probed concepts too; "
        "the spread over training seeds is in it only where there are several:",
        "",
        "| peer | " + " | ".join(title for _, title, _ in COMPARED) + " |",
        "| --- |" + " --- |" * len(COMPARED),
        *rows,
    ]
