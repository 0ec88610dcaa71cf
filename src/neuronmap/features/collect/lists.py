"""Ordered lists of bounded length, one a feature: what is first among kept items and new ones. Updates and merges are the same.

Shapes: G lists of at most K items, n new items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["keep_first", "merge_lists"]

Array = npt.NDArray[Any]

_MERGE_LISTS = 1 << 14
"""Lists merged at once; bounds the memory of a merge."""


def keep_first(
    lists_GK: Array,
    count_G: Array,
    owner_n: npt.NDArray[np.int64],
    items_n: Array,
    ranks: Sequence[str],
    distinct: str = "",
) -> None:
    """Put new items into their lists, in place, and keep the first K of each.

    Args:
        lists_GK: structured items, ordered; the rest zero.
        count_G: how many of them are there.
        owner_n: the list of each new item.
        items_n: the new items, of the same dtype.
        ranks: fields they are ordered by, ascending; ``-name`` for descending (of numbers that are not negative).
        distinct: of items that agree in this field only the first is kept.
    """
    if not len(owner_n):
        return
    K = lists_GK.shape[1]
    raw = np.dtype((np.void, lists_GK.dtype.itemsize))  # copied as bytes: padding stays zero
    touched = np.unique(owner_n)
    is_kept = np.arange(K) < count_G[touched][:, None]
    owner = np.concatenate([np.repeat(touched, count_G[touched]), owner_n])
    pool = np.concatenate([lists_GK.view(raw)[touched][is_kept], np.ascontiguousarray(items_n).view(raw)])
    items = pool.view(lists_GK.dtype)
    order = np.lexsort([*(_rank(items, name) for name in reversed(ranks)), owner])
    if distinct:
        owner_s, value_s = owner[order], items[distinct][order]
        by_value = np.lexsort([value_s, owner_s])  # stable: equal ones stay in their order
        again = (np.diff(owner_s[by_value]) == 0) & (value_s[by_value][1:] == value_s[by_value][:-1])
        first = np.ones(len(order), bool)
        first[by_value[1:]] = ~again
        order = order[first]
    owner, pool = owner[order], pool[order]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    place = np.arange(len(owner)) - np.repeat(starts, np.diff(starts, append=len(owner)))
    keep = place < K
    fresh = np.zeros((len(touched), K), lists_GK.dtype)
    fresh.view(raw)[np.searchsorted(touched, owner[keep]), place[keep]] = pool[keep]
    lists_GK[touched] = fresh
    count_G[touched] = np.diff(starts, append=len(owner)).clip(max=K)


def merge_lists(
    lists_GK: Array, count_G: Array, others_GK: Array, other_count_G: Array, ranks: Sequence[str], distinct: str = ""
) -> None:
    """Put all items of some lists into others of the same numbers, in place."""
    K = lists_GK.shape[1]
    for start in range(0, len(lists_GK), _MERGE_LISTS):
        part = slice(start, start + _MERGE_LISTS)
        counts = other_count_G[part]
        items = others_GK[part][np.arange(K) < counts[:, None]]
        owner_n = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        keep_first(lists_GK[part], count_G[part], owner_n, items, ranks, distinct)


def _rank(items: Array, name: str) -> Array:
    if name.startswith("-"):
        return np.asarray(-items[name[1:]])
    return np.asarray(items[name])
