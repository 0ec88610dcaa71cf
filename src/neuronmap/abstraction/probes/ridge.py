"""Ridge probes on all layers at once, in the dual: linear in the labels, so a thousand labelings cost one product.

A probe on labels of +1 and -1 is linear discriminant analysis with a shrunk covariance, up to the length of its direction. Each layer is
standardised on the training items (a few dimensions of a residual stream are hundreds of times larger than the rest; without that they
are all a probe sees). With T items and W dimensions, T < W, everything is done with Gram matrices of T x T:

    K = Z Z' / mean diagonal,  scores = K_all,train (K + ridge I)^-1 (Y - mean Y)

The ridge is chosen at each layer by leaving out one cluster at a time, which has a closed form: with G = (K + ridge I)^-1 the residuals
of a left-out cluster c are (G_cc)^-1 (G Y)_c.

Legend: L layers, N items, T training items, W width, P labelings, C columns (classes, or 1), R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["RIDGES", "Directions", "RidgeFit", "Standardized", "contrast", "fit_ridge", "standardize"]

RIDGES = (0.003, 0.03, 0.1, 0.3, 1.0)
"""Ridges that are tried, in units of the Gram matrix's mean diagonal."""
_FLOOR = 1e-2


class Standardized(NamedTuple):
    """Activations of all items on the scale of some of them.

    Attributes:
        z_LNW: float32 [L, N, W].
        mean_LW, std_LW: of the training items; the standard deviation has a floor of a hundredth of the layer's median.
    """

    z_LNW: Tensor
    mean_LW: Tensor
    std_LW: Tensor


class Directions(NamedTuple):
    """Probes as directions in standardised space: score = z . w + b.

    Attributes:
        w_LCW: float32 [L, C, W].
        b_LC: float32 [L, C].
    """

    w_LCW: Tensor
    b_LC: Tensor


def standardize(x_LNW: Tensor, rows_T: Tensor) -> Standardized:
    """Mean 0 and standard deviation 1 for each dimension of each layer, over the items in ``rows_T``."""
    train_LTW = x_LNW[:, rows_T]
    mean_LW = train_LTW.mean(1)
    std_LW = train_LTW.std(1, correction=0)
    # Below a millionth of the layer's size there is rounding and nothing else.
    rounding_L1 = (train_LTW.abs().amax((1, 2)) * 1e-6).clamp_min(1e-12)[:, None]
    floor_L1 = torch.maximum(std_LW.median(1, keepdim=True).values * _FLOOR, rounding_L1)
    std_LW = torch.maximum(std_LW, floor_L1)
    return Standardized((x_LNW - mean_LW[:, None]) / std_LW[:, None], mean_LW, std_LW)


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """A fit for one set of training items; labels may be exchanged without fitting again.

    Attributes:
        space: the standardised activations.
        rows_T: int64 [T], the training items.
        gram_LNT: float64 [L, N, T], products of all items with the training items, over ``size_L``.
        inverse_LTT: float64 [L, T, T], (K + ridge I)^-1.
        ridge_L: the ridge chosen at each layer.
        size_L: mean diagonal of the training items' Gram matrix.
    """

    space: Standardized
    rows_T: Tensor
    gram_LNT: Tensor
    inverse_LTT: Tensor
    ridge_L: Tensor
    size_L: Tensor

    def scores(self, targets_TP: Tensor, rows_N: Tensor | None = None) -> Tensor:
        """Scores of items by probes for some labelings of the training items.

        Args:
            targets_TP: float64 [T, P].
            rows_N: items wanted; all when left out.

        Returns:
            float64 [L, N, P].
        """
        gram_LNT = self.gram_LNT if rows_N is None else self.gram_LNT[:, rows_N]
        mean_1P = targets_TP.mean(0, keepdim=True)
        return gram_LNT @ (self.inverse_LTT @ (targets_TP - mean_1P)) + mean_1P

    def difference_scores(self, targets_TP: Tensor, rows_N: Tensor | None = None) -> Tensor:
        """Scores of items along the difference of class means, up to its length; as :meth:`scores`."""
        gram_LNT = self.gram_LNT if rows_N is None else self.gram_LNT[:, rows_N]
        return gram_LNT @ contrast(targets_TP)

    def directions(self, targets_TC: Tensor) -> Directions:
        """The probes for some targets [T, C] as directions."""
        mean_1C = targets_TC.mean(0, keepdim=True)
        weights_LTC = self.inverse_LTT @ (targets_TC - mean_1C) / self.size_L[:, None, None]
        w_LCW = weights_LTC.transpose(1, 2).float() @ self.space.z_LNW[:, self.rows_T]
        return Directions(w_LCW, mean_1C.float().expand(w_LCW.shape[:2]))

    def differences(self, targets_TC: Tensor) -> Tensor:
        """Differences of class means in standardised units, float32 [L, C, W]."""
        return contrast(targets_TC).T.float() @ self.space.z_LNW[:, self.rows_T]


