"""Vectors of features read at, and summed over, the entries of a code.

Shapes: F = d_sae, N entries of a code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.protocol import Kernels
from neuronmap.saes.workspace import Workspace

__all__ = ["at_entries", "entry_limit", "sums_over_entries"]


def at_entries(vector_F: Tensor, code: SparseCode) -> Tensor:
    """[N], the value of each entry's feature."""
    return torch.index_select(vector_F.detach(), 0, code.feature_N)


def sums_over_entries(code: SparseCode, weight_N: Tensor) -> Tensor:
    """[F], a weight of each entry summed by feature; added in float64, in the order of the entries."""
    sums_F = torch.bincount(code.feature_N, weights=weight_N, minlength=code.num_features)
    return sums_F.to(weight_N.dtype)


def entry_limit(workspace: Workspace, kernels: Kernels, rows: int, features: int) -> int:
    """Entries above which a sparse step that was begun is given up for a dense one; no limit when sparse was asked for."""
    share = 1.0 if workspace.products == "sparse" else kernels.dense_above
    return int(share * rows * features)
