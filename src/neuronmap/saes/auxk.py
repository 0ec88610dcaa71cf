"""AuxK: an auxiliary loss by which dead features learn to explain what the living ones leave over (arXiv 2406.04093, A.2).

Shapes: B rows, D = d_in, F = d_sae, M = dead features.

    e    = x - xhat                                            what is left, a constant here
    f_BM = relu of the aux_k largest pre-activations among the dead features of a row
    ehat = f_BM @ W_dec[dead]                                  b_dec is in xhat already
    loss = mean_b |e - ehat|^2 / mean_b |e - mean_b e|^2       1 when the dead explain nothing; 0/0 counts as 0

The gradient reaches W_dec and, through f, W_enc, b_enc and b_dec; only dead features' rows and columns get any. Two
choices where libraries differ. The ReLU is kept (OpenAI, dictionary_learning; SAELens drops it): a dead feature learns
what it could say at inference, where a negative activation does not exist. On sparse synthetic data with three quarters of
the features killed, dropping it revived all of them but took explained variance from 0.86 to 0.79 (TopK, no AuxK:
0.80). The loss is not scaled by M / aux_k: it touches the dead only, and Adam would undo the scale.

Cost: four products of the width of the dead, B D M each, sparse or dense as their activations are; none when none is dead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuronmap.saes.kernels.dense import gradient_of, keep_where_positive
from neuronmap.saes.kernels.protocol import Kernels
from neuronmap.saes.kernels.select import select_top_k
from neuronmap.saes.workspace import Workspace

__all__ = ["AuxProblem", "auxk_gradients", "auxk_loss"]


LEAST_VARIANCE = 1e-10
"""Of the residuals' mean square. Below it rows are equal but for rounding, and the loss is 0/0, which counts as 0."""


def auxk_loss(pre_BF: Tensor, residual_BD: Tensor, W_dec_FD: Tensor, dead_F: Tensor, aux_k: int) -> Tensor:
    """The loss above as a differentiable equation (0-d).

    Args:
        pre_BF: pre-activations.
        residual_BD: x - xhat; detached here.
        W_dec_FD: decoder.
        dead_F: bool, which features are dead.
        aux_k: features a row may use.
    """
    dead_M = torch.nonzero(dead_F).view(-1)
    e_BD = residual_BD.detach()
    pre_BM = pre_BF[:, dead_M]
    code = select_top_k(pre_BM.detach(), min(aux_k, len(dead_M)))
    f_BM = torch.zeros_like(pre_BM).index_put((code.row_N, code.feature_N), pre_BM[code.row_N, code.feature_N])
    miss = (e_BD - f_BM @ W_dec_FD[dead_M]).square().sum(dim=1).mean()
    variance = (e_BD - e_BD.mean(dim=0)).square().sum(dim=1).mean()
    varies = variance > LEAST_VARIANCE * e_BD.square().sum(dim=1).mean()
    return torch.where(varies, miss / torch.where(varies, variance, 1.0), 0.0)


@dataclass(frozen=True, slots=True)
class AuxProblem:
    """What the dead features are asked to explain.

    Attributes:
        pre_BM: their pre-activations; overwritten.
        dead_M: int64, which features they are; at least one, here or on a rank with other features.
        centred_BD: x - b_dec.
        error_BD: xhat - x (the residual's negative).
        aux_k: features a row may use.
    """

    pre_BM: Tensor
    dead_M: Tensor
    centred_BD: Tensor
    error_BD: Tensor
    aux_k: int


