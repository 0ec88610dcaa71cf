"""Kernels of the parameter step.

Shapes: F = d_sae, D = d_in; R rows of a tile, D columns of it (a power of two).
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["adam", "energy"]


@triton.jit
def energy(W_dec, gradient, out, features, d_in, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """|gradient - along the decoder's rows|^2, summed over each program's rows: float64 [programs]."""
    feature_R = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column_D = tl.arange(0, COLUMNS)
    inside_RD = (feature_R < features)[:, None] & (column_D < d_in)[None, :]
    at_RD = feature_R[:, None] * d_in + column_D[None, :]
    W_RD = tl.load(W_dec + at_RD, mask=inside_RD, other=0.0)
    gradient_RD = tl.load(gradient + at_RD, mask=inside_RD, other=0.0)
    along_R = tl.sum(gradient_RD * W_RD, 1)
    # Rounding must not take it below 0, and NaN must stay what it is.
    energy_R = tl.sum(gradient_RD * gradient_RD, 1) + along_R * along_R * (tl.sum(W_RD * W_RD, 1) - 2.0)
    energy_R = tl.where(energy_R < 0.0, 0.0, energy_R)
    tl.store(out + tl.program_id(0), tl.sum(energy_R.to(tl.float64), 0))


@triton.jit
def adam(
    parameter, gradient, first, second, rounded, scale, rates, rows, width, numel,
    BETA1: tl.constexpr, BETA2: tl.constexpr, EPSILON: tl.constexpr, UNIT_ROWS: tl.constexpr, ROUNDED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One Adam update of rows of a matrix: everything is read and written once.

    Args:
        parameter, gradient, first, second: contiguous, ``numel`` numbers.
        rounded: bfloat16, receives a copy of the parameter if ROUNDED.
        scale: 0-d, factor of the gradient.
        rates: float64 [2], rate / (1 - beta1^t) and (1 - beta2^t)^(-1/2).
        rows, width: the matrix; with UNIT_ROWS the gradient's part along each row is left out, and rows end with unit norm.
    """
    row_R = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column_D = tl.arange(0, COLUMNS)
    at_RD = row_R[:, None] * width + column_D[None, :]
    inside_RD = (row_R < rows)[:, None] & (column_D < width)[None, :] & (at_RD < numel)
    dtype = parameter.dtype.element_ty
    W_RD = tl.load(parameter + at_RD, mask=inside_RD, other=0.0)
    g_RD = tl.load(gradient + at_RD, mask=inside_RD, other=0.0)
    if UNIT_ROWS:
        g_RD -= tl.sum(g_RD * W_RD, 1)[:, None] * W_RD
    g_RD *= tl.load(scale).to(dtype)
    first_RD = tl.load(first + at_RD, mask=inside_RD, other=0.0)
    second_RD = tl.load(second + at_RD, mask=inside_RD, other=0.0)
    first_RD += (g_RD - first_RD) * (1.0 - BETA1)
    second_RD = second_RD * BETA2 + g_RD * g_RD * (1.0 - BETA2)
    tl.store(first + at_RD, first_RD, mask=inside_RD)
    tl.store(second + at_RD, second_RD, mask=inside_RD)
    rate, correction = tl.load(rates).to(dtype), tl.load(rates + 1).to(dtype)
    W_RD -= rate * first_RD / (tl.sqrt(second_RD) * correction + EPSILON)
    if UNIT_ROWS:
        norm_R = tl.sqrt(tl.sum(W_RD * W_RD, 1))
        W_RD = W_RD / tl.where(norm_R < 1e-12, 1e-12, norm_R)[:, None]
    tl.store(parameter + at_RD, W_RD, mask=inside_RD)
    if ROUNDED:
        tl.store(rounded + at_RD, W_RD.to(tl.float32).to(tl.bfloat16), mask=inside_RD)
