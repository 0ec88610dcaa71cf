"""Blocks of similar layers: optimal segmentation of a similarity matrix, over and above steady drift.

In a network similarity falls with distance between layers, and methods that look for levels (kernel change points, arXiv 1202.3878) find
boundaries in that fall wherever it may be: on SmolLM2 a first one in the middle. So the drift is taken off first. With D the matrix whose
every diagonal is the mean of S's (the same fall with distance, spread evenly over the depth), E = S - D is the excess similarity of two
layers, and a block of layers s..e-1 is worth (1/len) sum_ij E_ij: as the scatter of kernel change points, with E for the inner products.
Dynamic programming finds the segmentation of most worth less a penalty for each boundary. A boundary is then where similarity falls more
steeply than elsewhere; if it falls evenly, or not at all, there is none.

The penalty is what the best boundaries save each in D plus the noise of a resample (S of the resample minus S), the 95 % quantile over the
resamples, and 0.05 at least.

Legend: R matrices (resamples), L layers, K boundaries.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neuronmap.errors import InputError

__all__ = ["Blocks", "find_blocks", "segment"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

LEAST_SAVED = 0.05
"""What a boundary must save at least, in layers times similarity."""
_QUANTILE = 0.95


class Blocks(NamedTuple):
    """Blocks of neighbouring layers.

    Attributes:
        starts: index of the first layer of each block; the first is 0.
        support: share of the resamples with a boundary within one layer of it; 1 for the first.
    """

    starts: list[int]
    support: list[float]


def find_blocks(
    similarity_LL: Floats, resampled_RLL: Floats | None = None, *, least_saved: float = LEAST_SAVED
) -> Blocks:
    """Segment a similarity matrix, and see how often resamples agree.

    Args:
        similarity_LL: similarities of layers, symmetric, finite.
        resampled_RLL: the same in resamples, for the penalty and the support.
        least_saved: smallest penalty.

    Raises:
        InputError: the matrix is not square, symmetric and finite.
    """
    similarity_LL = np.asarray(similarity_LL, np.float64)
    if (
        similarity_LL.ndim != 2
        or similarity_LL.shape[0] != similarity_LL.shape[1]
        or not np.isfinite(similarity_LL).all()
    ):
        raise InputError(
            f"Blocks need a square matrix of finite similarities; this one is {list(similarity_LL.shape)}."
        )
    if not np.allclose(similarity_LL, similarity_LL.T, atol=1e-6):
        raise InputError("Blocks need a symmetric matrix: layers of one model, compared with each other.")
    if resampled_RLL is None or not len(resampled_RLL):
        starts = np.flatnonzero(segment(similarity_LL[None], least_saved)[0]).tolist()
        return Blocks(starts, [1.0] * len(starts))
    resampled_RLL = np.asarray(resampled_RLL, np.float64)
    drift_1LL = _spread_evenly(similarity_LL[None])
    penalty = max(least_saved, float(np.quantile(_most_saved(drift_1LL + resampled_RLL - similarity_LL), _QUANTILE)))
    starts = np.flatnonzero(segment(similarity_LL[None], penalty)[0]).tolist()
    found_RL = segment(resampled_RLL, penalty)
    found_RL[:, 0] = False  # the first layer is no boundary, so it supports none
    support = [float(found_RL[:, max(start - 1, 0) : start + 2].any(1).mean()) if start else 1.0 for start in starts]
    return Blocks(starts, support)


def segment(similarity_RLL: Floats, penalty: float) -> Flags:
    """bool [R, L]: True at the first layer of each block, for several matrices at once; costs R L^3 operations."""
    count, layers = similarity_RLL.shape[:2]
    cost_RKE, origin_RKE = _segmentations(similarity_RLL - _spread_evenly(similarity_RLL))
    best_R = (cost_RKE[:, :, layers] + penalty * np.arange(layers)).argmin(1)
    starts_RL = np.zeros((count, layers), np.bool_)
    every, stop_R = np.arange(count), np.full(count, layers)
    for step in range(int(best_R.max()) + 1):
        active_R = best_R >= step
        start_R = origin_RKE[every, np.maximum(best_R - step, 0), stop_R]
        starts_RL[every[active_R], start_R[active_R]] = True
        stop_R = np.where(active_R, start_R, stop_R)
    return starts_RL


def _most_saved(similarity_RLL: Floats) -> Floats:
    """The most that a segmentation saves a boundary, [R]."""
    layers = similarity_RLL.shape[1]
    if layers < 2:
        return np.zeros(len(similarity_RLL))
    cost_RK = _segmentations(similarity_RLL - _spread_evenly(similarity_RLL))[0][:, :, layers]
    saved_R: Floats = ((cost_RK[:, :1] - cost_RK[:, 1:]) / np.arange(1, layers)).max(1)
    return saved_R


def _segmentations(excess_RLL: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Least cost of the first e layers with k boundaries, [R, L, L + 1] at (k, e), and where its last block starts."""
    count, layers = excess_RLL.shape[:2]
    block_RSE = _block_costs(excess_RLL)
    cost_RKE = np.full((count, layers, layers + 1), np.inf)
    origin_RKE = np.zeros((count, layers, layers + 1), np.int64)
    cost_RKE[:, 0, 1:] = block_RSE[:, 0, 1:]
    for boundaries in range(1, layers):
        for stop in range(boundaries + 1, layers + 1):
            options_RS = cost_RKE[:, boundaries - 1, boundaries:stop] + block_RSE[:, boundaries:stop, stop]
            chosen_R = options_RS.argmin(1)
            cost_RKE[:, boundaries, stop] = np.take_along_axis(options_RS, chosen_R[:, None], 1)[:, 0]
            origin_RKE[:, boundaries, stop] = chosen_R + boundaries
    return cost_RKE, origin_RKE


def _block_costs(excess_RLL: Floats) -> Floats:
    """Minus the worth of layers s to e - 1 as one block, [R, L, L + 1] at (s, e)."""
    count, layers = excess_RLL.shape[:2]
    sums_RLL = np.zeros((count, layers + 1, layers + 1))
    sums_RLL[:, 1:, 1:] = excess_RLL.cumsum(1).cumsum(2)
    block_RSE = np.full((count, layers, layers + 1), np.inf)
    for start in range(layers):
        stop = np.arange(start + 1, layers + 1)
        inside = sums_RLL[:, stop, stop] - 2 * sums_RLL[:, start, stop] + sums_RLL[:, start, start][:, None]
        block_RSE[:, start, start + 1 :] = -inside / (stop - start)
    return block_RSE


def _spread_evenly(similarity_RLL: Floats) -> Floats:
    """Each diagonal replaced by its mean."""
    layers = similarity_RLL.shape[1]
    even_RLL = np.empty_like(similarity_RLL)
    for lag in range(layers):
        mean_R1 = np.diagonal(similarity_RLL, lag, 1, 2).mean(1, keepdims=True)
        at = np.arange(layers - lag)
        even_RLL[:, at, at + lag] = even_RLL[:, at + lag, at] = mean_R1
    return even_RLL
