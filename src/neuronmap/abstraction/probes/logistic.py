"""Logistic regression in the dual, by Newton's method: probabilities from a handful of items.

Legend: T training items, N items, C columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["logistic_log_odds"]

_STEPS = 12


def logistic_log_odds(gram_NT: Tensor, rows_T: Tensor, positive_TC: Tensor, ridge: float) -> Tensor:
    """Log-odds of all items by an L2-regularised logistic probe, trained on some of them.

    Minimises sum log(1 + exp(-y f)) + ridge / 2 * a' K a with f = K a + b: a Newton step solves (K + ridge W^-1) a = z - b.

    Args:
        gram_NT: float64 products of all items with the training items.
        rows_T: the training items among all.
        positive_TC: bool labels of the training items.
        ridge: strength, in units of the Gram matrix.

    Returns:
        float64 [N, C].
    """
    gram_TT = gram_NT[rows_T]
    identity_TT = torch.eye(len(rows_T), dtype=torch.float64)
    columns = []
    for positive_T in positive_TC.T:
        y_T = positive_T.to(torch.float64)
        share = float(((y_T.sum() + 1) / (len(y_T) + 2)).clamp(1e-6, 1 - 1e-6))
        weights_T, offset = torch.zeros_like(y_T), float(torch.logit(torch.tensor(share, dtype=torch.float64)))
        for _ in range(_STEPS):
            f_T = gram_TT @ weights_T + offset
            p_T = torch.sigmoid(f_T)
            w_T = (p_T * (1 - p_T)).clamp_min(1e-4)
            z_T = f_T + (y_T - p_T) / w_T
            system_TT = gram_TT + ridge * identity_TT / w_T
            solved_T2 = torch.linalg.solve(system_TT, torch.stack([z_T, torch.ones_like(z_T)], dim=1))
            offset = float(solved_T2[:, 0].sum() / solved_T2[:, 1].sum().clamp_min(1e-12))
            weights_T = solved_T2[:, 0] - offset * solved_T2[:, 1]
        columns.append(gram_NT @ weights_T + offset)
    return torch.stack(columns, dim=1)
