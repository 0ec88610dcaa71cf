"""Matryoshka BatchTopK SAE (arXiv 2503.17547): nested dictionaries, each prefix of features a reconstruction of its own.

Shapes: B rows, D = d_in, F = d_sae, L levels with widths w_1 < ... < w_L = F.

    f      = the B k largest positive entries of pre_BF (BatchTopK over all F features)
    xhat_l = f[:, :w_l] @ W_dec[:w_l] + b_dec
    loss   = (1 / L) sum_l mean_b |x - xhat_l|^2 + aux_coefficient * AuxK on x - xhat_L

Early features cannot rely on later ones, so they stay general instead of being absorbed by special cases. The levels
are averaged (the paper adds them up): the loss keeps its scale, so learning rate and AuxK weigh the same for any
number of levels; AuxK is added once, after averaging. ``parts["mse"]`` is the last level's, that of the whole SAE.

With ``detach_levels`` an inner level takes the ones before it as given: its error reaches the features that it adds and no
others, while the last level's, the whole SAE's, reaches all. With ``sort_features`` the trainer moves features that fire
often to the front from time to time (``training.ordering``). Both after the search of Chanin (2026) on SynthSAEBench (arXiv
2602.14687); what they do here is in docs/experiments.md.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from neuronmap.saes.base import ArchitectureOptions, StepLoss, StepState
from neuronmap.saes.batchtopk import BatchTopKSAE
from neuronmap.saes.options import MatryoshkaOptions

__all__ = ["MatryoshkaOptions", "MatryoshkaSAE"]


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
        """Features up to each level, ascending; the last is F. Of a slice, those of its own features that a level holds."""
        widths = self.options.level_widths(self.whole_d_sae)
        return widths if self.slice is None else self.slice.clipped(widths)

    def detaches_levels(self) -> bool:
        """As the option says."""
        return self.options.detach_levels

    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        """The loss at the top of this file, by autograd."""
        pre_BF, f_BF, code = self._training_code(x_BD, state)
        nested, residual_BD = self._nested_loss(x_BD, f_BF)
        mse = residual_BD.square().sum(dim=1).mean()
        return self._reference_loss(code, nested, mse, self._reference_aux(pre_BF, residual_BD, state))

    def _nested_loss(self, x_BD: Tensor, f_BF: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over levels of their square errors, and the last level's residual."""
        residual_BD = x_BD - self.b_dec
        nested, start, widths = x_BD.new_zeros(()), 0, self.level_widths()
        for level, width in enumerate(widths):
            added_BD = f_BF[:, start:width] @ self.W_dec[start:width]
            given_BD = residual_BD.detach() if self.detaches_levels() and 0 < level < len(widths) - 1 else residual_BD
            nested = nested + (given_BD - added_BD).square().sum(dim=1).mean() / len(widths)
            residual_BD = residual_BD - added_BD
            start = width
        return nested, residual_BD
