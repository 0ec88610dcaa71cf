"""What one layer's representation is like: intrinsic dimension, effective number of dimensions, lengths, isotropy.

Legend: N rows, W width, R resamples, C contexts, n rows of a chunk.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neuronmap.abstraction.layers.cka import hsic1
from neuronmap.abstraction.layers.scaling import centred, defined, standardized
from neuronmap.abstraction.record import Interval

__all__ = ["isotropy", "mean_norm", "participation_ratio", "two_nn"]

_CHUNK = 1024
_LEAST_ROWS = 20
_DISCARDED = 0.1
_SAME = 1e-12


def two_nn(
    x_NW: Tensor, *, weights_RC: Tensor | None = None, context_N: Tensor | None = None, discarded: float = _DISCARDED
) -> Interval:
    """Intrinsic dimension by TwoNN (Facco et al. 2017, arXiv 1803.06992).

    With mu the ratio of a row's distances to its second and first neighbour, -log(1 - F(mu)) = d log(mu); d is fitted through the origin,
    without the largest tenth of the ratios. Equal rows (the embedding of one token) count once. The estimate is of the dimension at the
    scale of the distance between neighbours: with more rows it can rise. It is too small for high dimensions (about 16 for 20 and 1,000
    rows), so compare layers rather than reading it as a number.

    Args:
        x_NW: activations of one layer, [N, W].
        weights_RC: float64 [R, C], how often each context is drawn in each resample; the ratios are resampled, and neighbours stay.
        context_N: int64 [N], the context of each row; None when each row has its own.
        discarded: share of the ratios that is left out at the top.

    Returns:
        The dimension with its 95 % interval; null with the reason where there are fewer than 20 different rows or all distances are equal.
    """
    distinct_NW, kept_N = _distinct(centred(x_NW))
    rows = distinct_NW.shape[0]
    if rows < _LEAST_ROWS:
        return Interval(value=None, reason=f"only {rows} different rows")
    log_ratio_N = _log_ratios(distinct_NW)
    order_N = log_ratio_N.argsort(stable=True)
    log_ratio_N = log_ratio_N[order_N]
    value = float(_slope(log_ratio_N, torch.ones(1, rows, dtype=torch.float64), discarded)[0])
    if not math.isfinite(value):
        return Interval(value=None, reason="all neighbours are at equal distances")
    if weights_RC is None:
        return Interval(value=value)
    context_N = (kept_N if context_N is None else context_N[kept_N])[order_N]
    samples_R = _slope(log_ratio_N, weights_RC[:, context_N], discarded)
    samples_R = samples_R[samples_R.isfinite()]
    if samples_R.numel() < 2:
        return Interval(value=value, reason="no interval: too few resamples")
    low, high = torch.quantile(samples_R, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(value=value, low=low, high=high)


def participation_ratio(x_NW: Tensor, own: float | None = None) -> float | None:
    """(sum of the eigenvalues)^2 / sum of their squares, of the covariance of standardised activations.

    W for independent dimensions, 1 when one direction holds everything. The sum of squares is estimated without bias (HSIC1 of the layer
    with itself); from the sample's own eigenvalues 500 rows of 576 independent dimensions would have a ratio of 268.

    Args:
        x_NW: activations of one layer, [N, W].
        own: HSIC1 of :func:`~neuronmap.abstraction.layers.scaling.standardized` rows, where it is known.

    Returns:
        The ratio; None for a constant layer, or where the estimate is not positive.
    """
    z_NW = standardized(x_NW)
    if not defined(z_NW):
        return None
    squares = hsic1(z_NW, z_NW) if own is None else own
    trace = float(z_NW.double().square().sum()) / (z_NW.shape[0] - 1)
    return trace**2 / squares if squares > 0 else None


def mean_norm(x_NW: Tensor) -> float:
    """Mean length of the rows."""
    return float(torch.linalg.vector_norm(x_NW, dim=1, dtype=torch.float64).mean())


def isotropy(x_NW: Tensor) -> float | None:
    """1 - mean cosine of all pairs of different rows, not centred (arXiv 1909.00512); None if all rows are zero."""
    length_N1 = torch.linalg.vector_norm(x_NW, dim=1, keepdim=True, dtype=torch.float64)
    usable_N = length_N1.flatten() > 0
    rows = int(usable_N.sum())
    if rows < 2:
        return None
    total_W = (x_NW[usable_N].double() / length_N1[usable_N]).sum(0)
    return 1 - (float(total_W.square().sum()) - rows) / (rows * (rows - 1))


def _distinct(x_NW: Tensor) -> tuple[Tensor, Tensor]:
    """One of each set of equal rows, in order, and their indices."""
    _, group_N = torch.unique(x_NW, dim=0, return_inverse=True)
    rows = x_NW.shape[0]
    first_G = torch.full((int(group_N.max()) + 1,), rows).scatter_reduce(0, group_N, torch.arange(rows), "amin")
    kept = first_G.sort().values
    return x_NW[kept], kept


def _log_ratios(x_NW: Tensor) -> Tensor:
    """log(second distance / first distance) of each row, float64 [N]; rows that differ by rounding only count as one apart."""
    x_NW = x_NW.double()
    square_N = x_NW.square().sum(1)
    logs = []
    for start in range(0, x_NW.shape[0], _CHUNK):
        chunk = slice(start, start + _CHUNK)
        square_nN = square_N[chunk, None] + square_N - 2 * (x_NW[chunk] @ x_NW.T)
        square_nN[torch.arange(square_nN.shape[0]), torch.arange(start, start + square_nN.shape[0])] = torch.inf
        near_n2 = square_nN.topk(2, dim=1, largest=False).values.clamp_min(_SAME)
        logs.append(0.5 * (near_n2[:, 1].log() - near_n2[:, 0].log()))
    return torch.cat(logs)


def _slope(log_ratio_N: Tensor, weight_RN: Tensor, discarded: float) -> Tensor:
    """d of each weighting of the sorted ratios, float64 [R]; NaN where all ratios are 1."""
    total_R1 = weight_RN.sum(1, keepdim=True)
    upto_RN = weight_RN.cumsum(1)
    share_RN = (upto_RN - weight_RN / 2) / total_R1  # of the middle of the row's copies
    kept_RN = weight_RN * (upto_RN <= (1 - discarded) * total_R1)
    y_RN = -torch.log1p(-share_RN.clamp_max(1 - 1e-12))
    top_R, below_R = (kept_RN * y_RN * log_ratio_N).sum(1), (kept_RN * log_ratio_N.square()).sum(1)
    return torch.where(below_R > 0, top_R / below_R.clamp_min(1e-300), torch.nan)