def auxk_gradients(
    problem: AuxProblem,
    coefficient: float,
    parameters: tuple[nn.Parameter, nn.Parameter, nn.Parameter],
    kernels: Kernels,
    workspace: Workspace,
) -> Tensor:
    """Add the gradients of ``coefficient * auxk_loss`` to ``.grad`` of W_enc, b_enc and W_dec.

    b_dec enters through the encoder only: its share is - W_enc @ (gradient of b_enc), which the caller takes of the whole
    b_enc gradient at once.

    Args:
        problem: the dead features and what is left over.
        coefficient: weight of the loss.
        parameters: W_enc [D, F], b_enc [F], W_dec [F, D], each with its ``.grad`` written.
        kernels: who does the sparse products, when the dead are many.
        workspace: scratch space.

    Returns:
        The loss before its coefficient, 0-d.
    """
    W_enc, b_enc, W_dec = parameters
    rows, d_in = problem.centred_BD.shape
    dead_M, dtype = problem.dead_M, problem.pre_BM.dtype
    shape = (len(dead_M), d_in)
    W_MD = torch.index_select(W_dec, 0, dead_M, out=workspace.get("auxk.W_dec", shape, dtype))
    # torch.var would take four times as long, and |error|^2 - |mean|^2 would not be 0 where it should.
    apart_BD = workspace.get("auxk.miss", (rows, d_in), dtype)
    torch.sub(problem.error_BD, workspace.ranks.mean_(problem.error_BD.mean(dim=0)), out=apart_BD)
    variance = torch.linalg.vector_norm(apart_BD, dim=1).square_().mean()
    square = torch.linalg.vector_norm(problem.error_BD, dim=1).square_().mean()
    variance, square = workspace.ranks.mean_(torch.stack((variance, square))).unbind()
    varies = variance > LEAST_VARIANCE * square
    weight = torch.where(varies, 1.0 / torch.where(varies, variance, 1.0), 0.0)
    g_W_enc_MD = workspace.get("auxk.g_W_enc", shape, dtype)
    g_W_dec_MD = workspace.get("auxk.g_W_dec", shape, dtype)
    g_b_M = workspace.get("auxk.g_b", (len(dead_M),), dtype)
    total = len(dead_M)  # on all ranks, so that they go the same way
    if workspace.features.count > 1:
        total = int(workspace.features.sum_(torch.tensor(total, device=W_dec.device)))
    products = _sparse_products if problem.aux_k < kernels.dense_above * total else _dense_products
    miss = products(problem, W_MD, (g_W_enc_MD.T, g_b_M, g_W_dec_MD), kernels, workspace)
    step = weight * (2.0 * coefficient / rows)
    for gradient, share in (
        (gradient_of(W_dec), g_W_dec_MD),
        (gradient_of(W_enc).T, g_W_enc_MD),
        (gradient_of(b_enc), g_b_M),
    ):
        gradient[dead_M] += share.mul_(step)  # index_add_ goes element by element on a CPU
    loss: Tensor = miss * weight
    return loss


_Gradients = tuple[Tensor, Tensor, Tensor]
"""Of W_enc [D, M], b_enc [M] and W_dec [M, D], still without the loss's weight."""


def _dense_products(
    problem: AuxProblem, W_MD: Tensor, out: _Gradients, kernels: Kernels, workspace: Workspace
) -> Tensor:
    """Write the gradients by matrix products; returns mean_b |e - ehat|^2."""
    f_BM = kernels.keep_top_k(problem.pre_BM, problem.aux_k)
    miss_BD = workspace.get("auxk.miss", tuple(problem.error_BD.shape), f_BM.dtype)
    if workspace.features.rank == 0:
        torch.addmm(problem.error_BD, f_BM, W_MD, out=miss_BD)
    else:  # the error counts once
        torch.mm(f_BM, W_MD, out=miss_BD)
    workspace.features.sum_(miss_BD)
    g_BM = workspace.get("auxk.gradient", tuple(f_BM.shape), f_BM.dtype)
    torch.mm(miss_BD, W_MD.T, out=g_BM)
    keep_where_positive(g_BM, f_BM)
    g_W_enc_DM, g_b_M, g_W_dec_MD = out
    torch.mm(f_BM.T, miss_BD, out=g_W_dec_MD)
    torch.mm(g_BM.T, problem.centred_BD, out=g_W_enc_DM.T)
    torch.sum(g_BM, dim=0, out=g_b_M)
    miss: Tensor = torch.linalg.vector_norm(miss_BD, dim=1).square_().mean()
    return miss


def _sparse_products(
    problem: AuxProblem, W_MD: Tensor, out: _Gradients, kernels: Kernels, workspace: Workspace
) -> Tensor:
    """The same over the active entries. What is to be explained is the residual, in the place of x - b_dec."""
    code = kernels.top_k_of(problem.pre_BM, problem.aux_k)
    residual_BD = workspace.get("auxk.miss", tuple(problem.error_BD.shape), code.value_N.dtype)
    torch.neg(problem.error_BD, out=residual_BD)
    widths = (len(problem.dead_M),)
    found = kernels.reconstruct(code, W_MD, residual_BD, widths, 1.0)
    kernels.weight_gradients(code, found.gradient_N, found, problem.centred_BD, widths, 1.0, out)
    return found.squared_L[0]
