"""AbsTopK (Zhu et al. 2025, arXiv 2510.00404): features that fire in either direction.

Shapes: D = d_in, F = d_sae.

    pre_F = (x - b_dec) @ W_enc + b_enc
    f_F   = pre at the k largest |pre| of the row, with its sign; zero elsewhere
    xhat  = f @ W_dec + b_dec
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from neuronmap.saes.inference.base import InferenceSAE, keep_largest
from neuronmap.saes.inference.options import AbsTopKOptions
from neuronmap.saes.options import ArchitectureOptions

__all__ = ["AbsTopKOptions", "AbsTopKSAE"]


class AbsTopKSAE(InferenceSAE):
    """Keeps the k pre-activations of largest magnitude. Activations may be negative. SAELens calls it ``abstopk``.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: :class:`AbsTopKOptions`; None for the defaults.
        device: where the parameters live.
        dtype: their precision.
    """

    architecture: ClassVar[str] = "abstopk"
    Options: ClassVar[type[ArchitectureOptions]] = AbsTopKOptions
    signed: ClassVar[bool] = True

    b_enc: nn.Parameter
    """[F]"""

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        options: ArchitectureOptions | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shapes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
        super().__init__(d_in, d_sae, options, shapes, device=device, dtype=dtype)

    def encode(self, x: Tensor) -> Tensor:
        """The rule at the top of this file."""
        pre = self.pre_activations(self.normalised(x))
        return keep_largest(pre, pre.abs(), cast(AbsTopKOptions, self.options).k)

    def saelens_config(self) -> dict[str, Any]:
        """SAELens' name for it, without its rescaling by decoder norms."""
        k = cast(AbsTopKOptions, self.options).k
        return {"architecture": "abstopk", "k": k, "rescale_acts_by_decoder_norm": False}
