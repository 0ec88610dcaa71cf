"""The largest entries of each row, with ties settled: equal values go to the lower column.

Shapes: B rows, V columns, N entries kept, G columns in a group.

``torch.topk`` leaves the order of equal values open, and scans the whole row with a heap. Here a row is cut into groups, the groups
with the largest maxima are found first, and only their entries are ranked; rows whose N-th value comes again are ranked in full.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["largest"]

_GROUP = 64


def largest(values_BV: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n largest entries of each row.

    Args:
        values_BV: float [B, V], without NaN.
        n: N, at most V.

    Returns:
        Values [B, N], descending, and their columns int64 [B, N]; equal values by ascending column.
    """
    B, V = values_BV.shape
    if n == 0:
        return values_BV[:, :0], torch.empty(B, 0, dtype=torch.int64, device=values_BV.device)
    if n >= V:
        value_BN, column_BN = torch.sort(values_BV, dim=1, descending=True, stable=True)
        return value_BN, column_BN
    # One more than asked: if it equals the last that is kept, a tie is cut and topk's choice is not ours.
    value_BM, column_BM = _top(values_BV, n + 1)
    column_BN, order_BN = column_BM[:, :n].sort(dim=1)
    value_BN = value_BM[:, :n].gather(1, order_BN)
    value_BN, order_BN = torch.sort(value_BN, dim=1, descending=True, stable=True)
    column_BN = column_BN.gather(1, order_BN)
    for row in torch.nonzero(value_BM[:, n] == value_BM[:, n - 1]).view(-1).tolist():
        column_BN[row] = _with_ties(values_BV[row], value_BM[row, n - 1], n)
        value_BN[row] = values_BV[row, column_BN[row]]
    return value_BN, column_BN


def _top(values_BV: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """topk by groups. The n groups with the largest maxima hold the n largest values."""
    B, V = values_BV.shape
    groups = V // _GROUP
    if groups < 4 * n:
        top = torch.topk(values_BV, n, dim=1)
        return top.values, top.indices
    whole = groups * _GROUP
    grouped_BKG = values_BV[:, :whole].reshape(B, groups, _GROUP)
    group_Bn = torch.topk(grouped_BKG.amax(dim=2), n, dim=1).indices
    inside_G = torch.arange(_GROUP, device=values_BV.device)
    rest_R = torch.arange(whole, V, device=values_BV.device)
    column_BC = torch.cat([(group_Bn[:, :, None] * _GROUP + inside_G).flatten(1), rest_R.expand(B, len(rest_R))], dim=1)
    top = torch.topk(values_BV.gather(1, column_BC), n, dim=1)
    return top.values, column_BC.gather(1, top.indices)


def _with_ties(values_V: Tensor, last: Tensor, n: int) -> Tensor:
    """The n columns of one row in which the n-th largest value ``last`` comes more than once."""
    candidate_C = torch.nonzero(values_V >= last).view(-1)
    order = np.argsort(-values_V[candidate_C].cpu().numpy(), kind="stable")[:n]
    return candidate_C[torch.from_numpy(order.copy()).to(candidate_C.device)]
