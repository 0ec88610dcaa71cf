"""What the pass keeps for each feature, as arrays: the contract between the pass, its kernels and what is made of it.

Shapes: F features, C contexts of T tokens in the whole token set, H = 64 histogram bins, R = 32 reservoir bins, P = 16 position
bins, K top examples, J drawn ones, M examples of a reservoir bin, S sampled firings, W tokens of a window, Q sampled contexts.

A *row* is an unmasked position: (sequence, position), the number of its context in the token set and its place in it.
A *firing* is an entry f > 0 of a row's code. Values are float32 on the scale of the raw activation.

``unit`` is a power of two, fixed before the pass from the rows' norms, so that every accumulator is exact:

- w = value / unit is exact. Sums of w and of w * w (taken in float64, exact) are kept as two int64 limbs, hi and lo, of numbers in
  2**-40: hi = floor(w), lo = rint((w - floor(w)) * 2**40), each added over the firings, then lo's carry moved into hi, so that
  0 <= lo < 2**40. Integers: the result does not depend on any order.
- histogram bin of a value: quarters of octaves. With w = m * 2**e, 1 <= m < 2: bin = 4 * (e + 14) + (m >= q1) + (m >= q2) +
  (m >= q3) with q_i the float32 nearest to 2**(i/4), clipped to 0 .. 63. Bin 0 also holds what is smaller, bin 63 what is larger.
  Edges are EDGES * unit. The reservoir bin is the histogram bin // 2.
- hash of a firing: draw(seed, feature, sequence, position), 32 bits; the smallest are kept. Ties go to the lower sequence, then position.
- top examples are ordered by (value descending, sequence, position), one a context (its first largest position), and of those
  whose ``key`` (hash of the last ``distinct_tokens`` tokens up to the peak) is the same only the first in that order.

Every list is a function of the set of firings, so states of disjoint contexts merge in any order to the same bytes. What is not used
of an array is zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neuronmap.features.config import AnalysisConfig

__all__ = [
    "DISTINCT",
    "EDGES",
    "FRACTION_BITS",
    "HALF_MAX",
    "HISTOGRAM_BINS",
    "L0_BINS",
    "LAYOUT_VERSION",
    "ORDERS",
    "POSITION_BINS",
    "QUARTERS",
    "RESERVOIR_BINS",
    "SAMPLE",
    "bin_of",
    "draw",
    "example_dtype",
    "fixed_sum",
    "halves",
    "per_feature",
    "token_keys",
]

LAYOUT_VERSION = 2
"""Part of the key of a state: raised whenever the same rows and codes give other arrays."""
HISTOGRAM_BINS = 64
RESERVOIR_BINS = 32
POSITION_BINS = 16
L0_BINS = 1025
"""Rows by number of active features: 0 .. 1023, then all above."""
FRACTION_BITS = 40
LOWEST_OCTAVE = -14
QUARTERS = np.exp2(np.array([0.25, 0.5, 0.75])).astype(np.float32)
"""Where the bins of an octave begin, over its own begin."""
EDGES: npt.NDArray[np.float32] = (
    np.exp2(np.arange(LOWEST_OCTAVE, LOWEST_OCTAVE + 17, dtype=np.float64)).repeat(4)
    * np.tile(np.concatenate([[1.0], QUARTERS.astype(np.float64)]), 17)
)[: HISTOGRAM_BINS + 1].astype(np.float32)
"""float32 [H + 1]: bin h holds EDGES[h] <= w < EDGES[h + 1]."""

SAMPLE = np.dtype([("hash", "<u4"), ("sequence", "<u4"), ("position", "<u4"), ("value", "<f4")])
"""One firing of the uniform sample; a feature's are ordered by (hash, sequence, position)."""

ORDERS = {
    "top": ("-value", "sequence", "position"),
    "bins": ("order", "sequence", "position"),
    "drawn": ("order", "sequence", "position"),
    "sample": ("hash", "sequence", "position"),
}
"""Fields that each kind of list is ordered by, ascending; descending after a minus."""
DISTINCT = {"top": "order", "bins": "", "drawn": "", "sample": ""}
"""Field of which a list holds each value once."""

HALF_MAX = 65504.0
"""Largest float16; what is larger in a window is kept as this."""
_MASK = (1 << 64) - 1
_KEY_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def example_dtype(window: int) -> np.dtype[np.void]:
    """A firing with what happens around it.

    ``order`` is the dedup key of a top example and the hash of a reservoir's. ``window`` holds w (values over the unit) in float16
    at positions position - before .. position + after; 0 where there is no firing, no row or no context. Padded to 8 bytes.
    """
    size = 8 + 4 * 3 + 2 * window
    return np.dtype(
        {
            "names": ["order", "value", "sequence", "position", "window"],
            "formats": ["<u8", "<f4", "<u4", "<u4", ("<f2", (window,))],
            "offsets": [0, 8, 12, 16, 20],
            "itemsize": (size + 7) // 8 * 8,
        }
    )


