"""The firings of a block go into the arrays by feature: by the compiled kernel, or by numpy to the same bytes.

Shapes: B rows of a block, N firings, F features, T tokens of a context, W tokens of a window, n firings that may enter a list.
What is kept, and why any order gives the same: :mod:`neuronmap.features.collect.layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from neuronmap.errors import InputError
from neuronmap.features.collect.layout import (
    DISTINCT,
    FRACTION_BITS,
    HISTOGRAM_BINS,
    ORDERS,
    POSITION_BINS,
    QUARTERS,
    RESERVOIR_BINS,
    SAMPLE,
    bin_of,
    draw,
    halves,
)
from neuronmap.features.collect.lists import keep_first
from neuronmap.features.config import AnalysisConfig

__all__ = ["BlockPlaces", "Entries", "accumulate", "carry"]

Arrays = Mapping[str, npt.NDArray[Any]]

_KERNEL_ARRAYS = (
    *("firings", "sum", "square", "max", "histogram", "positions"),
    *("top_count", "top", "bin_count", "bins", "sample_count", "sample", "drawn_count", "drawn"),
)
"""In the order of struct firing_arrays in the engine's firings.h."""


@dataclass(frozen=True, eq=False)
class Entries:
    """The firings of a block, in row order; within a row in any order.

    Attributes:
        row_N: int32, row of each.
        feature_N: int32, its feature.
        value_N: float32, its activation, above 0.
    """

    row_N: npt.NDArray[np.int32]
    feature_N: npt.NDArray[np.int32]
    value_N: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class BlockPlaces:
    """Where the rows of a block lie.

    Attributes:
        sequence_B: uint32, context of each row, ascending.
        position_B: uint16, place in it, ascending within a context.
        key_B: uint64, :func:`neuronmap.features.collect.layout.token_keys` at each row.
        context_length: T.
    """

    sequence_B: npt.NDArray[np.uint32]
    position_B: npt.NDArray[np.uint16]
    key_B: npt.NDArray[np.uint64]
    context_length: int


def accumulate(
    arrays: Arrays,
    config: AnalysisConfig,
    entries: Entries,
    places: BlockPlaces,
    unit: float,
    *,
    portable: bool = False,
) -> None:
    """Count the firings of a block of whole contexts, in place.

    Args:
        arrays: those of :func:`neuronmap.features.collect.layout.per_feature`, C-contiguous.
        config: the settings that they were made by.
        entries: the firings.
        places: of the rows.
        unit: the power of two that values are counted in.
        portable: run without the compiled kernel, which gives the same bytes.
    """
    if not len(entries.row_N):
        return
    if portable or not _by_kernel(arrays, config, entries, places, unit):
        _by_numpy(arrays, config, entries, places, unit)


def _by_kernel(arrays: Arrays, config: AnalysisConfig, entries: Entries, places: BlockPlaces, unit: float) -> bool:
    """Count in C; False where there is no compiled kernel."""
    import torch  # the state is read without torch

    from neuronmap.saes.kernels.native.library import load_engine

    engine = load_engine()
    if engine is None:
        return False
    features, entry_count = len(arrays["firings"]), len(entries.row_N)
    item_bytes = arrays["top"].dtype.itemsize
    limits = (
        config.top_examples,
        config.bin_examples,
        config.firing_sample,
        config.drawn_examples,
        config.before,
        config.after,
    )
    seed = config.seed & 0xFFFFFFFFFFFFFFFF
    sizes = np.array([features, *limits, item_bytes, places.context_length, seed], np.uint64)
    given = [arrays[name] for name in _KERNEL_ARRAYS]
    rows: list[npt.NDArray[Any]] = [
        np.ascontiguousarray(entries.row_N, np.int32),
        np.ascontiguousarray(entries.feature_N, np.int32),
        np.ascontiguousarray(entries.value_N, np.float32),
    ]
    where: list[npt.NDArray[Any]] = [
        np.ascontiguousarray(places.sequence_B, np.uint32),
        np.ascontiguousarray(places.position_B, np.uint16),
        np.ascontiguousarray(places.key_B, np.uint64),
    ]
    if not all(array.flags.c_contiguous for array in given):
        raise InputError("The arrays of a feature pass must be C-contiguous.")
    scratch: list[npt.NDArray[Any]]
    scratch = [np.empty(features + 1, np.int64), np.empty(entry_count, np.int32), np.empty(entry_count, np.float32)]
    pointers = np.array([array.ctypes.data for array in given], np.uintp)
    engine.count_firings(
        sizes.ctypes.data,
        1 / unit,
        QUARTERS.ctypes.data,
        pointers.ctypes.data,
        *(array.ctypes.data for array in rows),
        entry_count,
        *(array.ctypes.data for array in (*where, *scratch)),
        torch.get_num_threads(),
    )
    return True


