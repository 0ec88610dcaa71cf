"""Which features: numbers and ranges as typed, or the first by some figure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from neuronmap.errors import ConfigError, InputError

if TYPE_CHECKING:
    from neuronmap.features.store import FeatureStore

__all__ = ["BY", "chosen_features", "parse_features"]

BY = {"max": "-max", "density": "-density", "score": "-f1"}
"""What ``--top`` can go by: largest activation, density, F1 of the hint."""
_PART = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


def parse_features(text: str, num_features: int) -> list[int]:
    """``"1,2,5-9"`` -> ``[1, 2, 5, 6, 7, 8, 9]``; each once, in the order given.

    Raises:
        InputError: for anything else, a range that runs backwards, or a feature that there is not.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise InputError(f"Features {text!r}: {part.strip()!r} is neither a number nor a range such as 5-9.")
        first = int(match[1])
        last = int(match[2]) if match[2] is not None else first
        if last < first:
            raise InputError(f"Features {text!r}: the range {part.strip()} runs backwards.")
        if last >= num_features:
            raise InputError(f"There is no feature {last}: features are 0 to {num_features - 1}.")
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)


def chosen_features(
    store: FeatureStore, features: str | None = None, top: int | None = None, by: str = "max"
) -> list[int]:
    """The features that were asked for; all that ever fired where nothing was.

    Args:
        store: the analysis.
        features: numbers and ranges, see :func:`parse_features`.
        top: so many, the first by ``by``; features that never fired are not among them.
        by: max, density or score.

    Raises:
        ConfigError: both ways at once, an unknown figure, or a score without hints.
        InputError: see :func:`parse_features`.
    """
    if features is not None and top is not None:
        raise ConfigError("--features and --top exclude each other.", hint="Leave one of them out.")
    if features is not None:
        return parse_features(features, store.num_features)
    if by not in BY:
        raise ConfigError(f"--by {by!r}: allowed are {', '.join(BY)}.")
    if top is not None and top < 1:
        raise ConfigError(f"--top {top}: at least 1 feature is needed.")
    if by == "score" and top is not None and "hints" not in store.tables.names:
        raise ConfigError("This analysis has no hints, so features have no score.", hint="Analyse again with --hints.")
    sort = BY[by] if top is not None else "feature"
    return store.queries.select(["firings>0"], sort=sort, limit=top, columns=["feature"]).features