def per_feature(config: AnalysisConfig) -> dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]]:
    """Name -> (shape after F, dtype) of every array that the pass keeps for each feature."""
    example = example_dtype(config.window)
    return {
        "firings": ((), np.dtype("<i8")),
        "sum": ((2,), np.dtype("<i8")),  # hi, lo
        "square": ((2,), np.dtype("<i8")),
        "max": ((), np.dtype("<f4")),
        "histogram": ((HISTOGRAM_BINS,), np.dtype("<u4")),
        "positions": ((POSITION_BINS,), np.dtype("<u4")),  # bin = position * P // T
        "top_count": ((), np.dtype("<u2")),
        "top": ((config.top_examples,), example),
        "bin_count": ((RESERVOIR_BINS,), np.dtype("u1")),
        "bins": ((RESERVOIR_BINS, config.bin_examples), example),  # by (hash, sequence, position)
        "drawn_count": ((), np.dtype("u1")),
        "drawn": ((config.drawn_examples,), example),  # of all firings, by (hash, sequence, position)
        "sample_count": ((), np.dtype("<u2")),
        "sample": ((config.firing_sample,), SAMPLE),
    }


def draw(
    seed: int,
    feature: npt.NDArray[np.integer] | int,
    sequence: npt.NDArray[np.integer] | int,
    position: npt.NDArray[np.integer] | int,
) -> npt.NDArray[np.uint32]:
    """uint32: a number that a firing (or, with feature -1, a context) is drawn by; splitmix64 finaliser over its address.

    x = seed * 0x9E3779B97F4A7C15 + (feature + 2) * 0xD1B54A32D192ED03 + (sequence << 16) + position, modulo 2**64, then
    x ^= x >> 30; x *= 0xBF58476D1CE4E5B9; x ^= x >> 27; x *= 0x94D049BB133111EB; x ^= x >> 31; the upper 32 bits of it.
    """
    address = (np.asarray(sequence).astype(np.uint64) << np.uint64(16)) + np.asarray(position).astype(np.uint64)
    with np.errstate(over="ignore"):
        x = np.uint64(seed * 0x9E3779B97F4A7C15 & _MASK) + (np.asarray(feature).astype(np.int64) + 2).astype(
            np.uint64
        ) * np.uint64(0xD1B54A32D192ED03)
        x = np.atleast_1d(x + address)
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(32)).astype(np.uint32)


def token_keys(ids_BT: npt.NDArray[np.integer], tokens: int) -> npt.NDArray[np.uint64]:
    """uint64 [B, T]: hash of the last ``tokens`` tokens up to and with each position, of as many as its context has there.

    h = 0, then for each token, the oldest first: h = (h ^ (id + 1)) * 0x9E3779B97F4A7C15 modulo 2**64; h ^= h >> 32.
    """
    ids_BT = np.asarray(ids_BT)
    step_BT = ids_BT.astype(np.uint64) + np.uint64(1)
    key_BT = np.zeros(ids_BT.shape, np.uint64)
    T = ids_BT.shape[1]
    for back in range(min(tokens, T) - 1, -1, -1):
        view = key_BT[:, back:]
        view ^= step_BT[:, : T - back]
        view *= _KEY_FACTOR
        view ^= view >> np.uint64(32)
    return key_BT


def bin_of(w: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """int64 [...]: histogram bins of values over the unit, all above 0, as the head of this module says."""
    bits = np.ascontiguousarray(w, np.float32).view(np.uint32)
    octave = (bits >> 23).astype(np.int64) - 127
    mantissa = bits & np.uint32(0x7FFFFF)
    quarters = QUARTERS.view(np.uint32) & np.uint32(0x7FFFFF)
    quarter = sum((mantissa >= edge).astype(np.int64) for edge in quarters)
    bins: npt.NDArray[np.int64] = np.clip(4 * (octave - LOWEST_OCTAVE) + quarter, 0, HISTOGRAM_BINS - 1)
    return bins


def halves(w: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """float16 [...]: to the nearest, ties to even, at most the largest there is."""
    return np.minimum(w, np.float32(HALF_MAX)).astype(np.float16)


def fixed_sum(limbs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """float64 [...]: the number that limbs [..., 2] (hi, lo) stand for."""
    value: npt.NDArray[np.float64] = limbs[..., 0] + limbs[..., 1] * 2.0**-FRACTION_BITS
    return value
