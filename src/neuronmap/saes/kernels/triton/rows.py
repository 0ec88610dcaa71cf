"""Kernels that search the rows of a block of pre-activations.

Shapes: B rows, W features of a block, K = k, M chosen features, R rows and C columns of a tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from neuronmap.saes.kernels.triton.lists import append, at_least, pattern

__all__ = ["collect", "keep", "largest", "pack", "take_columns"]


@triton.jit
def collect(
    pre, bias, bound, value, feature, count, rows, width, first, bound_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """List, of each row, the entries of pre + bias above the row's bound, in order.

    Args:
        pre: [B, W] product.
        bias: [W].
        bound: [B], or [1] with a stride of 0.
        value, feature, count: lists [B, W], [B, W] int32 and their lengths [B] int32.
        first: feature of the block's first column.
    """
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here_R = row_R < rows
    base_R = row_R.to(tl.int64) * width
    bound_R = tl.load(bound + row_R * bound_stride, mask=here_R, other=float("inf"))
    found_R = tl.zeros([ROWS], tl.int32)
    for start in range(0, width, COLUMNS):
        column_C = start + tl.arange(0, COLUMNS)
        inside_RC = here_R[:, None] & (column_C < width)[None, :]
        at_RC = base_R[:, None] + column_C[None, :]
        value_RC = tl.load(pre + at_RC, mask=inside_RC, other=0.0).to(bias.dtype.element_ty)
        value_RC += tl.load(bias + column_C, mask=column_C < width, other=0.0)[None, :]
        kept_RC = (inside_RC & (value_RC > bound_R[:, None])).to(tl.int32)
        more_R = tl.sum(kept_RC, 1)
        if tl.max(more_R, 0) > 0:  # mostly there are none
            to_RC = (base_R + found_R)[:, None] + tl.cumsum(kept_RC, 1) - kept_RC
            tl.store(value + to_RC, value_RC, mask=kept_RC > 0)
            tl.store(feature + to_RC, tl.zeros_like(kept_RC) + (first + column_C)[None, :], mask=kept_RC > 0)
        found_R += more_R
    tl.store(count + row_R, found_R, mask=here_R)


@triton.jit
def largest(
    value, feature, count, out_value, out_feature, out_count, rows, width, k,
    BITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The k largest of each row's list, in order; of equal ones those of the lowest feature.

    Args:
        value, feature, count: lists [B, W].
        out_value, out_feature, out_count: lists [B, K].
    """
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here_R = row_R < rows
    base_R, out_R = row_R.to(tl.int64) * width, row_R.to(tl.int64) * k
    count_R = tl.load(count + row_R, mask=here_R, other=0)
    # The k-th largest is the largest pattern that k patterns reach: found from its highest bit down.
    cut_R = pattern(tl.zeros([ROWS], value.dtype.element_ty), BITS)
    above_R = tl.zeros([ROWS], tl.int32)
    if tl.max(count_R, 0) > k:
        step = tl.full((), 1, cut_R.dtype) << (BITS - 1)
        for _ in range(BITS):
            trial_R = cut_R | step
            cut_R = tl.where(at_least(value, base_R, count_R, trial_R, BITS, COLUMNS) >= k, trial_R, cut_R)
            step = step >> 1
        above_R = at_least(value, base_R, count_R, cut_R + 1, BITS, COLUMNS)
    out = (out_value, out_feature, out_feature)
    end_R, _ = append((value, feature), base_R, count_R, cut_R, k - above_R, out, out_R, row_R, False, BITS, COLUMNS)
    tl.store(out_count + row_R, (end_R - out_R).to(tl.int32), mask=here_R)


