"""Tensors as the record keeps them: null where there is no finite value."""

from __future__ import annotations

import math

from torch import Tensor

from neuronmap.abstraction.measuring.scores import ScoredCurve
from neuronmap.abstraction.record import Curve, Matrix, Series
from neuronmap.statistics.resampling import bands

__all__ = ["curve_of", "matrix", "series"]


def series(values_L: Tensor) -> Series:
    """One value a layer."""
    return [value if math.isfinite(value) else None for value in values_L.tolist()]


def matrix(values_LM: Tensor) -> Matrix:
    """Layers by layers."""
    return [series(values_M) for values_M in values_LM]


def curve_of(scored: ScoredCurve, clusters: int) -> Curve:
    """A curve with its intervals; ``clusters`` are those of the test split."""
    found = bands(scored.score_L, scored.samples_RL, clusters)
    return Curve(
        score=series(scored.score_L),
        low=series(found.low),
        high=series(found.high),
        band_low=series(found.band_low),
        band_high=series(found.band_high),
    )
