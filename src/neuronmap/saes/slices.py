"""A part of an SAE's features: what one process holds where several share them.

Shapes: F features of the whole SAE, of which this process holds W, from ``start`` to before ``stop``; D = d_in.

A slice of an SAE is an object of the same class whose ``d_sae`` is W. Everything that goes feature by feature is then right as it stands;
what needs all features (k, levels, a target) was worked out for the whole, or asks ``whole_d_sae``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from neuronmap.saes.base import SparseAutoencoder

__all__ = ["FeatureSlice", "drawn_rows", "feature_axis", "sliced"]

_DRAWN = 4096
"""Rows drawn at a time, a multiple of 16: torch draws normal numbers by sixteens, so that parts then join to the whole bit for bit."""


@dataclass(frozen=True)
class FeatureSlice:
    """Features ``start`` to before ``stop`` of ``whole``."""

    start: int
    stop: int
    whole: int

    @property
    def width(self) -> int:
        """W."""
        return self.stop - self.start

    def clipped(self, widths: tuple[int, ...]) -> tuple[int, ...]:
        """Of the first w features, for each ascending w, how many are here."""
        return tuple(min(max(width - self.start, 0), self.width) for width in widths)


def drawn_rows(place: FeatureSlice, d_in: int, generator: torch.Generator) -> Tensor:
    """float32 [W, D], a slice's rows of a standard normal [F, D], the same as of the whole; the generator ends where the whole ends."""
    if place.width == place.whole:
        return torch.randn(place.whole, d_in, generator=generator, dtype=torch.float32)
    rows_WD = torch.empty(place.width, d_in)
    first = 0
    while first < place.whole:
        last = place.whole if place.whole - first < 2 * _DRAWN else first + _DRAWN
        drawn_RD = torch.randn(last - first, d_in, generator=generator, dtype=torch.float32)
        low, high = max(first, place.start), min(last, place.stop)
        if low < high:
            rows_WD[low - place.start : high - place.start] = drawn_RD[low - first : high - first]
        first = last
    return rows_WD


def feature_axis(sae: SparseAutoencoder, tensor: Tensor) -> int | None:
    """Axis of a parameter or buffer along which its features lie; None for b_dec and for what has none."""
    if tensor is sae.W_enc:
        return 1
    if tensor is sae.W_dec:
        return 0
    if tensor is sae.b_dec:
        return None
    return next((axis for axis, size in enumerate(tensor.shape) if size == sae.d_sae), None)


def sliced(sae: SparseAutoencoder, place: FeatureSlice, device: torch.device) -> SparseAutoencoder:
    """Turn an SAE of F features, made on the device ``meta``, into one that holds a slice of them, all zeros; in place.

    Args:
        sae: nothing of it lies in memory yet.
        place: which features.
        device: where their parameters are to live.
    """

    def zeros(tensor: Tensor) -> Tensor:
        axis = feature_axis(sae, tensor)
        shape = [place.width if at == axis else size for at, size in enumerate(tensor.shape)]
        if tensor is sae.W_enc:  # by feature, as everywhere
            return torch.zeros(shape[::-1], dtype=tensor.dtype, device=device).T
        return torch.zeros(shape, dtype=tensor.dtype, device=device)

    parameters = {name: nn.Parameter(zeros(parameter)) for name, parameter in sae.named_parameters()}
    buffers = {name: zeros(buffer) for name, buffer in sae.named_buffers()}
    for name, tensor in {**parameters, **buffers}.items():
        setattr(sae, name, tensor)
    sae.d_sae, sae.slice = place.width, place
    return sae
