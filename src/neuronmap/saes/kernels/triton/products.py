"""Kernels of the sparse products: decode with its errors and gradients, and both weight gradients.

Shapes: B rows, D = d_in, F = d_sae, N entries, L levels, T tasks, P parts; R rows of a tile, D columns of it (a power of two).

All sums are taken in the precision of the parameters, entry after entry, in the order of the entries.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["add_parts", "decode", "feature_sums"]


@triton.jit
def decode(
    edge, feature, value, W_dec, centred, pulled, squared, gradient, rows, d_in, level_stride,
    LEVELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Errors of every level and the gradient at each entry of a row, while the row's error is in registers.

    Decoder rows are read twice, the second time from the cache as a rule. On the way back the decode is undone level by level, so
    that no error has to be stored and read again.

    Args:
        edge: int64 [B L + 1], where the entries of each row's levels start.
        feature, value: [N].
        W_dec, centred: [F, D] and [B, D].
        pulled: [L, B, D], receives for each level the sum of its error and of those after it.
        squared: [B, L], receives |error|^2.
        gradient: [N], receives <pulled, W_dec[feature]>.
    """
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column_D = tl.arange(0, COLUMNS)
    here_R = row_R < rows
    inside_RD = here_R[:, None] & (column_D < d_in)[None, :]
    at_RD = row_R.to(tl.int64)[:, None] * d_in + column_D[None, :]
    error_RD = -tl.load(centred + at_RD, mask=inside_RD, other=0.0)
    for level in range(LEVELS):
        start_R = tl.load(edge + row_R * LEVELS + level, mask=here_R, other=0)
        stop_R = tl.load(edge + row_R * LEVELS + level + 1, mask=here_R, other=0)
        for place in range(tl.max(stop_R - start_R, 0)):
            at_R = start_R + place
            value_R, W_RD = _entry(at_R, at_R < stop_R, feature, value, W_dec, d_in, column_D)
            error_RD += value_R[:, None] * W_RD
        tl.store(squared + row_R * LEVELS + level, tl.sum(error_RD * error_RD, 1), mask=here_R)
    pulled_RD = error_RD
    tl.store(pulled + (LEVELS - 1) * level_stride + at_RD, pulled_RD, mask=inside_RD)
    for back in range(LEVELS):
        level = LEVELS - 1 - back
        start_R = tl.load(edge + row_R * LEVELS + level, mask=here_R, other=0)
        stop_R = tl.load(edge + row_R * LEVELS + level + 1, mask=here_R, other=0)
        for place in range(tl.max(stop_R - start_R, 0)):
            at_R = start_R + place
            value_R, W_RD = _entry(at_R, at_R < stop_R, feature, value, W_dec, d_in, column_D)
            tl.store(gradient + at_R, tl.sum(pulled_RD * W_RD, 1), mask=at_R < stop_R)
            if LEVELS > 1:
                error_RD -= value_R[:, None] * W_RD
        if level > 0:
            pulled_RD += error_RD
            tl.store(pulled + (level - 1) * level_stride + at_RD, pulled_RD, mask=inside_RD)


@triton.jit
def _entry(at_R, active_R, feature, value, W_dec, d_in, column_D):
    """Value of one entry of each row, and its decoder row."""
    feature_R = tl.load(feature + at_R, mask=active_R, other=0).to(tl.int64)
    value_R = tl.load(value + at_R, mask=active_R, other=0.0)
    inside_RD = active_R[:, None] & (column_D < d_in)[None, :]
    return value_R, tl.load(W_dec + feature_R[:, None] * d_in + column_D[None, :], mask=inside_RD, other=0.0)


