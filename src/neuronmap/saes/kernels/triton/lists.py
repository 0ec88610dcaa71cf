"""Device functions on lists of candidates: count those above a cut, append those that stay.

Shapes: R rows of a tile, C columns of a tile.

A list is a row's candidates in ascending order of features: ``count_R`` values and features from position ``base_R`` on. All
values are positive, so that their bit patterns, read as integers of the same width, order as they do; BITS is 31 (float32) or 63.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["append", "at_least", "pattern"]


@triton.jit
def pattern(value, BITS: tl.constexpr):
    """Bit patterns of floating-point numbers."""
    if BITS == 31:
        bits = value.to(tl.int32, bitcast=True)
    else:
        bits = value.to(tl.int64, bitcast=True)
    return bits


@triton.jit
def at_least(value, base_R, count_R, trial_R, BITS: tl.constexpr, COLUMNS: tl.constexpr):
    """[R], how many of each row's values have a pattern of at least ``trial_R``."""
    found_R = tl.zeros_like(count_R)
    for start in range(0, tl.max(count_R, 0), COLUMNS):
        place_RC = start + tl.arange(0, COLUMNS)[None, :]
        inside_RC = place_RC < count_R[:, None]
        bits_RC = pattern(tl.load(value + base_R[:, None] + place_RC, mask=inside_RC, other=0.0), BITS)
        found_R += tl.sum((inside_RC & (bits_RC >= trial_R[:, None])).to(tl.int32), 1)
    return found_R


@triton.jit
def append(
    source, base_R, count_R, cut_R, room_R, out, end_R, row_R, WITH_ROWS: tl.constexpr, BITS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Append what lies above the cut, and the first ``room_R`` of what equals it.

    Args:
        source: pointers to values and features of the list.
        out: pointers to values, features and rows of the new list; rows are written if WITH_ROWS.
        end_R: where each row's new list ends.

    Returns:
        Where it ends now, and how many equal ones may still be kept.
    """
    value, feature = source
    out_value, out_feature, out_row = out
    for start in range(0, tl.max(count_R, 0), COLUMNS):
        place_RC = start + tl.arange(0, COLUMNS)[None, :]
        inside_RC = place_RC < count_R[:, None]
        value_RC = tl.load(value + base_R[:, None] + place_RC, mask=inside_RC, other=0.0)
        feature_RC = tl.load(feature + base_R[:, None] + place_RC, mask=inside_RC, other=0)
        bits_RC = pattern(value_RC, BITS)
        tied_RC = (inside_RC & (bits_RC == cut_R[:, None])).to(tl.int32)
        first_RC = (tied_RC > 0) & (tl.cumsum(tied_RC, 1) <= room_R[:, None])
        kept_RC = ((inside_RC & (bits_RC > cut_R[:, None])) | first_RC).to(tl.int32)
        to_RC = end_R[:, None] + tl.cumsum(kept_RC, 1) - kept_RC
        tl.store(out_value + to_RC, value_RC, mask=kept_RC > 0)
        tl.store(out_feature + to_RC, feature_RC, mask=kept_RC > 0)
        if WITH_ROWS:
            tl.store(out_row + to_RC, tl.zeros_like(kept_RC) + row_R[:, None], mask=kept_RC > 0)
        end_R += tl.sum(kept_RC, 1)
        room_R -= tl.minimum(tl.sum(tied_RC, 1), room_R)
    return end_R, room_R
