"""Input normalisation that cannot be folded into weights, because each row has its own statistics.

Shapes: ... any leading dims, D the width. mean and std are taken over D of each row; std is the unbiased one (over D - 1).

    none
    layer_norm              (x - mean) / (std + 1e-5)     undone by  xhat * std + mean
    constant_norm_rescale   x * sqrt(D) / |x|             undone by  xhat * |x| / sqrt(D)

``layer_norm`` is what SAELens and OpenAI's ``sparse_autoencoder`` both do: the epsilon stands in the way in only, and
``b_dec`` is subtracted after it and added before it is undone. A row of zeros, which SAELens turns into NaN, is left
as it is by ``constant_norm_rescale``.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from neuronmap.errors import ConfigError

__all__ = ["INPUT_NORMS", "InputNorm", "normalise", "output_scale", "undo_normalisation"]

InputNorm = Literal["none", "layer_norm", "constant_norm_rescale"]

INPUT_NORMS: tuple[str, ...] = get_args(InputNorm)
"""The rules, under SAELens' names."""

_EPSILON = 1e-5


def normalise(x: Tensor, rule: str) -> Tensor:
    """Rows [..., D] as the encoder sees them; ``x`` itself for ``none``.

    Raises:
        ConfigError: for a rule that does not exist.
    """
    if rule == "none":
        return x
    if rule == "layer_norm":
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred / (centred.std(dim=-1, keepdim=True) + _EPSILON)
    return x * _rescaling(x, rule)


def undo_normalisation(xhat: Tensor, x: Tensor, rule: str) -> Tensor:
    """Reconstructions [..., D] of normalised rows, back on the scale of the rows ``x`` that they were made from."""
    if rule == "none":
        return xhat
    if rule == "layer_norm":
        mean = x.mean(dim=-1, keepdim=True)
        return xhat * (x - mean).std(dim=-1, keepdim=True) + mean
    return xhat / _rescaling(x, rule)


def output_scale(x: Tensor, rule: str) -> Tensor | float:
    """[..., 1], what :func:`undo_normalisation` multiplies by; 1.0 for ``none``."""
    if rule == "none":
        return 1.0
    if rule == "layer_norm":
        return (x - x.mean(dim=-1, keepdim=True)).std(dim=-1, keepdim=True)
    return 1.0 / _rescaling(x, rule)


def _rescaling(x: Tensor, rule: str) -> Tensor:
    """[..., 1], what ``constant_norm_rescale`` multiplies rows by."""
    if rule != "constant_norm_rescale":
        raise ConfigError(f"No input normalisation {rule!r}. There are: {', '.join(INPUT_NORMS)}.")
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(norm > 0, math.sqrt(x.shape[-1]) / norm, 1.0)
