"""A feature's indicators of interpretability: figures with intervals, from the rows of a feature store. No adjectives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from neuronmap.errors import InputError
from neuronmap.features.summary.distributions import wilson
from neuronmap.interpretation.hints.making import LEAST_FIRINGS

__all__ = ["Assessment", "Indicator", "assess"]

_CHANCE = 0.05
"""One minus the coverage of the intervals."""
_ROW_COLUMNS = (
    "feature", "firings", "density", "density_low", "density_high", "sampled", "documents", "top_token_share", "token_entropy",
)  # fmt: skip


@dataclass(frozen=True)
class Indicator:
    """One figure.

    Attributes:
        name: short name, in snake case.
        value: the figure; None where it is not defined.
        low: low end of its 95 % interval; None where there is none.
        high: high end.
        n: what it is of: rows, sampled firings, or held-out firings; None where not known.
        about: what it means, its range and how the interval is made.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    about: str


@dataclass(frozen=True)
class Assessment:
    """Of one feature: what can be said at all (``status``), and the indicators in a fixed order."""

    feature: int
    status: str
    indicators: tuple[Indicator, ...]

    def __getitem__(self, name: str) -> Indicator:
        for indicator in self.indicators:
            if indicator.name == name:
                return indicator
        raise InputError(
            f"There is no indicator {name!r}.", hint=f"Indicators: {', '.join(item.name for item in self.indicators)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def assess(row: Mapping[str, Any], hint: Mapping[str, Any] | None = None) -> Assessment:
    """The indicators of one feature.

    Args:
        row: its row of ``features.parquet``.
        hint: its row of ``hints.parquet``; without it the rule's figures are left out.

    Raises:
        InputError: a column that is needed is missing from the row.
    """
    missing = [name for name in _ROW_COLUMNS if name not in row]
    if missing:
        raise InputError(f"The row lacks {', '.join(missing)}.", hint="Give a row of features.parquet as a dictionary.")
    firings, sampled = int(row["firings"]), int(row["sampled"])
    rows = round(firings / row["density"]) if firings else None
    indicators = [
        Indicator(
            "density", row["density"], row["density_low"], row["density_high"], rows,
            "share of rows on which it fires; Wilson interval, rows taken as independent",
        ),
        _share(
            "top_token_share", row["top_token_share"], sampled,
            "share of its firings on its most frequent token; 1: it is that token; Wilson interval",
        ),
        _bounded(
            "token_entropy", row["token_entropy"], sampled, 2 * math.log2(max(sampled, 1)), math.inf,
            "entropy in bits of the token given firing; 0: one token. Bounded differences (doi:10.1002/rsa.10019); an entropy from "
            "few firings is too low by up to (tokens - 1) / (2 n ln 2) bits, which the interval does not hold",
        ),
        _bounded(
            "document_share", row["documents"] / sampled if sampled else None, sampled, 1.0, 1.0,
            "different documents among its sampled firings over those firings; near 0: a few documents make up all. Bounded differences",
        ),
    ]  # fmt: skip
    if hint is not None:
        words = {
            "precision": "share of the rule's calls that are firings",
            "recall": "share of firings that the rule finds",
            "f1": "harmonic mean of the rule's precision and recall",
        }
        indicators += [
            Indicator(
                f"rule_{name}", hint[name], hint[f"{name}_low"], hint[f"{name}_high"], hint["positives"],
                f"{about}, on documents it was not made from; the interval counts dependence within documents",
            )
            for name, about in words.items()
        ]  # fmt: skip
    return Assessment(int(row["feature"]), _status(firings, sampled, hint), tuple(indicators))


def _status(firings: int, sampled: int, hint: Mapping[str, Any] | None) -> str:
    if firings == 0:
        return "never fired: nothing can be said but how rare it must be"
    if firings < LEAST_FIRINGS:
        return (
            f"too few firings ({firings}; at least {LEAST_FIRINGS} are needed): the figures are given, but say little"
        )
    held_out = None if hint is None else int(hint["positives"])
    of = f"{firings:,} firings" if sampled == firings else f"a sample of {sampled:,} of {firings:,} firings"
    if held_out is None:
        return f"from {of}"
    few = f", too few (under {LEAST_FIRINGS})" if held_out < LEAST_FIRINGS else ""
    return f"from {of}; rule scored on {held_out:,} held-out firings{few}"


def _share(name: str, value: float | None, n: int, about: str) -> Indicator:
    if value is None or n == 0:
        return Indicator(name, None, None, None, n, about)
    low, high = wilson(value * n, n)
    return Indicator(name, float(value), float(low), float(high), n, about)


def _bounded(name: str, value: float | None, n: int, change: float, most: float, about: str) -> Indicator:
    """A figure that changes by at most ``change / n`` when one of n firings does: McDiarmid's inequality."""
    if value is None or n < 2:
        return Indicator(name, value, None, None, n, about)
    half = change * math.sqrt(math.log(2 / _CHANCE) / (2 * n))
    return Indicator(name, float(value), max(value - half, 0.0), min(value + half, most), n, about)
