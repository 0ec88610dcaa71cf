"""Which features fire together, over the whole dictionary, on the rows of the coded sample.

For features i and j that fire on n_i and n_j of N sampled rows and together on c:

    Jaccard   c / (n_i + n_j - c)
    PMI       log2(c N / (n_i n_j)), bits
    given     c / n_i = P(j | i)        implies   c / n_j = P(i | j)

Lead and lag: over the P pairs of neighbouring rows (t, t + 1) of one context, with c the pairs where i fires on the first and j on the
second, n_i and n_j the pairs where i fires on the first, j on the second: given = c / n_i, lift = c P / (n_i n_j). A feature can lead
itself: it fires on two tokens in a row.

The product of the sparse codes with themselves is counted by features, block by block; F x F never exists. Cost: the sum over rows of
L0 squared, three times.

Shapes: F features, N rows, E entries, P neighbouring pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from neuronmap.features.collect.state import CodedSample
from neuronmap.features.summary.ragged import Ragged, best_of_each, lists_of

__all__ = ["MIN_LAGGED", "MIN_TOGETHER", "CoActivation", "neighbouring_rows"]

MIN_TOGETHER = 2
"""Rows on which two features fire together for the pair to be listed: once happens by chance to every rare feature."""
MIN_LAGGED = 5
"""Pairs of rows for a lead or lag to be listed: lift is large for small counts by chance."""
_BLOCK_ENTRIES = 1 << 22
_SORT_COST = 24  # sorting a co-entry costs about as much as clearing and scanning this many counters
_Counts = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]
_Score = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.float64]]


def neighbouring_rows(sample: CodedSample) -> npt.NDArray[np.int64]:
    """int64 [P]: rows whose next row is the next token of the same context."""
    same = sample.sequence_N[1:] == sample.sequence_N[:-1]
    return np.flatnonzero(
        same & (sample.position_N[1:].astype(np.int64) == sample.position_N[:-1].astype(np.int64) + 1)
    )


class CoActivation:
    """Lists of co-active features.

    Args:
        sample: the coded sample.
        features: F.
        limit: entries of each list.
    """

    def __init__(self, sample: CodedSample, features: int, limit: int) -> None:
        self._features, self._limit = features, limit
        self._code_NF = _matrix(sample, features)
        self.rows = int(self._code_NF.shape[0])
        by_feature = self._code_NF.tocsc()
        self._row_E, self._start_F = by_feature.indices, by_feature.indptr.astype(np.int64)
        self._length_N = np.diff(sample.offset_N)
        # co-entries before each entry, in order of the features: what a block costs
        self._before = np.concatenate([[0], np.cumsum(self._length_N[self._row_E])])
        first = neighbouring_rows(sample)
        self.pairs = len(first)
        self._has_N = {step: np.zeros(self.rows, bool) for step in (1, -1)}
        self._has_N[1][first] = self._has_N[-1][first + 1] = True
        self.rows_F = np.bincount(sample.feature_E, minlength=features).astype(np.int64)
        row_E = np.repeat(np.arange(self.rows), self._length_N)
        self._pairs_F = {
            step: np.bincount(sample.feature_E[has_N[row_E]], minlength=features).astype(np.int64)
            for step, has_N in self._has_N.items()
        }

    def together(self, first: int, stop: int) -> Ragged:
        """Features that fire on the same rows as features ``first`` .. ``stop`` - 1, by Jaccard index descending.

        Returns:
            Lists of feature (ties to the lower number), count, jaccard, pmi, given, implies.
        """
        n_F = self.rows_F

        def jaccard(i: Any, j: Any, count: Any) -> Any:
            return np.where(i == j, -1.0, count / (n_F[i] + n_F[j] - count))

        i, j, count = self._best(first, stop, 0, MIN_TOGETHER, jaccard)
        return lists_of(
            i - first,
            stop - first,
            {
                "feature": j.astype(np.int32),
                "count": count.astype(np.int32),
                "jaccard": jaccard(i, j, count).astype(np.float32),
                "pmi": np.log2(count * float(self.rows) / (n_F[i] * n_F[j].astype(np.float64))).astype(np.float32),
                "given": (count / n_F[i]).astype(np.float32),
                "implies": (count / n_F[j]).astype(np.float32),
            },
        )

    def leads(self, first: int, stop: int) -> Ragged:
        """Features that fire on the token after, by lift: lists of feature, count, given, lift."""
        return self._lagged(first, stop, 1)

    def follows(self, first: int, stop: int) -> Ragged:
        """Features that fire on the token before, by lift: lists of feature, count, given, lift."""
        return self._lagged(first, stop, -1)

    def _lagged(self, first: int, stop: int, step: int) -> Ragged:
        own_F, other_F = self._pairs_F[step], self._pairs_F[-step]

        def lift(i: Any, j: Any, count: Any) -> Any:
            return count * float(self.pairs) / (own_F[i] * other_F[j].astype(np.float64))

        i, j, count = self._best(first, stop, step, MIN_LAGGED, lift)
        columns = {
            "feature": j.astype(np.int32),
            "count": count.astype(np.int32),
            "given": (count / own_F[i]).astype(np.float32),
            "lift": lift(i, j, count).astype(np.float32),
        }
        return lists_of(i - first, stop - first, columns)

    def _best(self, first: int, stop: int, step: int, least: int, score: _Score) -> _Counts:
        """(i, j, count) of each feature's best partners ``step`` rows on with a score above 0, by feature, score, number."""
        found = [self._best_of_block(*block, step, least, score) for block in self._blocks(first, stop)]
        i, j, count = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return i, j, count

    def _blocks(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        while first < stop:
            budget = self._before[self._start_F[first]] + _BLOCK_ENTRIES
            costs = self._before[self._start_F[first : stop + 1]]
            last = int(np.searchsorted(costs, budget, side="right")) - 1 + first
            last = min(max(last, first + 1), stop)
            yield first, last
            first = last

    def _best_of_block(self, first: int, stop: int, step: int, least: int, score: _Score) -> _Counts:
        row = self._row_E[self._start_F[first] : self._start_F[stop]]
        bounds = self._start_F[first : stop + 1] - self._start_F[first]
        if step:
            has = self._has_N[step][row]
            bounds = np.concatenate([[0], np.cumsum(has)])[bounds]
            row = row[has] + step
        bounds = np.concatenate([[0], np.cumsum(self._length_N[row])])[bounds]
        partners = self._code_NF[row].indices  # copied row by row
        many = np.diff(bounds) * _SORT_COST > self._features
        counted = [self._few(first, partners, bounds, ~many, least)]
        for feature in np.flatnonzero(many):
            count = np.bincount(partners[bounds[feature] : bounds[feature + 1]], minlength=self._features)
            j = np.flatnonzero(count >= least)
            i = np.full(len(j), first + feature)
            if len(j) > 4 * self._limit:
                value = score(i, j, count[j])
                keep = value >= np.partition(value, len(j) - self._limit)[len(j) - self._limit]
                i, j = i[keep], j[keep]
            counted.append((i, j, count[j]))
        i, j, count = (np.concatenate(parts) for parts in zip(*counted, strict=True))
        value = score(i, j, count)
        good = np.flatnonzero(value > 0)
        best = good[best_of_each(i[good], value[good], self._limit)]
        return i[best], j[best], count[best]

    def _few(
        self,
        first: int,
        partners: npt.NDArray[np.integer],
        bounds: npt.NDArray[np.int64],
        which: npt.NDArray[np.bool_],
        least: int,
    ) -> _Counts:
        """Counts of the features with few co-entries, by one sort of (feature, partner)."""
        size = np.where(which, np.diff(bounds), 0)
        inside = partners if which.all() else partners[np.repeat(which, np.diff(bounds))]
        key = np.repeat(np.arange(len(which)) * self._features, size) + inside
        if len(which) * self._features < 1 << 31:
            key = key.astype(np.int32)  # sorts twice as fast
        key.sort()
        new = np.flatnonzero(np.diff(key, prepend=key.dtype.type(-1)))
        count = np.diff(new, append=len(key))
        keep = count >= least
        pair = key[new[keep]].astype(np.int64)
        return pair // self._features + first, pair % self._features, count[keep]


def _matrix(sample: CodedSample, features: int) -> scipy.sparse.csr_array:
    parts = (np.ones(len(sample.feature_E), np.int8), sample.feature_E, sample.offset_N)
    return scipy.sparse.csr_array(parts, shape=(len(sample.offset_N) - 1, features))
