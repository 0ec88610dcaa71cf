"""Numbers of each feature that its accumulators decide: moments, quantiles, intervals, status.

Shapes: F features, H = 64 histogram bins, S asked shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from neuronmap.features.collect.layout import EDGES, HISTOGRAM_BINS, fixed_sum

__all__ = ["DENSE", "RARE", "STATUSES", "Moments", "histogram_quantiles", "moments", "status_of", "wilson"]

RARE = 10
"""A feature with fewer firings is called rare: too few to say what it is."""
DENSE = 0.1
"""A feature of a larger density is called dense."""
STATUSES = ("never", "rare", "alive", "dense")
_Z95 = 1.959963984540054  # 97.5 % point of the normal distribution

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation and sum of the firings, float64 [F] on the scale of the activation; NaN without firings."""

    mean_F: Floats
    std_F: Floats
    sum_F: Floats


def moments(features: dict[str, npt.NDArray[Any]], unit: float) -> Moments:
    """Moments from the exact sums of a state.

    Args:
        features: arrays of :func:`neuronmap.features.collect.layout.per_feature` (``firings``, ``sum``, ``square``).
        unit: of the state.

    Returns:
        Population moments: std is sqrt(E[f^2] - E[f]^2).
    """
    firings_F = features["firings"].astype(np.float64)
    total_F, square_F = fixed_sum(features["sum"]), fixed_sum(features["square"])
    fires_F = firings_F > 0
    count_F = np.where(fires_F, firings_F, 1.0)
    mean_F = np.where(fires_F, total_F / count_F, np.nan)
    variance_F = np.where(fires_F, square_F / count_F - mean_F**2, np.nan)
    # rounding of the difference can leave a tiny negative number where all firings are equal
    return Moments(mean_F * unit, np.sqrt(np.maximum(variance_F, 0.0)) * unit, total_F * unit)


def histogram_quantiles(
    histogram_FH: npt.NDArray[np.integer], largest_F: npt.NDArray[np.floating], unit: float, shares: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Values below which a share of a feature's firings lies.

    Within a bin firings are taken as spread evenly over the logarithm of the value; the bin of the feature's maximum ends there. The
    error is at most the width of a bin, a factor 2**(1/4).

    Args:
        histogram_FH: firings in each bin.
        largest_F: the largest activation of each feature.
        unit: of the state; bin h begins at EDGES[h] * unit.
        shares: S numbers above 0 and at most 1.

    Returns:
        float32 [F, S]; NaN for features that never fired.
    """
    upto_FH = np.cumsum(histogram_FH, axis=1, dtype=np.int64)
    total_F = upto_FH[:, -1]
    at_F = np.arange(len(total_F))
    values_FS = np.full((len(total_F), len(shares)), np.nan, np.float32)
    edges = EDGES.astype(np.float64) * unit
    for place, share in enumerate(shares):
        target_F = np.round(share * total_F, 6)  # 0.1 * 30 is 3.0000000000000004
        bin_F = np.minimum((upto_FH < target_F[:, None]).sum(axis=1), HISTOGRAM_BINS - 1)
        inside_F = np.maximum(histogram_FH[at_F, bin_F], 1)
        before_F = upto_FH[at_F, bin_F] - histogram_FH[at_F, bin_F]
        part_F = np.clip((target_F - before_F) / inside_F, 0.0, 1.0)
        low_F, high_F = edges[bin_F], edges[bin_F + 1]
        is_top_F = (
            upto_FH[at_F, bin_F] == total_F
        )  # the bin of the maximum, which ends there; the last of all bins is open
        high_F = np.where(is_top_F, np.maximum(largest_F, low_F), high_F)
        value_F = np.minimum(low_F * (high_F / low_F) ** part_F, largest_F)
        values_FS[:, place] = np.where(total_F > 0, value_F, np.nan)
    return values_FS


def wilson(successes: npt.ArrayLike, trials: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Wilson's score interval of a share at 95 % (Wilson 1927, JASA 22); 0 to 1 where there was no trial.

    Args:
        successes: how often it happened.
        trials: how often it could have; an effective number need not be whole.

    Returns:
        Low and high end, float64. With no success the low end is 0, with no failure the high end is 1.
    """
    hits, tries = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    count = np.where(tries > 0, tries, 1.0)
    share, z2 = hits / count, _Z95**2
    scale = 1.0 + z2 / count
    centre = (share + z2 / (2 * count)) / scale
    half = _Z95 * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / scale
    low = np.where((tries > 0) & (hits > 0), np.maximum(centre - half, 0.0), 0.0)
    high = np.where((tries > 0) & (hits < tries), np.minimum(centre + half, 1.0), 1.0)
    return low, high


def status_of(firings_F: npt.NDArray[np.integer], rows: int) -> npt.NDArray[np.int8]:
    """Index into :data:`STATUSES` of each feature; few firings count before density."""
    density_F = firings_F / max(rows, 1)
    status_F = np.where(density_F > DENSE, 3, 2)
    status_F = np.where(firings_F < RARE, 1, status_F)
    return np.where(firings_F == 0, 0, status_F).astype(np.int8)
