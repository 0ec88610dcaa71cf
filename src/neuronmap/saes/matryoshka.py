"""Matryoshka BatchTopK SAE (arXiv 2503.17547): nested dictionaries, each prefix of features a reconstruction of its own.

Shapes: B rows, D = d_in, F = d_sae, L levels with widths w_1 < ... < w_L = F.

    f      = the B k largest positive entries of pre_BF (BatchTopK over all F features)
    xhat_l = f[:, :w_l] @ W_dec[:w_l] + b_dec
    loss   = (1 / L) sum_l mean_b |x - xhat_l|^2 + aux_coefficient * AuxK on x - xhat_L

Early features cannot rely on later ones, so they stay general instead of being absorbed by special cases. The levels
are averaged (the paper adds them up): the loss keeps its scale, so learning rate and AuxK weigh the same for any
number of levels; AuxK is added once, after averaging. ``parts["mse"]`` is the last level's, that of the whole SAE.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor

from neuronmap.errors import ConfigError
from neuronmap.saes.base import ArchitectureOptions, StepLoss, StepState
from neuronmap.saes.batchtopk import BatchTopKOptions, BatchTopKSAE

__all__ = ["MatryoshkaOptions", "MatryoshkaSAE"]


class MatryoshkaOptions(BatchTopKOptions):
    """Settings of :class:`MatryoshkaSAE`."""

    group_fractions: tuple[float, ...] = Field(default=(1 / 16, 1 / 8, 1 / 4, 9 / 16), min_length=1)
    """Share of the features that each level adds; they sum to 1 and give whole numbers of features. A first level
    far below 1/16 makes its features hedge (arXiv 2505.11756)."""

    @model_validator(mode="after")
    def _check_fractions(self) -> Self:
        if min(self.group_fractions) <= 0 or not math.isclose(sum(self.group_fractions), 1.0, abs_tol=1e-6):
            raise ConfigError(
                f"MatryoshkaOptions.group_fractions = {self.group_fractions} (sum {sum(self.group_fractions):g}): "
                "fractions must be positive and sum to 1."
            )
        return self

    def level_widths(self, d_sae: int) -> tuple[int, ...]:
        """Features up to each level, ascending; the last is d_sae."""
        return tuple(accumulate(round(fraction * d_sae) for fraction in self.group_fractions))

    def check_width(self, d_in: int, d_sae: int) -> None:
        """Also refuse a d_sae that the fractions do not divide into whole numbers."""
        super().check_width(d_in, d_sae)
        groups = [fraction * d_sae for fraction in self.group_fractions]
        if any(round(group) < 1 or abs(group - round(group)) > 1e-3 for group in groups):
            shown = ", ".join(f"{group:g}" for group in groups)
            raise ConfigError(
                f"MatryoshkaOptions.group_fractions = {self.group_fractions} split d_sae = {d_sae} into groups of "
                f"{shown} features; each must be a whole number of at least 1.",
                hint="With the default fractions, choose a d_sae that is a multiple of 16.",
            )


class MatryoshkaSAE(BatchTopKSAE):
    """BatchTopK whose prefixes of features also reconstruct. Inference and files are BatchTopK's.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: :class:`MatryoshkaOptions`; None for the defaults.
        device: where the parameters live.
        dtype: float32 for training; float64 is for tests.
    """

    architecture: ClassVar[str] = "matryoshka"
    Options: ClassVar[type[ArchitectureOptions]] = MatryoshkaOptions
    options: MatryoshkaOptions

    def level_widths(self) -> tuple[int, ...]:
        """Features up to each level, ascending; the last is F."""
        return self.options.level_widths(self.d_sae)

    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        """The loss at the top of this file, by autograd."""
        pre_BF, f_BF, code = self._training_code(x_BD, state)
        residual_BD = x_BD - self.b_dec
        nested, mse, start = x_BD.new_zeros(()), x_BD.new_zeros(()), 0
        for width in self.level_widths():
            residual_BD = residual_BD - f_BF[:, start:width] @ self.W_dec[start:width]
            mse = residual_BD.square().sum(dim=1).mean()
            nested = nested + mse / len(self.level_widths())
            start = width
        return self._reference_loss(code, nested, mse, self._reference_aux(pre_BF, residual_BD, state))
