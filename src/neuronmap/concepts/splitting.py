"""Splits of a user's items: what belongs together stays together, and every split gets its share of every class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from neuronmap.concepts.drawing import SHARES
from neuronmap.concepts.items import SPLITS, Item, Split

__all__ = ["assign_splits"]


def assign_splits(items: Sequence[Item], wanted: int, seed: int) -> list[Item]:
    """Items with their splits, thinned to about ``wanted``.

    Items that share a cluster or a pair are one unit. Units with the same labels are ordered by a hash of the seed and
    their cluster, and cut by the usual shares; if there are more items than wanted, each part keeps its first units.

    Args:
        items: the splits they have are not looked at.
        wanted: about how many to keep; all, if there are no more.
        seed: of the cut.

    Returns:
        Items in their order.
    """
    strata: dict[tuple[str, ...], list[list[int]]] = {}
    for unit in _units(items):
        labels = tuple(sorted({items[index].label for index in unit}))
        strata.setdefault(labels, []).append(unit)
    kept_share = min(1.0, wanted / max(1, len(items)))
    splits: dict[int, Split] = {}
    for units in strata.values():
        units.sort(key=lambda unit: hashlib.sha256(f"{seed}:{items[unit[0]].cluster}".encode()).digest())
        for split, part in _cut(units).items():
            for unit in part[: max(1, round(len(part) * kept_share))]:
                splits |= dict.fromkeys(unit, split)
    return [replace(items[index], split=splits[index]) for index in sorted(splits)]


def _cut(units: list[list[int]]) -> dict[Split, list[list[int]]]:
    """Parts by the usual shares; none is empty if there are three units."""
    test = max(1, round(len(units) * SHARES["test"])) if len(units) > 1 else 0
    calibration = max(1, round(len(units) * SHARES["calibration"])) if len(units) > 2 else 0
    borders = {
        "test": units[:test],
        "calibration": units[test : test + calibration],
        "train": units[test + calibration :],
    }
    return {split: borders[split] for split in SPLITS}


def _units(items: Sequence[Item]) -> list[list[int]]:
    """Indices of items that hang together by cluster or pair, in order of first appearance."""
    parent = list(range(len(items)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, item in enumerate(items):
        for key in (("cluster", item.cluster), ("pair", item.pair)):
            a, b = sorted((root(first.setdefault(key, index)), root(index)))
            parent[b] = a
    units: dict[int, list[int]] = {}
    for index in range(len(items)):
        units.setdefault(root(index), []).append(index)
    return list(units.values())
