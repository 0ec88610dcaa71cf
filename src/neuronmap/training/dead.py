"""Dead features: counted in tokens, and brought back by re-initialisation where no auxiliary loss does it.

Shapes: B rows of a batch, D = d_in, F = d_sae.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.saes import SparseAutoencoder, StepLoss
from neuronmap.saes.ranks import ALONE, Ranks
from neuronmap.saes.slices import feature_axis
from neuronmap.training.parameters import ParameterStep

__all__ = ["DeadFeatures", "resample"]

_ENCODER_SHARE = 0.2
"""Norm of a resampled encoder column against the mean of the living ones (Bricken et al. 2023, Towards Monosemanticity)."""


class DeadFeatures:
    """How many activations ago each feature last fired.

    Args:
        d_sae: number of features.
        window: activations without firing after which a feature counts as dead.
        device: where the counter lives.
        features: the processes that hold the other features.

    Attributes:
        since_fired_F: int64 [F], activations since each feature fired.
        dead_M: int64 [M], ascending, the features that were dead when :meth:`look` was last called.
    """

    def __init__(self, d_sae: int, window: int, device: torch.device | str = "cpu", features: Ranks = ALONE) -> None:
        self.window, self._features = window, features
        self._dead_elsewhere = False
        self.since_fired_F = torch.zeros(d_sae, dtype=torch.int64, device=device)
        self.dead_M = torch.zeros(0, dtype=torch.int64, device=device)

    def update(self, loss: StepLoss, rows: int) -> None:
        """Count a batch of ``rows`` activations."""
        self.since_fired_F.add_(rows).masked_fill_(loss.fired_F > 0, 0)

    def look(self) -> None:
        """Find out which features are dead. Waits for the device."""
        self.seen(torch.nonzero(self.since_fired_F >= self.window).view(-1))

    def seen(self, dead_M: Tensor) -> None:
        """Take these features for dead until the next look."""
        self.dead_M = dead_M
        if self._features.count > 1:
            total = self._features.sum_(torch.tensor(len(dead_M), device=dead_M.device))
            self._dead_elsewhere = int(total) > len(dead_M)

    def mask(self) -> Tensor | None:
        """bool [F], or None when every feature was alive at the last look, those of other processes too."""
        return self.since_fired_F >= self.window if len(self.dead_M) or self._dead_elsewhere else None

    def count(self) -> int:
        """How many features are dead, on all processes."""
        return int(self._features.sum_((self.since_fired_F >= self.window).sum()))

    def mask_of_all(self) -> Tensor:
        """bool, which features are dead at this moment, those of other processes too."""
        return self._features.gathered((self.since_fired_F >= self.window).byte()).view(-1).bool()


@torch.no_grad()
def resample(
    sae: SparseAutoencoder,
    parameters: ParameterStep,
    x_BD: Tensor,
    dead: DeadFeatures,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
    features: Ranks = ALONE,
) -> int:
    """Point dead features at what the SAE reconstructs worst (Bricken et al. 2023, appendix).

    Rows are drawn with probability proportional to the square of their loss; the feature's decoder row becomes the
    unit residual direction of its row, its encoder column the same at a fifth of the living columns' norm, its
    biases zero, and its Adam moments zero. ``x_BD`` is this rank's part of the batch; all ranks draw the same rows of all of it,
    one for each dead feature of all ranks in their order.

    Returns:
        How many features were re-initialised here.
    """
    dead.look()
    dead_F = dead.mask()
    if dead_F is None:
        return 0
    chosen = dead_F.nonzero().squeeze(1)
    dead_on = features.gathered(torch.tensor([len(chosen)], device=x_BD.device)).view(-1).tolist()
    xhat_BD = sae(x_BD)
    if features.rank:
        xhat_BD -= sae.b_dec  # which counts once
    residual_BD = x_BD - features.sum_(xhat_BD)
    weight_B = ranks.gathered(residual_BD.square().sum(dim=1).square().double()).view(-1).cpu()
    if float(weight_B.sum()) <= 0:
        return 0
    total, before = sum(dead_on), sum(dead_on[: features.rank])
    drawn = torch.multinomial(weight_B, total, replacement=total > len(weight_B), generator=generator)
    direction_ND = _rows_of_all(residual_BD, drawn.to(residual_BD.device), ranks)
    direction_ND = direction_ND / direction_ND.norm(dim=1, keepdim=True).clamp_min(1e-12)
    direction_ND = direction_ND[before : before + len(chosen)]
    norm = _mean_norm(sae, ~dead_F, features)
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


def _mean_norm(sae: SparseAutoencoder, living_F: Tensor, features: Ranks) -> Tensor:
    """0-d, mean norm of the encoder's columns of living features; 1 where there are none."""
    norms_N = sae.W_enc[:, living_F].norm(dim=0)
    if features.count == 1:
        return norms_N.mean() if len(norms_N) else torch.ones((), device=sae.device)
    total, count = features.sum_(torch.stack((norms_N.sum(), living_F.sum()))).unbind()
    return torch.where(count > 0, total / count, 1.0)


def _rows_of_all(part_BD: Tensor, chosen_N: Tensor, ranks: Ranks) -> Tensor:
    """[N, D], rows of the whole batch, of which ``part_BD`` is this rank's part. Each row has one owner; the others add zeros."""
    place_N = chosen_N - ranks.rank * len(part_BD)
    mine_N = (place_N >= 0) & (place_N < len(part_BD))
    found_ND = part_BD[place_N.clamp(0, len(part_BD) - 1)]
    return ranks.sum_(found_ND.masked_fill_(~mine_N.unsqueeze(1), 0.0))
