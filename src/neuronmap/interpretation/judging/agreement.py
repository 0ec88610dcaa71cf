"""Do scorers agree? Spearman's rank correlation of their scores over labels, with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from neuronmap.interpretation.labels.acts import Score

__all__ = ["Agreement", "agreements", "spearman"]

_Z95 = 1.959963984540054
LEAST = 4
"""With fewer labels that both scored there is no interval; with fewer than 3 no correlation."""


class Agreement(NamedTuple):
    """Of two protocols.

    Attributes:
        first, second: their names.
        value: Spearman's correlation; None with fewer than 3 labels, or where one gives all the same.
        low, high: 95 % interval.
        labels: that both scored.
    """

    first: str
    second: str
    value: float | None
    low: float | None
    high: float | None
    labels: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return self._asdict()


def agreements(scores: Iterable[Score]) -> list[Agreement]:
    """Of every two protocols (with their judges) among some scores, over the labels that both scored."""
    table: dict[str, dict[str, float]] = {}
    for score in scores:
        if score.value is not None:
            table.setdefault(score.protocol, {})[score.label] = score.value
    found = []
    for first, second in combinations(sorted(table), 2):
        both = sorted(table[first].keys() & table[second].keys())
        found.append(
            Agreement(
                first, second,
                *spearman([table[first][label] for label in both], [table[second][label] for label in both]), len(both),
            )
        )  # fmt: skip
    return found


def spearman(first: list[float], second: list[float]) -> tuple[float | None, float | None, float | None]:
    """Correlation of ranks and its interval, by Fisher's z with the variance of Bonett and Wright (2000, doi:10.1007/BF02294183):
    (1 + r^2 / 2) / (n - 3)."""
    number = len(first)
    if number < 3:
        return None, None, None
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (first, second)]
    centred = [rank - rank.mean() for rank in ranks]
    scale = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    if scale == 0:
        return None, None, None
    value = float(np.clip((centred[0] * centred[1]).sum() / scale, -1, 1))
    if number < LEAST:
        return value, None, None
    if abs(value) == 1.0:
        return value, value, value
    half = _Z95 * math.sqrt((1 + value**2 / 2) / (number - 3))
    centre = math.atanh(value)
    return value, math.tanh(centre - half), math.tanh(centre + half)


def _ranks(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Ranks from 0, equal values sharing their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    rank: np.ndarray[Any, np.dtype[np.float64]] = (np.cumsum(count) - (count + 1) / 2)[place]
    return rank
