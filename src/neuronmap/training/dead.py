"""Dead features: counted in tokens, and brought back by re-initialisation where no auxiliary loss does it.

Shapes: B rows of a batch, D = d_in, F = d_sae.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.saes import SparseAutoencoder, StepLoss
from neuronmap.saes.ranks import ALONE, Ranks
from neuronmap.training.parameters import ParameterStep, feature_axis

__all__ = ["DeadFeatures", "resample"]

_ENCODER_SHARE = 0.2
"""Norm of a resampled encoder column against the mean of the living ones (Bricken et al. 2023, Towards Monosemanticity)."""


class DeadFeatures:
    """How many activations ago each feature last fired.

    Args:
        d_sae: number of features.
        window: activations without firing after which a feature counts as dead.
        device: where the counter lives.

    Attributes:
        since_fired_F: int64 [F], activations since each feature fired.
        dead_M: int64 [M], ascending, the features that were dead when :meth:`look` was last called.
    """

    def __init__(self, d_sae: int, window: int, device: torch.device | str = "cpu") -> None:
        self.window = window
        self.since_fired_F = torch.zeros(d_sae, dtype=torch.int64, device=device)
        self.dead_M = torch.zeros(0, dtype=torch.int64, device=device)

    def update(self, loss: StepLoss, rows: int) -> None:
        """Count a batch of ``rows`` activations."""
        self.since_fired_F.add_(rows).masked_fill_(loss.fired_F > 0, 0)

    def look(self) -> None:
        """Find out which features are dead. Waits for the device."""
        self.dead_M = torch.nonzero(self.since_fired_F >= self.window).view(-1)

    def mask(self) -> Tensor | None:
        """bool [F], or None when every feature was alive at the last look."""
        return self.since_fired_F >= self.window if len(self.dead_M) else None

    def count(self) -> int:
        """How many features are dead."""
        return int((self.since_fired_F >= self.window).sum())


@torch.no_grad()
def resample(
    sae: SparseAutoencoder,
    parameters: ParameterStep,
    x_BD: Tensor,
    dead: DeadFeatures,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> int:
    """Point dead features at what the SAE reconstructs worst (Bricken et al. 2023, appendix).

    Rows are drawn with probability proportional to the square of their loss; the feature's decoder row becomes the
    unit residual direction of its row, its encoder column the same at a fifth of the living columns' norm, its
    biases zero, and its Adam moments zero. ``x_BD`` is this rank's part of the batch; all ranks draw the same rows of all of it.

    Returns:
        How many features were re-initialised.
    """
    dead.look()
    dead_F = dead.mask()
    if dead_F is None:
        return 0
    chosen = dead_F.nonzero().squeeze(1)
    residual_BD = x_BD - sae(x_BD)
    weight_B = ranks.gathered(residual_BD.square().sum(dim=1).square().double()).view(-1).cpu()
    if float(weight_B.sum()) <= 0:
        return 0
    drawn = torch.multinomial(weight_B, len(chosen), replacement=len(chosen) > len(weight_B), generator=generator)
    direction_ND = _rows_of_all(residual_BD, drawn.to(residual_BD.device), ranks)
    direction_ND = direction_ND / direction_ND.norm(dim=1, keepdim=True).clamp_min(1e-12)
    living_F = ~dead_F
    norm = sae.W_enc[:, living_F].norm(dim=0).mean() if bool(living_F.any()) else torch.ones((), device=sae.device)
    sae.W_dec[chosen] = direction_ND
    sae.W_enc[:, chosen] = direction_ND.T * (norm * _ENCODER_SHARE)
    for name, parameter in sae.named_parameters():
        axis = feature_axis(sae, parameter)
        if axis is None:
            continue
        if parameter.ndim == 1:
            parameter[chosen] = 0.0
        parameters.forget(name, axis, chosen)
    dead.since_fired_F[chosen] = 0
    return len(chosen)


def _rows_of_all(part_BD: Tensor, chosen_N: Tensor, ranks: Ranks) -> Tensor:
    """[N, D], rows of the whole batch, of which ``part_BD`` is this rank's part. Each row has one owner; the others add zeros."""
    place_N = chosen_N - ranks.rank * len(part_BD)
    mine_N = (place_N >= 0) & (place_N < len(part_BD))
    found_ND = part_BD[place_N.clamp(0, len(part_BD) - 1)]
    return ranks.sum_(found_ND.masked_fill_(~mine_N.unsqueeze(1), 0.0))
