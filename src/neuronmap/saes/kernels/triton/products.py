"""Kernels of the sparse products: decode with its errors and gradients, and both weight gradients.

Shapes: B rows, D = d_in, F = d_sae, N entries, L levels, T tasks, P parts, S slices of the width; R entries and C columns of a tile.

All sums are taken in the precision of the parameters, some entries at a time, in one order. What is gathered may be in bfloat16.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["add_parts", "decode", "feature_sums"]


@triton.jit
def decode(
    edge, feature, value, W_dec, centred, pulled, squared, gradient, rows, entries, d_in, level_stride,
    LEVELS: tl.constexpr, DETACHED: tl.constexpr, ROWS: tl.constexpr, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One slice of the errors of every level of some rows, and what the slice adds to the gradient at each of their entries.

    Decoder rows are gathered twice, the second time from the cache as a rule. On the way back the decode is undone level by level, so
    that no error has to be stored and read again.

    Args:
        edge: int64 [B L + 1], where the entries of each row's levels start.
        feature, value: [N].
        W_dec, centred: [F, D], perhaps in bfloat16, and [B, D].
        pulled: [L, B, D], receives for each level the sum of its error and of those after it; if DETACHED, of its own and the last.
        squared: [S, B, L], receives |error|^2 of the slice.
        gradient: [S, N], receives <pulled, W_dec[feature]> of the slice.
    """
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column_C = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    here_R, inside_C = row_R < rows, column_C < d_in
    inside_RC = here_R[:, None] & inside_C[None, :]
    at_RC = row_R.to(tl.int64)[:, None] * d_in + column_C[None, :]
    gradient += tl.program_id(1).to(tl.int64) * entries
    squared_R = (tl.program_id(1) * rows + row_R) * LEVELS
    error_RC = -tl.load(centred + at_RC, mask=inside_RC, other=0.0)
    dtype = error_RC.dtype
    for level in range(LEVELS):
        start_R, count_R = _bag(edge, row_R * LEVELS + level, here_R)
        for first in range(0, tl.max(count_R, 0), ENTRIES):
            value_RE, W_REC = _entries(
                start_R, first, count_R, feature, value, W_dec, d_in, column_C, inside_C, ENTRIES
            )
            error_RC += tl.sum(value_RE[:, :, None] * W_REC.to(dtype), 1)
        tl.store(squared + squared_R + level, tl.sum(error_RC * error_RC, 1), mask=here_R)
    pulled_RC = error_RC
    last_RC = error_RC
    tl.store(pulled + (LEVELS - 1) * level_stride + at_RC, pulled_RC, mask=inside_RC)
    for back in range(LEVELS):
        level = LEVELS - 1 - back
        start_R, count_R = _bag(edge, row_R * LEVELS + level, here_R)
        for first in range(0, tl.max(count_R, 0), ENTRIES):
            value_RE, W_REC = _entries(
                start_R, first, count_R, feature, value, W_dec, d_in, column_C, inside_C, ENTRIES
            )
            place_E = first + tl.arange(0, ENTRIES)
            along_RE = tl.sum(pulled_RC[:, None, :] * W_REC.to(dtype), 2)
            tl.store(gradient + start_R[:, None] + place_E[None, :], along_RE, mask=place_E[None, :] < count_R[:, None])
            if LEVELS > 1:
                error_RC -= tl.sum(value_RE[:, :, None] * W_REC.to(dtype), 1)
        if level > 0:
            pulled_RC = (last_RC if DETACHED else pulled_RC) + error_RC
            tl.store(pulled + (level - 1) * level_stride + at_RC, pulled_RC, mask=inside_RC)


@triton.jit
def _bag(edge, at_R, here_R):
    """Where some lists start, and their lengths."""
    start_R = tl.load(edge + at_R, mask=here_R, other=0)
    return start_R, (tl.load(edge + at_R + 1, mask=here_R, other=0) - start_R).to(tl.int32)


@triton.jit
def _entries(start_R, first, count_R, feature, value, W_dec, d_in, column_C, inside_C, ENTRIES: tl.constexpr):
    """Values of some entries of each row, 0 behind its last, and a slice of their decoder rows."""
    place_E = first + tl.arange(0, ENTRIES)
    here_RE = place_E[None, :] < count_R[:, None]
    at_RE = start_R[:, None] + place_E[None, :]
    feature_RE = tl.load(feature + at_RE, mask=here_RE, other=0).to(tl.int64)
    value_RE = tl.load(value + at_RE, mask=here_RE, other=0.0)
    from_REC = feature_RE[:, :, None] * d_in + column_C[None, None, :]
    return value_RE, tl.load(W_dec + from_REC, mask=here_RE[:, :, None] & inside_C[None, None, :], other=0.0)