def _by_numpy(arrays: Arrays, config: AnalysisConfig, entries: Entries, places: BlockPlaces, unit: float) -> None:
    order = np.argsort(entries.feature_N, kind="stable")
    firings = _Firings(
        entries.feature_N[order].astype(np.int64),
        entries.row_N[order],
        entries.value_N[order],
        places,
        np.float32(1 / unit),
    )
    _count(arrays, firings)
    hash_N = draw(config.seed, firings.feature_N, firings.sequence_N, firings.position_N)
    _keep_sample(arrays, firings, hash_N)
    owner_N = firings.feature_N * RESERVOIR_BINS + firings.bin_N // (HISTOGRAM_BINS // RESERVOIR_BINS)
    bins_GM = arrays["bins"].reshape(-1, arrays["bins"].shape[2])
    _keep_drawn(bins_GM, arrays["bin_count"].reshape(-1), "bins", config, firings, owner_N, hash_N)
    _keep_drawn(arrays["drawn"], arrays["drawn_count"], "drawn", config, firings, firings.feature_N, hash_N)
    _keep_top(arrays, config, firings)


class _Firings:
    """All firings of a block, by feature and then by row."""

    def __init__(
        self,
        feature_N: npt.NDArray[np.int64],
        row_N: npt.NDArray[np.int32],
        value_N: npt.NDArray[np.float32],
        places: BlockPlaces,
        inverse_unit: np.float32,
    ) -> None:
        self.feature_N, self.value_N, self.places = feature_N, value_N, places
        self.w_N = value_N * inverse_unit
        self.bin_N = bin_of(self.w_N)
        self.sequence_N = places.sequence_B[row_N]
        self.position_N = places.position_B[row_N].astype(np.int64)
        self.key_N = places.key_B[row_N]
        context_N = self.sequence_N.astype(np.int64) - int(places.sequence_B[0])
        contexts = int(places.sequence_B[-1]) - int(places.sequence_B[0]) + 1
        self.run_N = feature_N * contexts + context_N  # one number a feature and context, ascending

    def examples(
        self, chosen_n: npt.NDArray[np.int64], order_n: npt.NDArray[Any], dtype: np.dtype[Any], before: int
    ) -> npt.NDArray[Any]:
        """Chosen firings as items of a list, with their windows."""
        items_n = np.zeros(len(chosen_n), dtype)
        items_n["order"], items_n["value"] = order_n, self.value_N[chosen_n]
        items_n["sequence"], items_n["position"] = self.sequence_N[chosen_n], self.position_N[chosen_n]
        T = self.places.context_length
        address_N = self.run_N * T + self.position_N
        w_N = halves(self.w_N)
        window_nW = items_n["window"]
        for column in range(window_nW.shape[1]):
            position_n = self.position_N[chosen_n] + (column - before)
            wanted_n = self.run_N[chosen_n] * T + position_n
            at_n = np.searchsorted(address_N, wanted_n).clip(max=len(address_N) - 1)
            found_n = (address_N[at_n] == wanted_n) & (position_n >= 0) & (position_n < T)
            window_nW[:, column] = np.where(found_n, w_N[at_n], np.float16(0))
        return items_n