@triton.jit
def pack(
    value, feature, count, offset, out_value, out_feature, out_row, rows, k, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Lists [B, K] one behind the other, row b from ``offset[b]`` on."""
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here_R = row_R < rows
    base_R = row_R.to(tl.int64) * k
    count_R = tl.load(count + row_R, mask=here_R, other=0)
    offset_R = tl.load(offset + row_R, mask=here_R, other=0)
    for start in range(0, tl.max(count_R, 0), COLUMNS):
        place_RC = start + tl.arange(0, COLUMNS)[None, :]
        inside_RC = place_RC < count_R[:, None]
        from_RC, to_RC = base_R[:, None] + place_RC, offset_R[:, None] + place_RC
        tl.store(out_value + to_RC, tl.load(value + from_RC, mask=inside_RC, other=0.0), mask=inside_RC)
        tl.store(out_feature + to_RC, tl.load(feature + from_RC, mask=inside_RC, other=0), mask=inside_RC)
        tl.store(out_row + to_RC, tl.zeros_like(place_RC) + row_R[:, None], mask=inside_RC)


@triton.jit
def keep(pre, rows, width, k, BITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Zero a matrix [B, W] in place everywhere but at the k largest positive entries of each row, ties to the lowest column."""
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here_R = row_R < rows
    base_R = row_R.to(tl.int64) * width
    cut_R = pattern(tl.zeros([ROWS], pre.dtype.element_ty), BITS)
    step = tl.full((), 1, cut_R.dtype) << (BITS - 1)
    for _ in range(BITS):
        trial_R = cut_R | step
        reached_R = _positive_at_least(pre, base_R, here_R, trial_R, width, BITS, COLUMNS)
        cut_R = tl.where(reached_R >= k, trial_R, cut_R)
        step = step >> 1
    room_R = k - _positive_at_least(pre, base_R, here_R, cut_R + 1, width, BITS, COLUMNS)
    for start in range(0, width, COLUMNS):
        column_C = start + tl.arange(0, COLUMNS)
        inside_RC = here_R[:, None] & (column_C < width)[None, :]
        value_RC = tl.load(pre + base_R[:, None] + column_C[None, :], mask=inside_RC, other=0.0)
        bits_RC = tl.where(value_RC > 0.0, pattern(value_RC, BITS), 0)
        tied_RC = ((bits_RC == cut_R[:, None]) & (value_RC > 0.0)).to(tl.int32)
        first_RC = (tied_RC > 0) & (tl.cumsum(tied_RC, 1) <= room_R[:, None])
        kept_RC = (bits_RC > cut_R[:, None]) | first_RC
        tl.store(pre + base_R[:, None] + column_C[None, :], tl.where(kept_RC, value_RC, 0.0), mask=inside_RC)
        room_R -= tl.minimum(tl.sum(tied_RC, 1), room_R)


@triton.jit
def _positive_at_least(pre, base_R, here_R, trial_R, width, BITS: tl.constexpr, COLUMNS: tl.constexpr):
    found_R = tl.zeros_like(here_R.to(tl.int32))
    for start in range(0, width, COLUMNS):
        column_C = start + tl.arange(0, COLUMNS)
        inside_RC = here_R[:, None] & (column_C < width)[None, :]
        value_RC = tl.load(pre + base_R[:, None] + column_C[None, :], mask=inside_RC, other=0.0)
        reached_RC = (value_RC > 0.0) & (pattern(value_RC, BITS) >= trial_R[:, None])
        found_R += tl.sum(reached_RC.to(tl.int32), 1)
    return found_R


@triton.jit
def take_columns(
    pre, bias, chosen, out, rows, width, first, num_chosen, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Copy pre + bias of the chosen features that lie in a block.

    Args:
        pre, bias: [B, W] and [W].
        chosen: int64 [M], features; those outside the block are passed over.
        out: [B, M].
        first: feature of the block's first column.
    """
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column_C = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    from_C = tl.load(chosen + column_C, mask=column_C < num_chosen, other=-1) - first
    inside_C = (column_C < num_chosen) & (from_C >= 0) & (from_C < width)
    inside_RC = (row_R < rows)[:, None] & inside_C[None, :]
    value_RC = tl.load(pre + row_R.to(tl.int64)[:, None] * width + from_C[None, :], mask=inside_RC, other=0.0)
    value_RC = value_RC.to(bias.dtype.element_ty)
    value_RC += tl.load(bias + from_C, mask=inside_C, other=0.0)[None, :]
    tl.store(out + row_R.to(tl.int64)[:, None] * num_chosen + column_C[None, :], value_RC, mask=inside_RC)