@triton.jit
def feature_sums(
    feature_of, first, offset, row, value, gradient, pulled, centred, widths,
    W_enc, b_enc, W_dec, part_enc, part_b, part_dec, tasks, features, d_in, level_stride,
    LEVELS: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sum, for both weight gradients at once, the entries of one part of a feature.

    Part 0 goes to its feature's place; the p-th part of feature f, which is task first[f] + p, to slot first[f] + p - f - 1.

    Args:
        feature_of: int64 [T], feature of each task; F for those that are left over.
        first: int64 [F + 1], first task of each feature.
        offset: int64 [F + 1], where each feature's entries start.
        row, value, gradient: [N] by feature: row, scaled value and gradient of each entry.
        pulled, centred: [L, B, D] and [B, D].
        widths: int64 [L].
        W_enc, b_enc, W_dec: [F, D], [F] and [F, D], receive the first parts.
        part_enc, part_b, part_dec: [P, D], [P] and [P, D], receive the others.
    """
    task_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    feature_R = tl.load(feature_of + task_R, mask=task_R < tasks, other=features)
    here_R = feature_R < features
    part_R = task_R - tl.load(first + feature_R, mask=here_R, other=0)
    start_R = tl.load(offset + feature_R, mask=here_R, other=0) + part_R * PART
    stop_R = tl.minimum(start_R + PART, tl.load(offset + feature_R + 1, mask=here_R, other=0))
    stop_R = tl.where(here_R, stop_R, start_R)
    level_R = tl.zeros([ROWS], tl.int64)
    for level in range(LEVELS):
        level_R += (feature_R >= tl.load(widths + level)).to(tl.int64)
    column_D = tl.arange(0, COLUMNS)
    enc_RD = tl.zeros([ROWS, COLUMNS], W_dec.dtype.element_ty)
    dec_RD = tl.zeros([ROWS, COLUMNS], W_dec.dtype.element_ty)
    b_R = tl.zeros([ROWS], W_dec.dtype.element_ty)
    for place in range(tl.max(stop_R - start_R, 0)):
        at_R = start_R + place
        active_R = at_R < stop_R
        inside_RD = active_R[:, None] & (column_D < d_in)[None, :]
        from_RD = tl.load(row + at_R, mask=active_R, other=0).to(tl.int64)[:, None] * d_in + column_D[None, :]
        value_R = tl.load(value + at_R, mask=active_R, other=0.0)
        gradient_R = tl.load(gradient + at_R, mask=active_R, other=0.0)
        pulled_RD = tl.load(pulled + level_R[:, None] * level_stride + from_RD, mask=inside_RD, other=0.0)
        dec_RD += value_R[:, None] * pulled_RD
        enc_RD += gradient_R[:, None] * tl.load(centred + from_RD, mask=inside_RD, other=0.0)
        b_R += gradient_R
    whole_R, cut_R = here_R & (part_R == 0), here_R & (part_R > 0)
    inside_D = (column_D < d_in)[None, :]
    to_RD = feature_R[:, None] * d_in + column_D[None, :]
    tl.store(W_dec + to_RD, dec_RD, mask=whole_R[:, None] & inside_D)
    tl.store(W_enc + to_RD, enc_RD, mask=whole_R[:, None] & inside_D)
    tl.store(b_enc + feature_R, b_R, mask=whole_R)
    slot_R = task_R - feature_R - 1
    to_RD = slot_R[:, None] * d_in + column_D[None, :]
    tl.store(part_dec + to_RD, dec_RD, mask=cut_R[:, None] & inside_D)
    tl.store(part_enc + to_RD, enc_RD, mask=cut_R[:, None] & inside_D)
    tl.store(part_b + slot_R, b_R, mask=cut_R)


@triton.jit
def add_parts(
    first, W_enc, b_enc, W_dec, part_enc, part_b, part_dec, features, d_in, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Add the further parts of long features to their first, in order; see :func:`feature_sums`."""
    feature_R = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    here_R = feature_R < features
    first_R = tl.load(first + feature_R, mask=here_R, other=0)
    more_R = tl.where(here_R, tl.load(first + feature_R + 1, mask=here_R, other=0) - first_R - 1, 0)
    most = tl.max(more_R, 0)
    if most > 0:
        column_D = tl.arange(0, COLUMNS)
        inside_RD = (more_R > 0)[:, None] & (column_D < d_in)[None, :]
        to_RD = feature_R[:, None] * d_in + column_D[None, :]
        dec_RD = tl.load(W_dec + to_RD, mask=inside_RD, other=0.0)
        enc_RD = tl.load(W_enc + to_RD, mask=inside_RD, other=0.0)
        b_R = tl.load(b_enc + feature_R, mask=more_R > 0, other=0.0)
        for part in range(most):
            active_R = part < more_R
            slot_R = first_R - feature_R + part
            from_RD = slot_R[:, None] * d_in + column_D[None, :]
            taken_RD = active_R[:, None] & inside_RD
            dec_RD += tl.load(part_dec + from_RD, mask=taken_RD, other=0.0)
            enc_RD += tl.load(part_enc + from_RD, mask=taken_RD, other=0.0)
            b_R += tl.load(part_b + slot_R, mask=active_R, other=0.0)
        tl.store(W_dec + to_RD, dec_RD, mask=inside_RD)
        tl.store(W_enc + to_RD, enc_RD, mask=inside_RD)
        tl.store(b_enc + feature_R, b_R, mask=more_R > 0)
