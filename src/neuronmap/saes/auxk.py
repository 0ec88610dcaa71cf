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

import torch
from torch import Tensor, nn

from neuronmap.saes.kernels.dense import gradient_of
from neuronmap.saes.kernels.select import select_top_k
from neuronmap.saes.kernels.sparse import CodeProducts, DenseProducts, products_of
from neuronmap.saes.workspace import Workspace

__all__ = ["auxk_gradients", "auxk_loss"]


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
    return torch.where(variance > 0, miss / torch.where(variance > 0, variance, 1.0), 0.0)


def auxk_gradients(
    pre_BF: Tensor,
    centred_BD: Tensor,
    error_BD: Tensor,
    dead_F: Tensor,
    aux_k: int,
    coefficient: float,
    parameters: tuple[nn.Parameter, nn.Parameter, nn.Parameter],
    workspace: Workspace,
) -> Tensor:
    """Add the gradients of ``coefficient * auxk_loss`` to ``.grad`` of W_enc, b_enc and W_dec.

    b_dec enters through the encoder only: its share is - W_enc @ (gradient of b_enc), which the caller takes of the whole
    b_enc gradient at once.

    Args:
        pre_BF: pre-activations.
        centred_BD: x - b_dec.
        error_BD: xhat - x (the residual's negative).
        dead_F: bool, at least one True.
        aux_k: features a row may use.
        coefficient: weight of the loss.
        parameters: W_enc [D, F], b_enc [F], W_dec [F, D], each with its ``.grad`` written.
        workspace: scratch space.

    Returns:
        The loss before its coefficient, 0-d.
    """
    W_enc, b_enc, W_dec = parameters
    rows, d_in = centred_BD.shape
    dead_M = torch.nonzero(dead_F).view(-1)
    count = len(dead_M)
    dtype = pre_BF.dtype

    pre_BM = torch.index_select(pre_BF, 1, dead_M, out=workspace.get("auxk.pre", (rows, count), dtype))
    W_MD = torch.index_select(W_dec, 0, dead_M, out=workspace.get("auxk.W_dec", (count, d_in), dtype))
    products: CodeProducts
    if count <= aux_k:
        products = DenseProducts(pre_BM.relu_(), workspace, "auxk")
    else:
        products = products_of(select_top_k(pre_BM, aux_k), workspace, "auxk")
    ehat_BD = products.decode(W_MD, 0, count)
    miss_BD = torch.add(ehat_BD, error_BD, out=workspace.get("auxk.miss", (rows, d_in), dtype))
    miss = torch.linalg.vector_norm(miss_BD, dim=1).square_().mean()
    variance = torch.var(error_BD, dim=0, correction=0).sum()
    weight = torch.where(variance > 0, 1.0 / torch.where(variance > 0, variance, 1.0), 0.0)
    miss_BD.mul_(weight * (2.0 * coefficient / rows))

    products.pull_back(miss_BD, W_MD, 0, count, 1.0)
    sums_MD = workspace.get("auxk.sums", (count, d_in), dtype)
    products.code_sums(1.0)(miss_BD, sums_MD, 0, count)
    gradient_of(W_dec).index_add_(0, dead_M, sums_MD)
    products.gradient_sums()(centred_BD, sums_MD, 0, count)
    gradient_of(W_enc).index_add_(1, dead_M, sums_MD.T)
    gradient_of(b_enc).index_add_(0, dead_M, products.gradient_totals())
    loss: Tensor = miss * weight
    return loss
