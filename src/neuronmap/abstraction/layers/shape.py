"""Other measures of how alike two layers are: best rotation, linear predictability, shared concept subspaces.

Legend: L layers of the first model, M of the second, N rows, W, V widths, n training rows, m held-out rows, C concepts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neuronmap.abstraction.layers.scaling import centred, defined, standardized
from neuronmap.errors import InputError

__all__ = ["concept_overlap", "predictivity", "procrustes"]

Layers = Sequence[Tensor] | Tensor

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Ridge penalties that are tried, times the mean eigenvalue of the training rows' Gram matrix."""
_LEAST_ROWS = 16


def procrustes(x_LNW: Layers, y_MNV: Layers | None = None, *, components: int = 64) -> Tensor:
    """1 - residual of the best rotation (orthogonal Procrustes): the nuclear norm of X'Y, both centred and of Frobenius norm 1.

    With R the best rotation |X R - Y|^2 / 2 = 1 - |X'Y|_* (Schoenemann 1966). Each layer is first put on its leading principal components:
    with as many dimensions as rows any two matrices can be turned into each other, and unrelated layers come out at about
    0.85 sqrt(components / N) at most, 0.25 for 64 and 768.

    Args:
        x_LNW: activations of each layer, [N, W].
        y_MNV: those of another model on the same rows; None compares X with itself.
        components: principal components that are kept of each layer; no more than the width leaves it as it is.

    Returns:
        float64 [L, M], 0 to 1; NaN where a layer is constant.
    """
    own = [_principal(centred(x_NW), components) for x_NW in x_LNW]
    other = own if y_MNV is None else [_principal(centred(y_NV), components) for y_NV in y_MNV]
    value_LM = torch.full((len(own), len(other)), torch.nan, dtype=torch.float64)
    for row, x_Nc in enumerate(own):
        for column, y_Nc in enumerate(other):
            if y_MNV is None and column < row:
                value_LM[row, column] = value_LM[column, row]
            elif defined(x_Nc) and defined(y_Nc):
                value_LM[row, column] = min(float(torch.linalg.svdvals(x_Nc.T @ y_Nc).double().sum()), 1.0)
    return value_LM


def predictivity(
    x_LNW: Layers,
    y_MNV: Layers | None = None,
    *,
    context_N: Tensor | None = None,
    heldout: float = 1 / 3,
    seed: int = 0,
) -> Tensor:
    """R^2 of ridge regressions from each layer of X to each of Y, on held-out contexts.

    Both sides are standardised by the training rows, so every dimension of the target counts alike; R^2 is over all of them. The penalty is
    chosen for each pair by leave-one-out errors on the training rows, in closed form in the dual. Every error is an inner product
    <A'A, G> of the source's operator with the target's Gram matrix, so that the targets cost nothing by their width: one Cholesky
    factorisation a source and penalty, n^3, and n^2 a pair. With fewer training rows than dimensions even a layer does not predict itself
    perfectly (0.95 on SmolLM2 with 512 rows of 576 dimensions): compare pairs that have the same rows.

    Args:
        x_LNW: activations of each layer, [N, W].
        y_MNV: those of another model on the same rows; None predicts X from itself.
        context_N: int64 [N], the context of each row; contexts are never on both sides. None when each row has its own.
        heldout: share of the contexts to test on.
        seed: of the choice of them.

    Returns:
        float64 [L, M], row predicts column; at most 1, below 0 where the mean of the training rows would have done better; NaN where
        a layer is constant.

    Raises:
        InputError: fewer than 16 rows on a side of the split.
    """
    rows = x_LNW[0].shape[0]
    train_n, test_m = _split(torch.arange(rows) if context_N is None else context_N, heldout, seed)
    order_N = torch.cat([train_n, test_m])
    fit_n = torch.arange(len(train_n))
    source_L = _stacked_grams(x_LNW, order_N, fit_n)
    target_M = source_L if y_MNV is None else _stacked_grams(y_MNV, order_N, fit_n)
    value_LM = torch.full((len(source_L), len(target_M)), torch.nan, dtype=torch.float64)
    known_M = target_M.diagonal(dim1=1, dim2=2).sum(1) > 0
    for row, gram_NN in enumerate(source_L):
        if bool(gram_NN.any()):
            value_LM[row, known_M] = _scores_of_source(gram_NN, target_M, len(train_n))[known_M]
    return value_LM


def concept_overlap(directions_LCW: Tensor, other_MCW: Tensor | None = None) -> Tensor:
    """How much the subspaces that hold the concepts at two layers have in common.

    Mean squared cosine of the principal angles between the spans of the concepts' directions; C / W for unrelated ones.

    Args:
        directions_LCW: one direction a concept and layer, of any length; a layer with one that is not finite is undefined.
        other_MCW: those of another model of the same width.

    Returns:
        float64 [L, M], 0 to 1; NaN where a layer has no direction.

    Raises:
        InputError: the widths differ.
    """
    other = directions_LCW if other_MCW is None else other_MCW
    if directions_LCW.shape[2] != other.shape[2]:
        raise InputError(
            f"Directions of width {directions_LCW.shape[2]} and {other.shape[2]} have no angle between them."
        )
    own_bases, bases = ([_basis(d_CW) for d_CW in side] for side in (directions_LCW, other))
    value_LM = torch.full((len(own_bases), len(bases)), torch.nan, dtype=torch.float64)
    for row, q_Wr in enumerate(own_bases):
        for column, s_Ws in enumerate(bases):
            rank = min(q_Wr.shape[1], s_Ws.shape[1])
            if rank:
                value_LM[row, column] = min(float((q_Wr.T @ s_Ws).square().sum()) / rank, 1.0)
    return value_LM


