"""Mutual nearest neighbours: whether the tokens that are near each other at one layer are near each other at another.

The overlap of a row's k nearest neighbours at two layers, as a share of k, mean over the rows (arXiv 2405.07987). Nearness is the cosine of
centred activations. Rows of the same context are no neighbours of each other. Unrelated layers overlap by k / (N - 1).

At the embedding all rows of one token are the same vector. Neighbours within 1e-5 of the k-th cosine are tied with it, and share the places
that are left; the overlap is then the cosine of the two memberships, which is the share of k where nothing is tied.

Legend: L, M layers, N rows, W width, n rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from neuronmap.abstraction.layers.scaling import centred, defined
from neuronmap.errors import InputError

__all__ = ["mutual_neighbours", "nearest_neighbours"]

_TIE = 1e-5
_CHUNK = 512


def mutual_neighbours(
    x_LNW: Sequence[Tensor] | Tensor,
    y_MNV: Sequence[Tensor] | Tensor | None = None,
    *,
    k: int = 10,
    context_N: Tensor | None = None,
) -> Tensor:
    """Overlap of the k nearest neighbours for every pair of layers.

    Args:
        x_LNW: activations of each layer, [N, W].
        y_MNV: those of another model on the same rows; None compares X with itself.
        k: neighbours of a row.
        context_N: int64 [N], the context of each row; None when each row has its own.

    Returns:
        float64 [L, M], 0 to 1; NaN where a layer is constant.

    Raises:
        InputError: a row has fewer than k others.
    """
    members_X = nearest_neighbours(x_LNW, k=k, context_N=context_N)
    members_Y = members_X if y_MNV is None else nearest_neighbours(y_MNV, k=k, context_N=context_N)
    if members_X.shape != members_Y.shape and members_X.shape[1] != members_Y.shape[1]:
        raise InputError("The two sides have different numbers of rows; they must be the same tokens.")
    used = np.union1d(members_X.indices, members_Y.indices)  # of N * N columns few are
    product_LM = (_columns(members_X, used) @ _columns(members_Y, used).T).toarray()
    size_L, size_M = (np.sqrt(members.multiply(members).sum(axis=1)) for members in (members_X, members_Y))
    scale_LM = np.asarray(size_L).reshape(-1, 1) * np.asarray(size_M).reshape(1, -1)
    overlap_LM = np.divide(product_LM, scale_LM, out=np.full(scale_LM.shape, np.nan), where=scale_LM > 0)
    return torch.from_numpy(np.minimum(overlap_LM, 1.0))


def nearest_neighbours(
    x_LNW: Sequence[Tensor] | Tensor, *, k: int, context_N: Tensor | None = None
) -> scipy.sparse.csr_matrix:
    """Which rows are among the k nearest of each row.

    Returns:
        float32 CSR [L, N * N]: at (l, i * N + j) how much j is one of i's neighbours at layer l; each i adds up to k. Empty for a constant
        layer.
    """
    rows = x_LNW[0].shape[0]
    context_N = torch.arange(rows) if context_N is None else context_N
    most_own = int(torch.bincount(context_N).max()) if rows else 0
    if rows - most_own < k:
        raise InputError(
            f"{rows:,} rows, up to {most_own:,} of one context; {k} neighbours in other contexts are needed.",
            hint="Give more contexts.",
        )
    layers = [_of_layer(centred(x_NW), k, context_N) for x_NW in x_LNW]
    return scipy.sparse.vstack(layers, format="csr")


def _of_layer(x_NW: Tensor, k: int, context_N: Tensor) -> scipy.sparse.csr_matrix:
    rows = x_NW.shape[0]
    if not defined(x_NW):
        return scipy.sparse.csr_matrix((1, rows * rows), dtype=np.float32)
    x_NW = x_NW / torch.linalg.vector_norm(x_NW, dim=1, keepdim=True).clamp_min(1e-30)
    places, weights = [], []
    for start in range(0, rows, _CHUNK):
        cosine_nN = x_NW[start : start + _CHUNK] @ x_NW.T
        cosine_nN[context_N[start : start + _CHUNK, None] == context_N] = -torch.inf
        last_n1 = cosine_nN.topk(k, dim=1).values[:, -1:]
        above_nN, tied_nN = cosine_nN > last_n1 + _TIE, (cosine_nN - last_n1).abs() <= _TIE
        left_n1 = (k - above_nN.sum(1, keepdim=True)) / tied_nN.sum(1, keepdim=True)
        member_nN = torch.where(tied_nN, left_n1, above_nN.float())
        row, column = member_nN.nonzero(as_tuple=True)
        places.append((row + start) * rows + column)
        weights.append(member_nN[row, column])
    place, weight = torch.cat(places).numpy(), torch.cat(weights).numpy()
    return scipy.sparse.csr_matrix((weight, place, np.array([0, len(place)])), shape=(1, rows * rows))


def _columns(members: scipy.sparse.csr_matrix, used: npt.NDArray[Any]) -> scipy.sparse.csr_matrix:
    place = np.searchsorted(used, members.indices)
    return scipy.sparse.csr_matrix((members.data, place, members.indptr), shape=(members.shape[0], len(used)))
