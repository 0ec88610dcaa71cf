"""Passes shared by the architectures whose features are dense while training: relu, gated and jumprelu.

Shapes: B rows of a batch, D = d_in, F = d_sae. ``c_BD`` is x - b_dec, ``error_BD`` is xhat - x.

A step costs five B x D x F products (encode, decode, gradient of f, of W_dec, of W_enc) where autograd on the
same equations does six or more: b_dec enters the encoder, so autograd forms the whole gradient of x - b_dec only to
sum it over rows. Summing first turns that product into a matrix-vector one. Everything elementwise runs in place.

Functions here write into buffers and gradients; callers run them under ``torch.no_grad``.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from neuronmap.saes.ranks import ALONE, Ranks

__all__ = [
    "add_norm_gradient",
    "blocks_of",
    "count_active",
    "decode_error",
    "decoder_gradients",
    "encoder_gradients",
    "gradient_of",
    "keep_where_positive",
    "subtract_encoder_share",
]


BLOCK_BYTES = 2**24
"""Of a block of features [B, W]: it stays in the cache between the products that make and use it, and is wide enough for them."""


def blocks_of(num_features: int, rows: int, dtype: torch.dtype) -> list[tuple[int, int]]:
    """Start and stop of each block of features; the first is the widest."""
    width = max(256, BLOCK_BYTES // (dtype.itemsize * max(rows, 1)) // 64 * 64)
    edges = [*range(0, num_features, width), num_features]
    return list(pairwise(edges))


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """The parameter's ``.grad``, allocated on first use and kept; content undefined until written."""
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter)
    return parameter.grad


def count_active(mask_BF: Tensor) -> Tensor:
    """Rows in which each feature is active, int64 [F], from a mask of zeros and ones kept as floats.

    A float sum is exact below 2^24 rows in float32; summing a bool mask would first widen all of it to int64.
    """
    return mask_BF.sum(dim=0).to(torch.int64)


def keep_where_positive(values_BF: Tensor, gate_BF: Tensor) -> Tensor:
    """Zero ``values_BF`` in place wherever ``gate_BF`` is not above zero, in one pass and without a mask."""
    torch.ops.aten.threshold_backward.grad_input(values_BF, gate_BF, 0.0, grad_input=values_BF)
    return values_BF


def decode_error(
    f_BF: Tensor, x_BD: Tensor, W_dec_FD: Tensor, b_dec_D: Tensor, error_BD: Tensor, features: Ranks = ALONE
) -> Tensor:
    """Write xhat - x into ``error_BD``; with the features on other ranks.

    Returns:
        0-d, mean over rows of the squared error summed over D. Summed row by row, which in float32 is more
        accurate than one dot product over all of B x D.
    """
    if features.rank == 0:
        torch.addmm(b_dec_D, f_BF, W_dec_FD, out=error_BD)
        error_BD.sub_(x_BD)
    else:  # b_dec and x count once
        torch.mm(f_BF, W_dec_FD, out=error_BD)
    features.sum_(error_BD)
    norm_B: Tensor = torch.linalg.vector_norm(error_BD, dim=1)
    return norm_B.square_().mean()


def decoder_gradients(
    f_BF: Tensor, g_xhat_BD: Tensor, W_dec: nn.Parameter, b_dec: nn.Parameter, g_f_BF: Tensor
) -> None:
    """Gradients of xhat = f @ W_dec + b_dec: writes ``W_dec.grad``, ``b_dec.grad`` and ``g_f_BF``.

    ``b_dec.grad`` is the decoder's share only; :func:`encoder_gradients` adds the encoder's.
    """
    torch.mm(f_BF.T, g_xhat_BD, out=gradient_of(W_dec))
    torch.sum(g_xhat_BD, dim=0, out=gradient_of(b_dec))
    torch.mm(g_xhat_BD, W_dec.T, out=g_f_BF)


def add_norm_gradient(W_dec: nn.Parameter, norm_F: Tensor, g_norm_F: Tensor) -> None:
    """Add to ``W_dec.grad`` the gradient through the norms of its rows, which is 0 for a row of norm 0."""
    tiny = torch.finfo(norm_F.dtype).tiny
    gradient_of(W_dec).addcmul_((g_norm_F / norm_F.clamp_min(tiny)).unsqueeze(1), W_dec)


def subtract_encoder_share(g_b_dec_D: Tensor, W_enc_DF: Tensor, g_pre_sum_F: Tensor, features: Ranks) -> None:
    """Take from the gradient of b_dec what reaches it through the encoder: W_enc @ (gradient of the bias), over all features."""
    if features.count == 1:
        g_b_dec_D.addmv_(W_enc_DF, g_pre_sum_F, alpha=-1.0)
    else:
        g_b_dec_D.sub_(features.sum_(torch.mv(W_enc_DF, g_pre_sum_F)))


def encoder_gradients(
    c_BD: Tensor,
    g_pre_BF: Tensor,
    g_pre_sum_F: Tensor,
    W_enc: nn.Parameter,
    b_dec: nn.Parameter,
    features: Ranks = ALONE,
) -> None:
    """Gradients of pre = c @ W_enc with c = x - b_dec: writes ``W_enc.grad``, adds the encoder's share to ``b_dec.grad``.

    Args:
        c_BD: centred input.
        g_pre_BF: gradient of the product.
        g_pre_sum_F: its sum over rows.
        W_enc: [D, F].
        b_dec: [D], whose gradient has been written by :func:`decoder_gradients`.
        features: the ranks that share the features.
    """
    torch.mm(c_BD.T, g_pre_BF, out=gradient_of(W_enc))
    subtract_encoder_share(gradient_of(b_dec), W_enc, g_pre_sum_F, features)
