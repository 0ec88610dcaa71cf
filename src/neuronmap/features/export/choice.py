"""Which features: numbers and ranges as typed, or the first by some figure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from neuronmap.errors import ConfigError, InputError

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore

__all__ = ["BY", "chosen_features", "parse_features"]

BY = {"max": "-max", "density": "-density", "score": "-f1_low"}
"""What ``--top`` can go by: largest activation, density, or the low end of the interval of the hint's F1, since two held-out firings
that a rule gets right are an F1 of 1 and tell little."""
_PART = re.compile(r"([0-9]{1,12})(?:\s*-\s*([0-9]{1,12}))?")


def parse_features(text: str, store: FeatureStore) -> list[int]:
    """``"1,2,5-9"`` -> ``[1, 2, 5, 6, 7, 8, 9]``; each once, in the order given.

    Args:
        text: numbers and ranges.
        store: the analysis that has the features.

    Raises:
        InputError: for anything else, a range that runs backwards, or a feature that there is not.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise InputError(
                f"Features {text!r}: {part.strip()!r} is neither the number of a feature nor a range such as 5-9.",
                hint="Give numbers and ranges with commas between, such as 1,2,5-9.",
            )
        first = int(match[1])
        last = int(match[2]) if match[2] is not None else first
        if last < first:
            raise InputError(f"Features {text!r}: the range {part.strip()} runs backwards.")
        store.check_feature(last)
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)


def chosen_features(
    store: FeatureStore, features: str | None = None, top: int | None = None, by: str | None = None
) -> list[int]:
    """The features that were asked for; all that ever fired where nothing was.

    Args:
        store: the analysis.
        features: numbers and ranges, see :func:`parse_features`.
        top: so many, the first by ``by``; features that never fired are not among them.
        by: max, density or score, the largest first; max where ``top`` is given, else the order of the numbers.

    Raises:
        ConfigError: numbers and a figure at once, an unknown figure, or a score without hints.
        InputError: see :func:`parse_features`; or nothing fired.
    """
    if features is not None and (top is not None or by is not None):
        raise ConfigError(
            f"--features and {'--top' if top is not None else '--by'} exclude each other.",
            hint="Leave one of them out.",
        )
    if features is not None:
        return parse_features(features, store)
    if by is not None and by not in BY:
        raise ConfigError(f"--by {by!r}: allowed are {', '.join(BY)}.")
    if top is not None and top < 1:
        raise ConfigError(f"--top {top}: at least 1 feature is needed.")
    if by == "score" and "hints" not in store.tables.names:
        raise ConfigError("This analysis has no hints, so features have no score.", hint="Analyse again with hints.")
    by = by or (None if top is None else "max")
    found = store.queries.select(
        ["firings>0"], sort="feature" if by is None else BY[by], limit=top, columns=["feature"]
    ).features
    if not found:
        raise InputError(
            f"None of the {store.num_features:,} features fired on the {store.manifest['rows']:,} analysed tokens.",
            hint="Name features with --features: what their weights say can be exported.",
        )
    return found
