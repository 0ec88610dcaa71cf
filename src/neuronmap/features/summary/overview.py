"""Figures over the whole dictionary, for a store's manifest; plain JSON.

Shapes: F features, T positions in a context, N rows of the coded sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from neuronmap.features.collect.layout import L0_BINS
from neuronmap.features.collect.state import FeatureState
from neuronmap.features.summary.distributions import STATUSES, status_of, wilson
from neuronmap.saes.density import dead_density_bound, density_bins

__all__ = ["density_histogram", "explained_variance", "l0_figures", "overview"]

_LISTED = 20  # most frequent features and tokens named
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


def overview(state: FeatureState, token_N: npt.NDArray[np.integer]) -> dict[str, Any]:
    """The global figures of an analysis.

    Args:
        state: the finished state.
        token_N: token of each row of the coded sample.

    Returns:
        rows, firings, status (features by status), never_density_bound (upper end of Wilson's 95 % interval for no firing in
        all rows), never_density_rule_of_three (3 / rows), density_histogram, l0, explained_variance, most_frequent.
    """
    firings_F = state.features["firings"]
    counts = np.bincount(status_of(firings_F, state.rows), minlength=len(STATUSES))
    order = np.lexsort((np.arange(len(firings_F)), -firings_F))[:_LISTED]
    _, bound = wilson(0, state.rows)
    return {
        "rows": state.rows,
        "firings": int(firings_F.sum()),
        "status": dict(zip(STATUSES, counts.tolist(), strict=True)),
        "never_density_bound": float(bound),
        "never_density_rule_of_three": dead_density_bound(state.rows),
        "density_histogram": density_histogram(firings_F, state.rows),
        "l0": l0_figures(state, token_N),
        "explained_variance": explained_variance(state),
        "most_frequent": [
            {"feature": int(feature), "firings": int(firings_F[feature]), "density": firings_F[feature] / state.rows}
            for feature in order
            if firings_F[feature] > 0
        ],
    }


def density_histogram(firings_F: npt.NDArray[np.integer], rows: int) -> dict[str, Any]:
    """Features by density (:func:`neuronmap.saes.density.density_bins`), plain JSON: edges (log10), counts, never, rows."""
    edges, counts, never = density_bins(firings_F, rows)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "never": never, "rows": rows}


def l0_figures(state: FeatureState, token_N: npt.NDArray[np.integer]) -> dict[str, Any]:
    """How many features are active on a row: over all rows, by position in the context, and on the most frequent tokens.

    Returns:
        mean; std and the percentiles (the smallest number that so many per cent of the rows do not exceed), null where the
        histogram's open last bin hides them; histogram (rows with 0, 1, ... active features, cut after the last that occurs);
        overflow (rows above it); by_position (mean, null where there is no row); by_token (of the coded sample: token, rows,
        mean, most rows first).
    """
    rows, histogram = max(state.rows, 1), state.l0_histogram
    overflow, closed = int(histogram[-1]), histogram[:-1]
    number = np.arange(L0_BINS - 1)
    mean = float(state.l0_sum_T.sum() / rows)
    std = float(np.sqrt((closed * (number - mean) ** 2).sum() / rows)) if not overflow else None
    upto = np.cumsum(closed)
    percentiles = {
        str(percent): int(np.argmax(upto >= percent / 100 * rows)) if upto[-1] >= percent / 100 * rows else None
        for percent in _PERCENTILES
    }
    used = int(np.flatnonzero(closed)[-1]) + 1 if closed.any() else 0
    l0_N = np.diff(state.sample.offset_N)
    count_V = np.bincount(token_N)
    sum_V = np.bincount(token_N, weights=l0_N)
    frequent = np.lexsort((np.arange(len(count_V)), -count_V))[:_LISTED]
    return {
        "mean": mean,
        "std": std,
        "percentiles": percentiles,
        "histogram": closed[:used].tolist(),
        "overflow": overflow,
        "by_position": _ratio(state.l0_sum_T, state.rows_T),
        "by_token": [
            {"token": int(token), "rows": int(count_V[token]), "mean": float(sum_V[token] / count_V[token])}
            for token in frequent
            if count_V[token]
        ],
    }


def explained_variance(state: FeatureState) -> dict[str, Any]:
    """1 - sum |x - xhat|^2 / sum |x - mean|^2 over the rows of the coded sample.

    Returns:
        value (null without rows or energy, and for a transcoder, which does not reconstruct x), by_position (length T, null where
        there is no row or no value), rows_by_position, rows, and mean_from: whose mean the energy is against.
    """
    sample, length = state.sample, int(state.facts["context_length"])
    position_N = sample.position_N.astype(np.int64)
    error_T, energy_T = (
        np.bincount(position_N, weights=part.astype(np.float64), minlength=length)
        for part in (sample.error_N, sample.energy_N)
    )
    total = float(energy_T.sum())
    known = total > 0 and not np.isnan(sample.error_N).any()
    left: list[float | None] = _ratio(error_T, energy_T) if known else [None] * length
    return {
        "value": 1.0 - float(error_T.sum()) / total if known else None,
        "by_position": [None if part is None else 1.0 - part for part in left],
        "rows_by_position": np.bincount(position_N, minlength=length).tolist(),
        "rows": len(position_N),
        "mean_from": state.facts.get("mean_from"),
    }


def _ratio(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> list[float | None]:
    return [float(up / down) if down > 0 else None for up, down in zip(above, below, strict=True)]
