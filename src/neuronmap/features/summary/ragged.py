"""Lists of different lengths for many owners, as flat columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Ragged", "best_of_each", "lists_of", "ranges"]


@dataclass(frozen=True)
class Ragged:
    """A list for each of n owners: owner i's entries are offset[i] .. offset[i + 1] of every column.

    Attributes:
        offset: int64 [n + 1].
        columns: name -> array, all of the same length.
    """

    offset: npt.NDArray[np.int64]
    columns: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.offset) - 1

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    def first(self, name: str, missing: float) -> npt.NDArray[Any]:
        """The first entry of each list, [n], or ``missing`` where the list is empty."""
        column = self.columns[name]
        value: npt.NDArray[Any] = np.full(len(self), missing, column.dtype)
        there = np.diff(self.offset) > 0
        value[there] = column[self.offset[:-1][there]]
        return value

    def take(self, order: npt.NDArray[np.int64]) -> Ragged:
        """The lists of some owners, in that order."""
        start, size = self.offset[:-1][order], np.diff(self.offset)[order]
        inside = ranges(start, size)
        offset = np.concatenate([[0], np.cumsum(size)])
        return Ragged(offset, {name: column[inside] for name, column in self.columns.items()})


def ranges(start: npt.NDArray[np.integer], size: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """int64: start[0], start[0] + 1, ... (size[0] numbers), then start[1] and so on."""
    size = size.astype(np.int64)
    before = np.cumsum(size) - size
    return np.repeat(start.astype(np.int64) - before, size) + np.arange(int(size.sum()))


def lists_of(owner: npt.NDArray[np.integer], owners: int, columns: Mapping[str, npt.NDArray[Any]]) -> Ragged:
    """Lists from flat entries that lie in order of their owner, 0 .. owners - 1."""
    counts = np.bincount(owner, minlength=owners)
    return Ragged(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), columns)


def best_of_each(owner: npt.NDArray[np.integer], score: npt.NDArray[np.floating], limit: int) -> npt.NDArray[np.int64]:
    """Indices of each owner's ``limit`` best entries, by owner, then score descending; ties keep their order.

    Args:
        owner: whose entry it is.
        score: larger is better.
        limit: entries kept of each.
    """
    order = np.lexsort((-score, owner))
    sorted_owner = owner[order]
    new = np.ones(len(order), bool)
    new[1:] = sorted_owner[1:] != sorted_owner[:-1]
    start = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    return order[np.arange(len(order)) - start < limit]
