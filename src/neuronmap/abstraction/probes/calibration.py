"""From scores to probabilities: a logistic curve fitted on items that the probe has not seen (Platt 1999).

Legend: L layers, N items, C columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Calibration", "bits", "calibrate", "calibration_error"]

_STEPS = 30
_PRIOR = 1e-2


class Calibration(NamedTuple):
    """Log-odds = slope * score + offset; float64 [L, C] each. ``low`` and ``high`` are the range of the log-odds on the items it was fitted
    on; beyond it the curve is a guess."""

    slope_LC: Tensor
    offset_LC: Tensor
    low_LC: Tensor
    high_LC: Tensor

    def log_odds(self, scores_LNC: Tensor) -> Tensor:
        """Calibrated log-odds of scores [L, N, C]."""
        return self.slope_LC[:, None] * scores_LNC + self.offset_LC[:, None]


def calibrate(scores_LNC: Tensor, positive_NC: Tensor) -> Calibration:
    """Fit slope and offset by Newton's method, with a weak prior that keeps separable data finite.

    Labels are smoothed as Platt does, (n + 1) / (n + 2), so that a handful of items never gives certainty.

    Args:
        scores_LNC: float64 scores of the calibration items.
        positive_NC: bool labels.
    """
    scale_LC = scores_LNC.std(1, correction=0).clamp_min(1e-12)
    z_LNC = scores_LNC / scale_LC[:, None]
    positive_NC = positive_NC.to(torch.float64)
    up_C, down_C = positive_NC.sum(0), (1 - positive_NC).sum(0)
    target_NC = positive_NC * (up_C + 1) / (up_C + 2) + (1 - positive_NC) / (down_C + 2)
    slope_LC = torch.zeros_like(scale_LC)
    offset_LC = torch.log((up_C + 1) / (down_C + 1)).expand_as(slope_LC).clone()
    for _ in range(_STEPS):
        p_LNC = torch.sigmoid(slope_LC[:, None] * z_LNC + offset_LC[:, None])
        error_LNC = p_LNC - target_NC
        weight_LNC = p_LNC * (1 - p_LNC)
        g_slope = (error_LNC * z_LNC).sum(1) + _PRIOR * slope_LC
        g_offset = error_LNC.sum(1)
        h_ss = (weight_LNC * z_LNC.square()).sum(1) + _PRIOR
        h_so = (weight_LNC * z_LNC).sum(1)
        h_oo = weight_LNC.sum(1) + 1e-9
        determinant = (h_ss * h_oo - h_so.square()).clamp_min(1e-12)
        slope_LC = slope_LC - ((h_oo * g_slope - h_so * g_offset) / determinant).clamp(-5, 5)
        offset_LC = offset_LC - ((h_ss * g_offset - h_so * g_slope) / determinant).clamp(-5, 5)
    slope_LC = slope_LC / scale_LC
    odds_LNC = slope_LC[:, None] * scores_LNC + offset_LC[:, None]
    return Calibration(slope_LC, offset_LC, odds_LNC.amin(1), odds_LNC.amax(1))


def bits(log_odds_LNC: Tensor, positive_NC: Tensor) -> Tensor:
    """Usable information: entropy of the labels minus the log-loss, in bits; the mean over the columns.

    Returns:
        float64 [L]; below 0 where the probe is worse than knowing the shares.
    """
    positive_NC = positive_NC.to(torch.float64)
    share_C = positive_NC.mean(0).clamp(1e-12, 1 - 1e-12)
    entropy_C = -(share_C * share_C.log() + (1 - share_C) * (1 - share_C).log())
    loss_LNC = torch.nn.functional.softplus(log_odds_LNC) - positive_NC * log_odds_LNC
    return ((entropy_C - loss_LNC.mean(1)) / torch.log(torch.tensor(2.0, dtype=torch.float64))).mean(1)


def calibration_error(log_odds_LNC: Tensor, positive_NC: Tensor, bins: int = 10) -> Tensor:
    """Expected calibration error: mean |confidence - share| over bins of equal width, by their items; float64 [L]."""
    p_LM = torch.sigmoid(log_odds_LNC).flatten(1)
    positive_M = positive_NC.to(torch.float64).flatten()
    bin_LM = (p_LM * bins).long().clamp(0, bins - 1)
    error_L = torch.zeros(p_LM.shape[0], dtype=torch.float64)
    for index in range(bins):
        inside_LM = (bin_LM == index).to(torch.float64)
        gap_L = (inside_LM * (p_LM - positive_M)).sum(1).abs()
        error_L += gap_L / p_LM.shape[1]
    return error_L
