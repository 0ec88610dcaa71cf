"""Kernels that choose the largest entries of a whole batch, digit by digit.

Shapes: B rows, W features of a block, N entries kept so far, R rows and C columns of a tile, H = 2048 bins.

Two lists of each row are merged: the best of the blocks before, packed (row b from ``offset[b]`` on), and those of the newest block
[B, W]. ``state`` int64 [2] holds the cut as far as its digits are known, and how many entries that share them are wanted; each digit
has a state and a histogram of its own, so that no kernel writes what it reads.
"""

from __future__ import annotations

import triton
import triton.language as tl

from neuronmap.saes.kernels.triton.lists import append, at_least, pattern
from neuronmap.saes.kernels.triton.tiles import INTERPRETED

__all__ = ["BINS", "COPIES", "count", "digits", "narrow", "rank", "tally", "write"]

BINS = 2048
COPIES = 2 if INTERPRETED else 16
"""Of the histogram."""


def digits(bits: int) -> list[tuple[int, int]]:
    """Lowest bit and width of each digit of a pattern, from the highest down."""
    found = []
    while bits > 0:
        width = min(11 if bits % 10 else 10, bits)
        bits -= width
        found.append((bits, width))
    return found


@triton.jit
def tally(
    best_value, offset, value, count, state, histogram, rows, width, shift,
    DIGIT: tl.constexpr, BITS: tl.constexpr, COPIES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Count entries by one digit, among those that share all higher digits with the cut.

    Adds to ``histogram`` int32 [COPIES, H]: most entries share a few exponents, and with one copy would all wait for one address.
    """
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here_R = row_R < rows
    prefix = tl.load(state) >> (shift + DIGIT)
    start_R = tl.load(offset + row_R, mask=here_R, other=0)
    best_count_R = (tl.load(offset + row_R + 1, mask=here_R, other=0) - start_R).to(tl.int32)
    count_R = tl.load(count + row_R, mask=here_R, other=0)
    bins = histogram + (tl.program_id(0) % COPIES) * 2048
    _add_digits(bins, best_value, start_R, best_count_R, prefix, shift, DIGIT, BITS, COLUMNS)
    _add_digits(bins, value, row_R.to(tl.int64) * width, count_R, prefix, shift, DIGIT, BITS, COLUMNS)


@triton.jit
def _add_digits(
    bins, value, base_R, count_R, prefix, shift, DIGIT: tl.constexpr, BITS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    for start in range(0, tl.max(count_R, 0), COLUMNS):
        place_RC = start + tl.arange(0, COLUMNS)[None, :]
        inside_RC = place_RC < count_R[:, None]
        bits_RC = pattern(tl.load(value + base_R[:, None] + place_RC, mask=inside_RC, other=0.0), BITS).to(tl.int64)
        shares_RC = inside_RC & ((bits_RC >> (shift + DIGIT)) == prefix)
        digit_RC = ((bits_RC >> shift) & ((1 << DIGIT) - 1)).to(tl.int32)
        tl.atomic_add(bins + digit_RC, tl.full(digit_RC.shape, 1, tl.int32), mask=shares_RC, sem="relaxed")


@triton.jit
def narrow(state, histogram, next_state, bound, shift, BITS: tl.constexpr, COPIES: tl.constexpr):
    """Fix one digit of the cut: the highest that enough entries reach. One program.

    ``bound`` receives the number just below the cut as it stands, so that entries equal to the cut pass.
    """
    bin_H = tl.arange(0, 2048)
    bins_H = tl.zeros([2048], tl.int32)
    for copy in range(COPIES):
        bins_H += tl.load(histogram + copy * 2048 + bin_H)
    prefix, wanted = tl.load(state), tl.load(state + 1)
    reached_H = tl.sum(bins_H, 0) - tl.cumsum(bins_H, 0) + bins_H
    digit = tl.maximum(tl.sum((reached_H >= wanted).to(tl.int32), 0) - 1, 0)  # 0: fewer than wanted, all are kept
    above = tl.sum(tl.where(bin_H > digit, bins_H, 0), 0)
    prefix = prefix | (digit.to(tl.int64) << shift)
    tl.store(next_state, prefix)
    tl.store(next_state + 1, wanted - above)
    below = tl.maximum(prefix - 1, 0)
    if BITS == 31:
        tl.store(bound, below.to(tl.int32).to(tl.float32, bitcast=True))
    else:
        tl.store(bound, below.to(tl.float64, bitcast=True))


@triton.jit
def count(
    best_value, offset, value, listed, state, above, tied, rows, width,
    BITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Entries above the cut, and equal to it, of each row: int32 [B] each."""
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here_R = row_R < rows
    start_R, base_R = tl.load(offset + row_R, mask=here_R, other=0), row_R.to(tl.int64) * width
    best_count_R = (tl.load(offset + row_R + 1, mask=here_R, other=0) - start_R).to(tl.int32)
    count_R = tl.load(listed + row_R, mask=here_R, other=0)
    cut_R = pattern(tl.zeros([ROWS], value.dtype.element_ty), BITS)
    cut_R += tl.load(state).to(cut_R.dtype)
    above_R = at_least(best_value, start_R, best_count_R, cut_R + 1, BITS, COLUMNS)
    above_R += at_least(value, base_R, count_R, cut_R + 1, BITS, COLUMNS)
    reached_R = at_least(best_value, start_R, best_count_R, cut_R, BITS, COLUMNS)
    reached_R += at_least(value, base_R, count_R, cut_R, BITS, COLUMNS)
    tl.store(above + row_R, above_R, mask=here_R)
    tl.store(tied + row_R, reached_R - above_R, mask=here_R)


@triton.jit
def rank(above, tied, state, room, offset, rows, COLUMNS: tl.constexpr):
    """Where each row's kept entries will start, and how many of its tied ones are kept: the first of the batch. One program.

    Args:
        above, tied: int32 [B], entries above the cut and equal to it.
        room: int32 [B], tied entries to keep.
        offset: int64 [B + 1].
    """
    wanted = tl.load(state + 1)
    ties = wanted * 0
    kept = wanted * 0
    for start in range(0, rows, COLUMNS):
        row_C = start + tl.arange(0, COLUMNS)
        here_C = row_C < rows
        above_C = tl.load(above + row_C, mask=here_C, other=0).to(tl.int64)
        tied_C = tl.load(tied + row_C, mask=here_C, other=0).to(tl.int64)
        before_C = ties + tl.cumsum(tied_C, 0) - tied_C
        room_C = tl.minimum(tl.maximum(wanted - before_C, 0), tied_C)
        kept_C = above_C + room_C
        tl.store(room + row_C, room_C.to(tl.int32), mask=here_C)
        tl.store(offset + row_C, kept + tl.cumsum(kept_C, 0) - kept_C, mask=here_C)
        ties += tl.sum(tied_C, 0)
        kept += tl.sum(kept_C, 0)
    tl.store(offset + rows, kept)


@triton.jit
def write(
    best_value, best_feature, offset, value, feature, listed, state, room, out_offset, out_value, out_feature, out_row,
    rows, width, BITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The kept entries of both lists, packed."""
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here_R = row_R < rows
    start_R, base_R = tl.load(offset + row_R, mask=here_R, other=0), row_R.to(tl.int64) * width
    best_count_R = (tl.load(offset + row_R + 1, mask=here_R, other=0) - start_R).to(tl.int32)
    count_R = tl.load(listed + row_R, mask=here_R, other=0)
    cut_R = pattern(tl.zeros([ROWS], value.dtype.element_ty), BITS)
    cut_R += tl.load(state).to(cut_R.dtype)
    room_R, end_R = tl.load(room + row_R, mask=here_R, other=0), tl.load(out_offset + row_R, mask=here_R, other=0)
    out = (out_value, out_feature, out_row)
    end_R, room_R = append(
        (best_value, best_feature), start_R, best_count_R, cut_R, room_R, out, end_R, row_R, True, BITS, COLUMNS
    )
    append((value, feature), base_R, count_R, cut_R, room_R, out, end_R, row_R, True, BITS, COLUMNS)
