"""Activations brought to a common scale before layers are compared.

A dimension that varies by less than a millionth of its own size, or of the layer's, only carries rounding and counts as constant; a layer
that is constant becomes all zeros, which every comparison shows as undefined.

Legend: N rows, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["centred", "defined", "standardized"]

_ROUNDING = 1e-6


def centred(x_NW: Tensor) -> Tensor:
    """The rows less their mean, divided by one number so that the mean square length is 1.

    Args:
        x_NW: activations of one layer, [N, W].

    Returns:
        float32 [N, W]; zeros if all rows are equal.
    """
    mean_W = x_NW.mean(0, dtype=torch.float64)
    rest_NW = x_NW.double() - mean_W
    size = float(x_NW.double().square().sum(1).mean()) ** 0.5
    return _to_unit(rest_NW, size)


def standardized(x_NW: Tensor, fit_N: Tensor | None = None) -> Tensor:
    """Each dimension less its mean and over its standard deviation; then divided by one number as in :func:`centred`.

    A few dimensions of large variance decide what raw activations look like (arXiv 2109.04404); here every dimension counts alike.

    Args:
        x_NW: activations of one layer, [N, W].
        fit_N: indices of the rows that mean and deviation are taken over; None for all.

    Returns:
        float32 [N, W]; dimensions that do not vary are zero.
    """
    x_NW = x_NW.double()
    fit_NW = x_NW if fit_N is None else x_NW[fit_N]
    mean_W = fit_NW.mean(0)
    deviation_W = (fit_NW - mean_W).square().mean(0).sqrt()
    size_W = fit_NW.square().mean(0).sqrt()
    varies_W = (deviation_W > _ROUNDING * size_W) & (deviation_W > _ROUNDING * size_W.square().mean().sqrt())
    return _to_unit(torch.where(varies_W, (x_NW - mean_W) / deviation_W.clamp_min(1e-300), 0.0), 0.0)


def defined(x_NW: Tensor) -> bool:
    """Whether a layer that one of these functions gave varies at all."""
    return bool(x_NW.any())


def _to_unit(rest_NW: Tensor, size: float) -> Tensor:
    """Mean square length 1, or zeros where what is left is rounding of rows of length ``size``."""
    spread = float(rest_NW.square().sum(1).mean()) ** 0.5
    if spread <= _ROUNDING * size or spread == 0.0:
        return torch.zeros(rest_NW.shape)
    unit_NW: Tensor = (rest_NW / spread).float()
    return unit_NW