@triton.jit
def feature_sums(
    feature_of, first, offset, row, value, gradient, pulled, centred, widths,
    W_enc, b_enc, W_dec, part_enc, part_b, part_dec, tasks, features, d_in, level_stride,
    LEVELS: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sum, for both weight gradients at once, one slice of the entries of one part of a feature.

    Part 0 goes to its feature's place; the p-th part of feature f, which is task first[f] + p, to slot first[f] + p - f - 1.

    Args:
        feature_of: int64 [T], feature of each task; F for those that are left over.
        first: int64 [F + 1], first task of each feature.
        offset: int64 [F + 1], where each feature's entries start.
        row, value, gradient: [N] by feature: row, scaled value and gradient of each entry.
        pulled, centred: [L, B, D] and [B, D], perhaps in bfloat16.
        widths: int64 [L].
        W_enc, b_enc, W_dec: [F, D], [F] and [F, D], receive the first parts.
        part_enc, part_b, part_dec: [P, D], [P] and [P, D], receive the others.
    """
    task_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column_C = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside_C = column_C < d_in
    feature_R = tl.load(feature_of + task_R, mask=task_R < tasks, other=features)
    here_R = feature_R < features
    part_R = task_R - tl.load(first + feature_R, mask=here_R, other=0)
    start_R = tl.load(offset + feature_R, mask=here_R, other=0) + part_R * PART
    stop_R = tl.minimum(start_R + PART, tl.load(offset + feature_R + 1, mask=here_R, other=0))
    count_R = tl.where(here_R, stop_R - start_R, 0).to(tl.int32)
    level_R = tl.zeros([ROWS], tl.int64)
    for level in range(LEVELS):
        level_R += (feature_R >= tl.load(widths + level)).to(tl.int64)
    dtype = W_dec.dtype.element_ty
    enc_RC = tl.zeros([ROWS, COLUMNS], dtype)
    dec_RC = tl.zeros([ROWS, COLUMNS], dtype)
    b_RE = tl.zeros([ROWS, ENTRIES], dtype)
    for begin in range(0, tl.max(count_R, 0), ENTRIES):
        place_E = begin + tl.arange(0, ENTRIES)
        here_RE = place_E[None, :] < count_R[:, None]
        at_RE = start_R[:, None] + place_E[None, :]
        inside_REC = here_RE[:, :, None] & inside_C[None, None, :]
        from_RE = tl.load(row + at_RE, mask=here_RE, other=0).to(tl.int64) * d_in
        from_REC = from_RE[:, :, None] + column_C[None, None, :]
        value_RE = tl.load(value + at_RE, mask=here_RE, other=0.0)
        gradient_RE = tl.load(gradient + at_RE, mask=here_RE, other=0.0)
        pulled_REC = tl.load(pulled + (level_R * level_stride)[:, None, None] + from_REC, mask=inside_REC, other=0.0)
        centred_REC = tl.load(centred + from_REC, mask=inside_REC, other=0.0)
        dec_RC += tl.sum(value_RE[:, :, None] * pulled_REC.to(dtype), 1)
        enc_RC += tl.sum(gradient_RE[:, :, None] * centred_REC.to(dtype), 1)
        b_RE += gradient_RE
    b_R = tl.sum(b_RE, 1)
    whole_R, cut_R = here_R & (part_R == 0), here_R & (part_R > 0)
    to_RC = feature_R[:, None] * d_in + column_C[None, :]
    whole_RC = whole_R[:, None] & inside_C[None, :]
    tl.store(W_dec + to_RC, dec_RC, mask=whole_RC)
    tl.store(W_enc + to_RC, enc_RC, mask=whole_RC)
    slot_R = task_R - feature_R - 1
    to_RC = slot_R[:, None] * d_in + column_C[None, :]
    cut_RC = cut_R[:, None] & inside_C[None, :]
    tl.store(part_dec + to_RC, dec_RC, mask=cut_RC)
    tl.store(part_enc + to_RC, enc_RC, mask=cut_RC)
    if tl.program_id(1) == 0:
        tl.store(b_enc + feature_R, b_R, mask=whole_R)
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
