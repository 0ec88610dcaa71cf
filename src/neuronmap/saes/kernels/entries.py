"""Vectors of features read at, and summed over, the entries of a code.

Shapes: F = d_sae, N entries of a code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.saes.kernels.choice import backend
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.protocol import Encoder, Kernels
from neuronmap.saes.workspace import Workspace

__all__ = ["above_floor", "at_entries", "entry_limit", "sums_over_entries"]


def above_floor(
    sae_input: tuple[Tensor, Tensor, Tensor], b_F: Tensor, floor_F: Tensor | None, workspace: Workspace
) -> SparseCode | None:
    """The entries of (x - b_dec) @ W_enc + b above their feature's floor; None when so many are that dense is quicker.

    Args:
        sae_input: x [B, D], b_dec [D] and W_enc [D, F].
        b_F: bias.
        floor_F: floors; None for 0.
        workspace: scratch space, and which kernels run.
    """
    x_BD, b_dec_D, W_enc_DF = sae_input
    kernels = backend(workspace, W_enc_DF)
    if workspace.products == "dense":
        return None
    encoder = Encoder((x_BD - b_dec_D).contiguous(), W_enc_DF, b_F)
    encoded = kernels.encode_above(encoder, floor_F, entry_limit(workspace, kernels, len(x_BD), len(b_F)))
    return None if encoded is None else encoded.code


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