def contrast(targets_TP: Tensor) -> Tensor:
    """Weights [T, P] that make a sum over items the mean of the positive ones minus that of the negative ones."""
    positive_TP = (targets_TP > 0).to(targets_TP.dtype)
    negative_TP = 1 - positive_TP
    return positive_TP / positive_TP.sum(0).clamp_min(1) - negative_TP / negative_TP.sum(0).clamp_min(1)


def fit_ridge(
    x_LNW: Tensor,
    rows_T: Tensor,
    targets_TC: Tensor,
    clusters_T: Sequence[int] | Tensor,
    ridge_L: Tensor | None = None,
) -> RidgeFit:
    """Fit probes at all layers on some of the items.

    Args:
        x_LNW: float32 activations of all items, on the CPU.
        rows_T: int64, the training items.
        targets_TC: float64, +1 and -1, by which the ridge is chosen.
        clusters_T: cluster of each training item; clusters are left out whole.
        ridge_L: the ridge, where it has been chosen before.
    """
    space = standardize(x_LNW, rows_T)
    gram_LNT = (space.z_LNW @ space.z_LNW[:, rows_T].transpose(1, 2)).to(torch.float64)
    size_L = gram_LNT[:, rows_T].diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    gram_LNT = gram_LNT / size_L[:, None, None]
    gram_LTT = gram_LNT[:, rows_T]
    if ridge_L is None:
        ridge_L = _choose_ridge(gram_LTT, targets_TC, torch.as_tensor(clusters_T))
    return RidgeFit(space, rows_T, gram_LNT, _inverse(gram_LTT, ridge_L), ridge_L, size_L)


def _inverse(gram_LTT: Tensor, ridge_L: Tensor) -> Tensor:
    identity_TT = torch.eye(gram_LTT.shape[1], dtype=gram_LTT.dtype)
    return torch.cholesky_inverse(torch.linalg.cholesky(gram_LTT + ridge_L[:, None, None] * identity_TT))


def _choose_ridge(gram_LTT: Tensor, targets_TC: Tensor, clusters_T: Tensor) -> Tensor:
    """The ridge with the least squared error on left-out clusters, at each layer. In float32: it only chooses."""
    gram_LTT, targets_TC = gram_LTT.float(), targets_TC.float()
    groups = [torch.nonzero(clusters_T == cluster).squeeze(1) for cluster in torch.unique(clusters_T).tolist()]
    centred_TC = targets_TC - targets_TC.mean(0, keepdim=True)
    layers = gram_LTT.shape[0]
    if len(groups) < 2:
        return torch.full((layers,), 0.1, dtype=torch.float64)
    errors = []
    for ridge in RIDGES:
        inverse_LTT = _inverse(gram_LTT, torch.full((layers,), ridge))
        weights_LTC = inverse_LTT @ centred_TC
        error_L = torch.zeros(layers)
        for rows in groups:
            block_Lcc = inverse_LTT[:, rows[:, None], rows[None]]
            error_L += torch.linalg.solve(block_Lcc, weights_LTC[:, rows]).square().sum((1, 2))
        errors.append(error_L)
    return torch.tensor(RIDGES, dtype=torch.float64)[torch.stack(errors).argmin(0)]
