"""Kernels that find the largest entries of whole rows by way of groups of neighbouring features.

Shapes: B rows, W features of a row, P groups of a row, G features of a group, K = k; Q groups of a tile, R rows and C columns of a tile.

The k largest entries of a row lie in the k groups with the largest peaks, if of equal peaks those of the lowest features count as
larger: an entry of another group is beaten by the peak of each of these k. So a row is read once, for its peaks; what is searched
after that is a G-th of it, and then K G candidates.
"""

from __future__ import annotations

import triton
import triton.language as tl

from neuronmap.saes.kernels.triton.lists import pattern

__all__ = ["candidates", "peaks", "strongest"]


@triton.jit
def peaks(
    pre, bias, peak, rows, width, groups, GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """The largest positive entry of pre + bias in each group, 0 where there is none.

    Args:
        pre, bias: [B, W] and [W].
        peak: [B, P].
    """
    at_Q = tl.arange(0, ROWS * COLUMNS)
    row_Q = tl.program_id(0) * ROWS + at_Q // COLUMNS
    group_Q = tl.program_id(1) * COLUMNS + at_Q % COLUMNS
    here_Q = (row_Q < rows) & (group_Q < groups)
    column_QG = (group_Q * GROUP)[:, None] + tl.arange(0, GROUP)[None, :]
    inside_QG = here_Q[:, None] & (column_QG < width)
    value_QG = tl.load(pre + (row_Q.to(tl.int64) * width)[:, None] + column_QG, mask=inside_QG, other=0.0)
    value_QG = value_QG.to(bias.dtype.element_ty) + tl.load(bias + column_QG, mask=inside_QG, other=0.0)
    peak_Q = tl.max(tl.where(value_QG > 0.0, value_QG, 0.0), 1)  # NaN is not above 0
    tl.store(peak + row_Q.to(tl.int64) * groups + group_Q, peak_Q, mask=here_Q)


@triton.jit
def strongest(
    peak, chosen, count, bound, rows, groups, k, BITS: tl.constexpr, WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """The k groups of each row with the largest peaks, in order; of equal ones the first, and none without a positive entry.

    Args:
        peak: [B, P], none negative.
        chosen: int32 [B, K], receives the groups.
        count: int32 [B], receives how many they are.
        bound: [B], receives the k-th largest peak, 0 where there are fewer.
        WHOLE: whether a tile is as wide as a row, which then is read once.
    """
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here_R = row_R < rows
    base_R = row_R.to(tl.int64) * groups
    cut_R = pattern(tl.zeros([ROWS], peak.dtype.element_ty), BITS)
    step = tl.full((), 1, cut_R.dtype) << (BITS - 1)
    if WHOLE:
        bits_RC = _bits(peak, base_R, here_R, 0, groups, BITS, COLUMNS)
        for _ in range(BITS):
            trial_R = cut_R | step
            cut_R = tl.where(tl.sum((bits_RC >= trial_R[:, None]).to(tl.int32), 1) >= k, trial_R, cut_R)
            step = step >> 1
        room_R = k - tl.sum((bits_RC > cut_R[:, None]).to(tl.int32), 1)
    else:
        for _ in range(BITS):
            trial_R = cut_R | step
            cut_R = tl.where(_reaching(peak, base_R, here_R, trial_R, groups, BITS, COLUMNS) >= k, trial_R, cut_R)
            step = step >> 1
        room_R = k - _reaching(peak, base_R, here_R, cut_R + 1, groups, BITS, COLUMNS)
    end_R = tl.zeros_like(room_R)
    for start in range(0, groups, COLUMNS):
        group_C = start + tl.arange(0, COLUMNS)
        found_RC = _bits(peak, base_R, here_R, start, groups, BITS, COLUMNS)
        tied_RC = ((found_RC == cut_R[:, None]) & (found_RC > 0)).to(tl.int32)
        kept_RC = (found_RC > cut_R[:, None]) | ((tied_RC > 0) & (tl.cumsum(tied_RC, 1) <= room_R[:, None]))
        kept_RC = kept_RC.to(tl.int32)
        to_RC = (row_R * k + end_R)[:, None] + tl.cumsum(kept_RC, 1) - kept_RC
        tl.store(chosen + to_RC, tl.zeros_like(kept_RC) + group_C[None, :], mask=kept_RC > 0)
        end_R += tl.sum(kept_RC, 1)
        room_R -= tl.minimum(tl.sum(tied_RC, 1), room_R)
    tl.store(count + row_R, end_R, mask=here_R)
    tl.store(bound + row_R, cut_R.to(peak.dtype.element_ty, bitcast=True), mask=here_R)


@triton.jit
def _bits(peak, base_R, here_R, start, groups, BITS: tl.constexpr, COLUMNS: tl.constexpr):
    """Patterns of some peaks of each row, 0 behind the last."""
    group_C = start + tl.arange(0, COLUMNS)
    inside_RC = here_R[:, None] & (group_C < groups)[None, :]
    return pattern(tl.load(peak + base_R[:, None] + group_C[None, :], mask=inside_RC, other=0.0), BITS)


@triton.jit
def _reaching(peak, base_R, here_R, trial_R, groups, BITS: tl.constexpr, COLUMNS: tl.constexpr):
    """[R], how many peaks have a pattern of at least ``trial_R``, which is positive."""
    found_R = tl.zeros_like(here_R.to(tl.int32))
    for start in range(0, groups, COLUMNS):
        bits_RC = _bits(peak, base_R, here_R, start, groups, BITS, COLUMNS)
        found_R += tl.sum((bits_RC >= trial_R[:, None]).to(tl.int32), 1)
    return found_R


@triton.jit
def candidates(
    pre, bias, chosen, chosen_count, bound, value, feature, count, rows, width, k,
    GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """List the positive entries of the chosen groups that reach the row's bound, in order.

    Args:
        pre, bias: [B, W] and [W].
        chosen, chosen_count, bound: of :func:`strongest`.
        value, feature, count: lists [B, K G], [B, K G] int32 and their lengths [B] int32.
    """
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here_R = row_R < rows
    base_R, list_R = row_R.to(tl.int64) * width, row_R.to(tl.int64) * (k * GROUP)
    bound_R = tl.load(bound + row_R, mask=here_R, other=0.0)
    most_R = tl.load(chosen_count + row_R, mask=here_R, other=0) * GROUP
    found_R = tl.zeros([ROWS], tl.int32)
    for start in range(0, tl.max(most_R, 0), COLUMNS):
        place_C = start + tl.arange(0, COLUMNS)
        inside_RC = place_C[None, :] < most_R[:, None]
        group_RC = tl.load(chosen + (row_R * k)[:, None] + (place_C // GROUP)[None, :], mask=inside_RC, other=0)
        column_RC = group_RC * GROUP + (place_C % GROUP)[None, :]
        inside_RC = inside_RC & (column_RC < width)
        value_RC = tl.load(pre + base_R[:, None] + column_RC, mask=inside_RC, other=0.0).to(bias.dtype.element_ty)
        value_RC += tl.load(bias + column_RC, mask=inside_RC, other=0.0)
        kept_RC = (inside_RC & (value_RC >= bound_R[:, None]) & (value_RC > 0.0)).to(tl.int32)
        to_RC = (list_R + found_R)[:, None] + tl.cumsum(kept_RC, 1) - kept_RC
        tl.store(value + to_RC, value_RC, mask=kept_RC > 0)
        tl.store(feature + to_RC, column_RC, mask=kept_RC > 0)
        found_R += tl.sum(kept_RC, 1)
    tl.store(count + row_R, found_R, mask=here_R)