def _count(arrays: Arrays, firings: _Firings) -> None:
    feature_N, features = firings.feature_N, len(arrays["firings"])
    arrays["firings"][...] += np.bincount(feature_N, minlength=features)
    w_N = firings.w_N.astype(np.float64)
    for name, term_N in (("sum", w_N), ("square", w_N * w_N)):
        whole_N = np.floor(term_N)
        limbs = arrays[name]
        np.add.at(limbs[:, 0], feature_N, whole_N.astype(np.int64))
        np.add.at(limbs[:, 1], feature_N, np.rint((term_N - whole_N) * 2.0**FRACTION_BITS).astype(np.int64))
        carry(limbs)
    np.maximum.at(arrays["max"], feature_N, firings.value_N)
    position_bin_N = firings.position_N * POSITION_BINS // firings.places.context_length
    for name, bins, bin_N in (
        ("histogram", HISTOGRAM_BINS, firings.bin_N),
        ("positions", POSITION_BINS, position_bin_N),
    ):
        cell, count = np.unique(feature_N * bins + bin_N, return_counts=True)
        arrays[name].reshape(-1)[cell] += count.astype(np.uint32)


def carry(limbs: npt.NDArray[np.int64]) -> None:
    """Move what is over a whole number from lo to hi, in place."""
    limbs[:, 0] += limbs[:, 1] >> FRACTION_BITS
    limbs[:, 1] &= (1 << FRACTION_BITS) - 1


def _keep_sample(arrays: Arrays, firings: _Firings, hash_N: npt.NDArray[np.uint32]) -> None:
    lists, count_F = arrays["sample"], arrays["sample_count"]
    full_F = count_F == lists.shape[1]
    may_N = ~full_F[firings.feature_N] | (hash_N <= lists["hash"][:, -1][firings.feature_N])
    chosen_n = np.flatnonzero(may_N)
    items_n = np.zeros(len(chosen_n), SAMPLE)
    items_n["hash"], items_n["sequence"] = hash_N[chosen_n], firings.sequence_N[chosen_n]
    items_n["position"], items_n["value"] = firings.position_N[chosen_n], firings.value_N[chosen_n]
    keep_first(lists, count_F, firings.feature_N[chosen_n], items_n, ORDERS["sample"])


def _keep_drawn(
    lists: npt.NDArray[Any],
    count_G: npt.NDArray[Any],
    kind: str,
    config: AnalysisConfig,
    firings: _Firings,
    owner_N: npt.NDArray[np.int64],
    hash_N: npt.NDArray[np.uint32],
) -> None:
    """Offer each firing to the list that owns it, which keeps those with the smallest hashes, with their windows."""
    full_G = count_G == lists.shape[1]
    chosen_n = np.flatnonzero(~full_G[owner_N] | (hash_N <= lists["order"][:, -1][owner_N]))
    # of a block's firings no more than the first few of a list can stay: windows are made of these only
    by_hash = chosen_n[np.lexsort((chosen_n, hash_N[chosen_n], owner_N[chosen_n]))]
    starts = np.flatnonzero(np.diff(owner_N[by_hash], prepend=-1))
    place = np.arange(len(by_hash)) - np.repeat(starts, np.diff(starts, append=len(by_hash)))
    chosen_n = by_hash[place < lists.shape[1]]
    items_n = firings.examples(chosen_n, hash_N[chosen_n], lists.dtype, config.before)
    keep_first(lists, count_G, owner_N[chosen_n], items_n, ORDERS[kind])


def _keep_top(arrays: Arrays, config: AnalysisConfig, firings: _Firings) -> None:
    lists, count_F = arrays["top"], arrays["top_count"]
    starts = np.flatnonzero(np.diff(firings.run_N, prepend=-1))
    largest = np.repeat(np.maximum.reduceat(firings.value_N, starts), np.diff(starts, append=len(firings.run_N)))
    peaks = np.flatnonzero(firings.value_N == largest)
    _, first = np.unique(firings.run_N[peaks], return_index=True)
    chosen_n = peaks[first]
    feature_n = firings.feature_N[chosen_n]
    full_F = count_F == lists.shape[1]
    chosen_n = chosen_n[~full_F[feature_n] | (firings.value_N[chosen_n] >= lists["value"][:, -1][feature_n])]
    items_n = firings.examples(chosen_n, firings.key_N[chosen_n], lists.dtype, config.before)
    keep_first(lists, count_F, firings.feature_N[chosen_n], items_n, ORDERS["top"], DISTINCT["top"])
