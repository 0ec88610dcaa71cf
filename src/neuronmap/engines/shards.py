"""Cutting work into shards, and telling which one is slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

__all__ = ["cut", "slowest"]

SLOW = 2.0
"""A shard is slow when it takes so many times as long as half of those that are finished."""
SLOW_SECONDS = 5.0
"""And never before: a second attempt costs something too."""


def cut(todo: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """Numbers cut into runs of about equal length, in order.

    Args:
        todo: ascending numbers, gaps allowed.
        parts: how many runs at most; fewer where there are fewer numbers.

    Returns:
        Runs, none of them empty; none at all for no numbers.
    """
    parts = min(max(parts, 1), len(todo))
    borders = [len(todo) * part // parts for part in range(parts + 1)] if parts else []
    return [tuple(todo[low:high]) for low, high in pairwise(borders)]


def slowest(running: Mapping[int, float], finished: Sequence[float]) -> int | None:
    """Of the running shards the one to begin a second time; None if none is slow.

    Args:
        running: seconds that each running shard has taken so far.
        finished: seconds that finished ones took. Without any nothing can be told.
    """
    if not finished or not running:
        return None
    shard = max(running, key=lambda one: running[one])
    return shard if running[shard] > max(SLOW * median(finished), SLOW_SECONDS) else None
