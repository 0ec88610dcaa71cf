"""A small MLP on each layer at once: what is there, but not along a direction.

Legend: L layers, N items, D principal components, H hidden units, C columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["components_of", "mlp_scores"]

_HIDDEN = 64
_STEPS = 150
_CHECK = 10


def components_of(gram_LNT: Tensor, rows_T: Tensor, most: int) -> Tensor:
    """Items on the principal components of the training items, from their Gram matrix, the largest first.

    Args:
        gram_LNT: float64 products of all items with the training items.
        rows_T: the training items among all.
        most: components at most.

    Returns:
        float32 [L, N, D], in units of the first component's standard deviation.
    """
    values_LT, vectors_LTT = torch.linalg.eigh(gram_LNT[:, rows_T])
    kept = min(most, len(rows_T) - 1)
    values_LD = values_LT[:, -kept:].flip(1).clamp_min(0)
    vectors_LTD = vectors_LTT[:, :, -kept:].flip(2)
    length_LD = values_LD.sqrt()
    sound_LD = length_LD > length_LD[:, :1] * 1e-6
    inverse_LD = torch.where(sound_LD, 1 / length_LD.clamp_min(1e-30), 0.0)
    parts_LND = (gram_LNT @ vectors_LTD) * inverse_LD[:, None]
    unit_L11 = (values_LD[:, :1] / len(rows_T)).sqrt()[:, None].clamp_min(1e-30)
    scaled_LND: Tensor = parts_LND / unit_L11
    return scaled_LND.float()


def mlp_scores(x_LND: Tensor, targets_NC: Tensor, train_N: Tensor, stop_N: Tensor, seed: int) -> Tensor:
    """Scores by an MLP with one hidden layer of 64, full batches of Adam, stopped where the loss on ``stop_N`` is least.

    Args:
        x_LND: float32 [L, N, D], such as principal components.
        targets_NC: float64 [N, C], +1 and -1.
        train_N: indices of the training items.
        stop_N: indices of the items that decide when to stop.
        seed: of the first weights.

    Returns:
        float64 [L, N, C].
    """
    generator = torch.Generator().manual_seed(seed)
    layers, _, width = x_LND.shape
    columns = targets_NC.shape[1]
    # Every component gets a say: the ones behind the first few are small in units of the first.
    scale_LD = x_LND[:, train_N].std(1).clamp_min(1e-3)
    x_LND = x_LND / scale_LD[:, None].sqrt()
    one = torch.randn(1, width, _HIDDEN, generator=generator) / width**0.5
    two = torch.randn(1, _HIDDEN, columns, generator=generator) / _HIDDEN**0.5
    parameters = [
        one.repeat(layers, 1, 1).requires_grad_(),
        torch.zeros(layers, 1, _HIDDEN, requires_grad=True),
        two.repeat(layers, 1, 1).requires_grad_(),
        torch.zeros(layers, 1, columns, requires_grad=True),
    ]
    optimizer = torch.optim.Adam(parameters, lr=1e-2, weight_decay=0.0)
    wanted_NC = (targets_NC > 0).float()
    best_L = torch.full((layers,), torch.inf)
    best_LNC = torch.zeros(layers, x_LND.shape[1], columns)
    for step in range(_STEPS + 1):
        logits_LNC = torch.relu(x_LND @ parameters[0] + parameters[1]) @ parameters[2] + parameters[3]
        loss_LNC = torch.nn.functional.binary_cross_entropy_with_logits(
            logits_LNC, wanted_NC.expand_as(logits_LNC), reduction="none"
        )
        if step % _CHECK == 0:
            stop_L = loss_LNC[:, stop_N].mean((1, 2)).detach()
            better_L = stop_L < best_L
            best_L = torch.where(better_L, stop_L, best_L)
            best_LNC = torch.where(better_L[:, None, None], logits_LNC.detach(), best_LNC)
        decay = sum((weights.square().sum() for weights in (parameters[0], parameters[2])), torch.zeros(()))
        (loss_LNC[:, train_N].mean((1, 2)).sum() + 1e-4 * decay).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return best_LNC.double()