def _principal(x_NW: Tensor, components: int) -> Tensor:
    """Scores on the leading components, of Frobenius norm 1: float32 [N, min(W, components)]; zeros stay zeros."""
    rows, width = x_NW.shape
    if not defined(x_NW):
        return x_NW
    if min(rows, width) > components:
        gram = x_NW @ x_NW.T if rows <= width else x_NW.T @ x_NW
        values, axes = (found[..., -components:].float() for found in torch.linalg.eigh(gram.double()))
        x_NW = axes * values.clamp_min(0).sqrt() if rows <= width else x_NW @ axes
    unit_NW: Tensor = x_NW / torch.linalg.matrix_norm(x_NW)
    return unit_NW


def _split(context_N: Tensor, heldout: float, seed: int) -> tuple[Tensor, Tensor]:
    """Row indices to train and to test on; whole contexts."""
    contexts = int(context_N.max()) + 1
    shuffled = np.random.default_rng(seed).permutation(contexts)
    tested = torch.zeros(contexts, dtype=torch.bool)
    tested[torch.from_numpy(shuffled[: max(1, round(heldout * contexts))])] = True
    test_N = tested[context_N]
    train_n, test_m = (~test_N).nonzero().flatten(), test_N.nonzero().flatten()
    if min(len(train_n), len(test_m)) < _LEAST_ROWS:
        raise InputError(
            f"Predicting one layer from another needs {_LEAST_ROWS} rows to train on and as many to test on; there are {len(train_n)} and"
            f" {len(test_m)}.",
            hint="Give more contexts.",
        )
    return train_n, test_m


def _stacked_grams(x_LNW: Layers, order_N: Tensor, fit_n: Tensor) -> Tensor:
    """float32 [L, N, N]: products of the standardised rows, training rows first."""
    gram_LNN = torch.empty(len(x_LNW), len(order_N), len(order_N))
    for gram_NN, x_NW in zip(gram_LNN, x_LNW, strict=True):
        z_NW = standardized(x_NW[order_N], fit_n)
        torch.mm(z_NW, z_NW.T, out=gram_NN)
    return gram_LNN


def _scores_of_source(gram_NN: Tensor, target_MNN: Tensor, train: int) -> Tensor:
    """R^2 of one source layer for all targets, float64 [M]."""
    rows, targets = gram_NN.shape[0], target_MNN.shape[0]
    mean_eigenvalue = float(gram_NN[:train, :train].diagonal().double().mean())
    best_M, chosen_M = torch.full((targets,), torch.inf, dtype=torch.float64), torch.zeros(targets, dtype=torch.int64)
    inverses = []
    flat_MP = target_MNN[:, :train, :train].reshape(targets, -1)
    for place, penalty in enumerate(PENALTIES):
        inverse_nn = _inverse(gram_NN[:train, :train], penalty * mean_eigenvalue)
        inverses.append(inverse_nn)
        # left-out residuals are P y / diag P, with P = (K + penalty)^-1 (Allen 1974)
        left_nn = inverse_nn / inverse_nn.diagonal()[:, None]
        error_M = (flat_MP @ (left_nn.T @ left_nn).flatten()).double()
        better_M = error_M < best_M
        best_M, chosen_M = torch.where(better_M, error_M, best_M), torch.where(better_M, place, chosen_M)
    total_M = target_MNN.diagonal(dim1=1, dim2=2)[:, train:].sum(1, dtype=torch.float64)
    error_M = torch.empty(targets, dtype=torch.float64)
    for place in sorted(set(chosen_M.tolist())):
        ours_M = chosen_M == place
        residual_mN = torch.cat([-gram_NN[train:, :train] @ inverses[place], torch.eye(rows - train)], dim=1)
        error_M[ours_M] = (target_MNN[ours_M].flatten(1) @ (residual_mN.T @ residual_mN).flatten()).double()
    return torch.where(total_M > 0, 1 - error_M / total_M.clamp_min(1e-300), torch.nan)


def _inverse(gram_nn: Tensor, penalty: float) -> Tensor:
    """(K + penalty)^-1 with the constant direction taken out, float32; factorised in float64, where the smallest penalties need it.

    The rows are centred, so K has nothing along that direction, and its inverse 1 / penalty: leave-one-out errors would be divided by
    that. The mean is fitted without a penalty instead.
    """
    rows = gram_nn.shape[0]
    level = float(gram_nn.diagonal().double().mean())
    regular_nn = gram_nn.double() + level
    regular_nn.diagonal().add_(penalty)
    inverse_nn: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(regular_nn))
    constant = 1 / (rows * (penalty + rows * level))
    return (inverse_nn - constant).float()


def _basis(d_CW: Tensor) -> Tensor:
    """Orthonormal columns that span the directions, float64 [W, rank]; none if one is not finite."""
    d_CW = d_CW.double()
    if not bool(d_CW.isfinite().all()):
        return torch.empty(d_CW.shape[1], 0, dtype=torch.float64)
    length_C1 = torch.linalg.vector_norm(d_CW, dim=1, keepdim=True)
    unit_CW = d_CW / length_C1.clamp_min(1e-300)
    _, size_r, axes_rW = torch.linalg.svd(unit_CW, full_matrices=False)
    basis_Wr: Tensor = axes_rW[size_r > 1e-6].T
    return basis_Wr
