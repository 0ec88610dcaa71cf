"""Matching pursuit (Mallat and Zhang 1993; as an SAE: Costa et al. 2025, arXiv 2506.03093).

Shapes: B rows, D = d_in, F = d_sae.

    r = x - b_dec, f = 0
    repeat:  j = the feature with the largest relu(r . W_dec_j);  a = relu(r . W_dec_j);  f_j += a;  r -= a W_dec_j
    until    no new feature was picked, or |r| < residual_threshold, or max_iterations steps
    xhat = f @ W_dec + b_dec

The rows of W_dec are used as they are, also where their norm is not 1. The encoder is the decoder.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor

from neuronmap.saes.inference.base import InferenceSAE
from neuronmap.saes.inference.options import MatchingPursuitOptions
from neuronmap.saes.options import ArchitectureOptions

__all__ = ["MatchingPursuitOptions", "MatchingPursuitSAE"]


class MatchingPursuitSAE(InferenceSAE):
    """Picks features one after another, each for what is left of the row. SAELens calls it ``matching_pursuit``.

    Every step is a product with the whole dictionary, so encoding takes as many of them as the row that needs most.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: :class:`MatchingPursuitOptions`; None for the defaults.
        device: where the parameters live.
        dtype: their precision.
    """

    architecture: ClassVar[str] = "matching_pursuit"
    Options: ClassVar[type[ArchitectureOptions]] = MatchingPursuitOptions

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        options: ArchitectureOptions | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shapes = {"W_dec": (d_sae, d_in), "b_dec": (d_in,)}
        super().__init__(d_in, d_sae, options, shapes, device=device, dtype=dtype)

    @property
    def W_enc(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        """[D, F], the decoder transposed."""
        return self.W_dec.T

    def pre_activations(self, x: Tensor) -> Tensor:
        """[..., F], the products that the first step chooses by."""
        return (x - self.b_dec) @ self.W_dec.T

    def encode(self, x: Tensor) -> Tensor:
        """The rule at the top of this file."""
        rest_BD = (self.normalised(x) - self.b_dec).reshape(-1, self.d_in)
        return self._pursue(rest_BD).view(*x.shape[:-1], self.d_sae)

    def _pursue(self, rest_BD: Tensor) -> Tensor:
        """[B, F] of what is to be explained."""
        options = cast(MatchingPursuitOptions, self.options)
        f_BF = rest_BD.new_zeros(len(rest_BD), self.d_sae)
        done_B = torch.zeros(len(rest_BD), dtype=torch.bool, device=rest_BD.device)
        had_BF = f_BF != 0
        for _ in range(options.max_iterations or self.d_in):
            best_B = torch.relu(rest_BD @ self.W_dec.T).argmax(dim=1)
            row_BD = self.W_dec[best_B]
            # the product again and not the maximum: the sum of SAELens, so that rounding falls alike there
            gain_B1 = torch.relu((rest_BD * row_BD).sum(dim=1, keepdim=True)) * ~done_B.unsqueeze(1)
            f_BF = f_BF.scatter_add(1, best_B.unsqueeze(1), gain_B1)
            rest_BD = rest_BD - gain_B1 * row_BD
            if options.stop_on_duplicate_support:
                has_BF = f_BF != 0
                done_B = done_B | (has_BF == had_BF).all(dim=1)
                had_BF = has_BF
            if options.residual_threshold > 0:
                done_B = done_B | (rest_BD.norm(dim=1) < options.residual_threshold)
            if bool(done_B.all()):
                break
        return f_BF

    def saelens_config(self) -> dict[str, Any]:
        """SAELens' name for it and its settings."""
        return {"architecture": "matching_pursuit", **self.options.to_dict()}

    @classmethod
    def from_saelens(cls, config: dict[str, Any], tensors: dict[str, Tensor], options: ArchitectureOptions) -> Self:
        """From the tensors above."""
        del config
        d_sae, d_in = tensors["W_dec"].shape
        sae = cls(d_in, d_sae, options, device=tensors["W_dec"].device, dtype=tensors["W_dec"].dtype)
        sae.load_state_dict(tensors)
        return sae
