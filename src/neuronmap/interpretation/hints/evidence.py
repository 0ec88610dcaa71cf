"""What rules are made from and scored on: sampled firings and sampled rows of one half of the text, for a block of features.

Shapes: F features of a block, N rows of the coded sample in this half, n sampled firings of the block's features in this half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse

from neuronmap.interpretation.hints.reading import Reading

if TYPE_CHECKING:
    from neuronmap.features.collect.state import FeatureState

__all__ = ["Evidence", "Halves", "distinct"]


def distinct(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The different values, ascending. (numpy.unique hashes first, which is many times slower on what is large.)"""
    ordered = np.sort(values)
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new]


@dataclass(frozen=True)
class Evidence:
    """One half, one block of features.

    Attributes:
        feature_n: int64, number in the block of each sampled firing, ascending; within a feature in the sample's (random) order.
        place_n: int64, where it is (:class:`Reading`).
        count_F: int64, sampled firings in this half.
        place_N: int64, where the rows are.
        fires_FN: CSR of ones, which features fire on which rows.
        silent_F: int64, rows without firing.
        firings_F: int64, N+, firings of the whole pass.
        rest_F: int64, N-, silent rows of the whole pass.
        tokens_V: int64, rows of the whole pass by token.
    """

    reading: Reading
    feature_n: npt.NDArray[np.int64]
    place_n: npt.NDArray[np.int64]
    count_F: npt.NDArray[np.int64]
    place_N: npt.NDArray[np.int64]
    fires_FN: scipy.sparse.csr_matrix
    silent_F: npt.NDArray[np.int64]
    firings_F: npt.NDArray[np.int64]
    rest_F: npt.NDArray[np.int64]
    tokens_V: npt.NDArray[np.int64]

    @property
    def features(self) -> int:
        """F of the block."""
        return len(self.count_F)

    def entries(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Feature and row of every firing on the sampled rows."""
        feature_E = np.arange(self.features).repeat(np.diff(self.fires_FN.indptr))
        return feature_E, self.fires_FN.indices.astype(np.int64)


class Halves:
    """Both halves of an analysis, by blocks of features.

    Args:
        state: what the pass kept.
        reading: the text.
        vocabulary: V; the text need not reach its last tokens.
    """

    def __init__(self, state: FeatureState, reading: Reading, vocabulary: int) -> None:
        self._state, self._reading = state, reading
        self._tokens_V = np.zeros(vocabulary, np.int64)
        self._tokens_V[: len(state.token_count_V)] = state.token_count_V
        sample = state.sample
        length = reading.context_length
        place_N = sample.sequence_N.astype(np.int64) * length + sample.position_N
        score_N = reading.score_M[place_N]
        count_N = np.diff(sample.offset_N)
        features = int(state.facts["features"])
        self._rows: list[tuple[npt.NDArray[np.int64], scipy.sparse.csr_matrix]] = []
        for half in (~score_N, score_N):
            rows_E = (np.cumsum(half) - 1).repeat(count_N)
            kept_E = half.repeat(count_N)
            entry = (np.ones(int(kept_E.sum()), np.int8), (sample.feature_E[kept_E], rows_E[kept_E]))
            fires = scipy.sparse.coo_matrix(entry, shape=(features, int(half.sum()))).tocsr()
            self._rows.append((place_N[half], fires))

    def block(self, start: int, stop: int) -> tuple[Evidence, Evidence]:
        """Evidence to make rules from, and to score them on, for features ``start`` to ``stop`` (exclusive)."""
        count_F = self._state.features["sample_count"][start:stop].astype(np.int64)
        sample = self._state.features["sample"][start:stop]
        held = np.arange(sample.shape[1]) < count_F[:, None]
        feature_n, _ = np.nonzero(held)
        drawn = sample[held]
        place_n = drawn["sequence"].astype(np.int64) * self._reading.context_length + drawn["position"]
        score_n = self._reading.score_M[place_n]
        return self._half(0, ~score_n, feature_n, place_n, start, stop), self._half(
            1, score_n, feature_n, place_n, start, stop
        )

    def _half(
        self,
        which: int,
        half_n: npt.NDArray[np.bool_],
        feature_n: npt.NDArray[np.int64],
        place_n: npt.NDArray[np.int64],
        start: int,
        stop: int,
    ) -> Evidence:
        place_N, fires = self._rows[which]
        fires_FN = fires[start:stop]
        firings_F = self._state.features["firings"][start:stop].astype(np.int64)
        return Evidence(
            reading=self._reading,
            feature_n=feature_n[half_n],
            place_n=place_n[half_n],
            count_F=np.bincount(feature_n[half_n], minlength=stop - start),
            place_N=place_N,
            fires_FN=fires_FN,
            silent_F=len(place_N) - np.diff(fires_FN.indptr),
            firings_F=firings_F,
            rest_F=self._state.rows - firings_F,
            tokens_V=self._tokens_V,
        )
