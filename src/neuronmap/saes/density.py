"""How often features fire: the bins of a histogram of densities, and what can be said of a feature that never did. No torch.

Shapes: F features, H bins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["dead_density_bound", "density_bins"]

_BINS_A_DECADE = 2


def dead_density_bound(tokens: int) -> float:
    """Upper 95 % bound on the density of a feature that never fired on ``tokens`` tokens: 3 / N (rule of three)."""
    return min(1.0, 3.0 / tokens) if tokens else 1.0


def density_bins(fired_F: npt.ArrayLike, tokens: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], int]:
    """Features by log10 of the share of tokens on which they are active, two bins a decade.

    Args:
        fired_F: int [F], on how many tokens each feature was active.
        tokens: how many tokens there were.

    Returns:
        Edges [H + 1] (log10) from the decade in which one token lies up to 0 (always active), counts [H], and how many features never
        fired, which are in no bin. A bin's upper edge belongs to it, so a feature that is always on is in the last one.
    """
    fired = np.asarray(fired_F, dtype=np.int64)
    decades = max(1, int(np.ceil(np.log10(max(tokens, 2)))))
    steps = np.arange(-decades * _BINS_A_DECADE, 1)
    alive = fired[fired > 0]
    # the tiny step back keeps densities of 10^-k, whose logarithm is not exact, on their own side of the edge
    place = np.ceil(np.log10(alive / max(tokens, 1)) * _BINS_A_DECADE - 1e-9).astype(np.int64) - steps[0] - 1
    counts = np.bincount(np.clip(place, 0, len(steps) - 2), minlength=len(steps) - 1)
    return steps / _BINS_A_DECADE, counts, int((fired == 0).sum())
