"""Which tokens a feature fires on, and which stand before and after: counts, share, lift and z, from its sampled firings.

Lift is P(token | firing) / P(token), with P(token) over all rows. Lift alone is largest for rare tokens that happened to be hit once;
lists are therefore ordered by z, the log-odds ratio with an informative Dirichlet prior over its standard deviation (Monroe, Colaresi
and Quinn 2008, "Fightin' Words", Political Analysis 16, equations 16, 20 and 22). For token w, hit y times in n sampled firings and c
times in N rows, with the prior a = A c / N, as if A more firings had been drawn from the text at large:

    delta = log((y + a) / (n + A - y - a)) - log((c + a) / (N + A - c - a))
    z = delta / sqrt(1 / (y + a) + 1 / (c + a))

A is ``PRIOR_MASS``. For the tokens before and after, c and N count the tokens before and after all rows.

Shapes: F features of one chunk, S sampled firings, V vocabulary, R runs: different (feature, token).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from neuronmap.features.summary.contexts import StoredContexts
from neuronmap.features.summary.distributions import wilson
from neuronmap.features.summary.ragged import Ragged, best_of_each, lists_of

__all__ = ["FREQUENT", "PRIOR_MASS", "TokenPairs", "TokenStatistics", "log_odds_z", "token_statistics"]

PRIOR_MASS = 1000.0
"""A: firings that the prior counts as."""
FREQUENT = 5
"""Tokens that hard negatives are taken from: the most frequent of the sample, with at least a tenth of the first one's count."""
_COLUMN_BITS = 12  # a sample has at most 4096 firings
_NONE = np.int64(1) << 40  # sorts after every token


@dataclass(frozen=True)
class TokenPairs:
    """Every (feature, token) of the sampled firings, by feature, then token.

    Attributes:
        feature: int32 [R], numbered from the first of the chunk.
        token: int32 [R].
        count: int32 [R], sampled firings.
        total: float64 [R], sum of their values.
        share: float64 [R], of the feature's sampled firings (for the tokens around: of those that have such a token).
        lift: float64 [R].
        z: float64 [R].
    """

    feature: npt.NDArray[np.int32]
    token: npt.NDArray[np.int32]
    count: npt.NDArray[np.int32]
    total: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]
    lift: npt.NDArray[np.float64]
    z: npt.NDArray[np.float64]

    def take(self, index: npt.NDArray[np.int64], first: int = 0) -> TokenPairs:
        """Some of the pairs, with ``first`` added to the numbers of the features."""
        feature = self.feature[index] + np.int32(first)
        rest = (getattr(self, name)[index] for name in ("token", "count", "total", "share", "lift", "z"))
        return TokenPairs(feature, *rest)


@dataclass(frozen=True)
class TokenStatistics:
    """What the sampled firings of some features say about tokens.

    Attributes:
        sampled_F: int32, firings in the sample.
        contexts_F, documents_F: int32, different contexts and documents among them.
        top_token_F: int32, the most frequent token (the lowest id of equals), -1 without firings.
        top_share_F, top_low_F, top_high_F: float64, its share of the firings and Wilson's interval.
        entropy_F: float64, bits, of the tokens of the sampled firings; NaN without.
        frequent_FK: int32 [F, FREQUENT], most frequent tokens; -1 for none.
        on, before, after: lists by z descending of token, count, share, lift, z.
        pairs: all pairs of feature (numbered from the first of the chunk) and token.
    """

    sampled_F: npt.NDArray[np.int32]
    contexts_F: npt.NDArray[np.int32]
    documents_F: npt.NDArray[np.int32]
    top_token_F: npt.NDArray[np.int32]
    top_share_F: npt.NDArray[np.float64]
    top_low_F: npt.NDArray[np.float64]
    top_high_F: npt.NDArray[np.float64]
    entropy_F: npt.NDArray[np.float64]
    frequent_FK: npt.NDArray[np.int32]
    on: Ragged
    before: Ragged
    after: Ragged
    pairs: TokenPairs


def log_odds_z(
    hits: npt.ArrayLike, firings: npt.ArrayLike, count: npt.ArrayLike, rows: float
) -> npt.NDArray[np.float64]:
    """z of the log-odds ratio with an informative prior; formula and source in the module's docstring.

    Args:
        hits: y, sampled firings on the token.
        firings: n, sampled firings.
        count: c, rows with the token.
        rows: N, all rows.

    Returns:
        float64; 0 where the text is nothing but this token.
    """
    y, n, c = (np.asarray(part, np.float64) for part in (hits, firings, count))
    prior = PRIOR_MASS * c / rows
    rest_there, rest_all = n + PRIOR_MASS - y - prior, rows + PRIOR_MASS - c - prior
    only = (rest_there <= 0) | (rest_all <= 0)
    delta = np.log((y + prior) / np.where(only, 1.0, rest_there)) - np.log((c + prior) / np.where(only, 1.0, rest_all))
    z: npt.NDArray[np.float64] = np.where(only, 0.0, delta / np.sqrt(1.0 / (y + prior) + 1.0 / (c + prior)))
    return z


def token_statistics(
    sample_FS: npt.NDArray[np.void], sampled_F: npt.NDArray[np.integer], contexts: StoredContexts, limit: int
) -> TokenStatistics:
    """Token statistics of some features.

    Args:
        sample_FS: sampled firings, dtype :data:`neuronmap.features.collect.layout.SAMPLE`.
        sampled_F: how many of each row are used.
        contexts: the stored text.
        limit: entries of each list.

    Returns:
        Statistics; lists hold only tokens that were hit.
    """
    used_FS = np.arange(sample_FS.shape[1]) < sampled_F[:, None]
    sequence_FS = sample_FS["sequence"].astype(np.int64)
    position_FS = sample_FS["position"].astype(np.int64)
    here_FS = np.where(used_FS, contexts.token(sequence_FS, position_FS), -1)
    pairs = _pairs(here_FS, contexts.around[1], np.where(used_FS, sample_FS["value"], 0.0))
    frequent_FK, count_FK = _frequent(pairs, len(sampled_F))
    top_F = np.maximum(count_FK[:, 0], 0)
    low_F, high_F = wilson(top_F, sampled_F)
    fires_F = sampled_F > 0
    entropy_F = np.bincount(pairs.feature, weights=-pairs.share * np.log2(pairs.share), minlength=len(sampled_F))
    lists = [_list(pairs, len(sampled_F), limit)]
    for place, offset in ((0, -1), (2, 1)):
        there_FS = np.where(used_FS, contexts.token(sequence_FS, position_FS, offset), -1)
        lists.append(_list(_pairs(there_FS, contexts.around[place]), len(sampled_F), limit))
    document_FS = np.where(used_FS, contexts.document(sequence_FS, position_FS), -1)
    return TokenStatistics(
        sampled_F=sampled_F.astype(np.int32),
        contexts_F=_distinct(np.where(used_FS, sequence_FS, -1)),
        documents_F=_distinct(document_FS),
        top_token_F=frequent_FK[:, 0],
        top_share_F=np.where(fires_F, top_F / np.maximum(sampled_F, 1), np.nan),
        top_low_F=np.where(fires_F, low_F, np.nan),
        top_high_F=np.where(fires_F, high_F, np.nan),
        # an entropy of one token is -0.0
        entropy_F=np.where(fires_F, np.abs(entropy_F), np.nan),
        frequent_FK=frequent_FK,
        on=lists[0],
        before=lists[1],
        after=lists[2],
        pairs=pairs,
    )


def _pairs(
    token_FS: npt.NDArray[np.integer], count_V: npt.NDArray[np.int64], value_FS: npt.NDArray[Any] | None = None
) -> TokenPairs:
    """Runs of equal tokens in each row; -1 is no token. Without values the sums are zero."""
    num, size = token_FS.shape
    # one sort of whole numbers: the token above, the column below
    key_FS = np.where(token_FS < 0, _NONE, token_FS).astype(np.int64) << _COLUMN_BITS
    key_FS |= np.arange(size)
    key_FS.sort(axis=1)
    sorted_FS = key_FS >> _COLUMN_BITS
    there_FS = sorted_FS < _NONE
    new_FS = there_FS.copy()
    new_FS[:, 1:] &= sorted_FS[:, 1:] != sorted_FS[:, :-1]
    start_R = np.flatnonzero(new_FS)
    feature_R = start_R // size
    end_R = np.append(start_R[1:], num * size)
    end_R = np.minimum(end_R, feature_R * size + there_FS.sum(axis=1)[feature_R])
    total_R = np.zeros(len(start_R))
    if value_FS is not None and len(start_R):
        column_FS = key_FS & ((1 << _COLUMN_BITS) - 1)
        value = np.take_along_axis(value_FS, column_FS, axis=1).astype(np.float64)
        total_R = np.add.reduceat(value.ravel(), start_R)  # unused places hold 0
    token_R = sorted_FS.ravel()[start_R].astype(np.int32)
    hits_R, firings_R = end_R - start_R, there_FS.sum(axis=1)[feature_R]
    # a token that was hit is in the text
    rows_R, rows = np.maximum(count_V[token_R], 1), float(max(count_V.sum(), 1))
    share_R = hits_R / firings_R
    return TokenPairs(
        feature=feature_R.astype(np.int32),
        token=token_R,
        count=hits_R.astype(np.int32),
        total=total_R,
        share=share_R,
        lift=share_R / (rows_R / rows),
        z=log_odds_z(hits_R, firings_R, rows_R, rows),
    )


def _frequent(pairs: TokenPairs, features: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Most frequent tokens of each feature and their counts, [F, FREQUENT], -1 for none."""
    token_FK = np.full((features, FREQUENT), -1, np.int32)
    count_FK = np.full((features, FREQUENT), -1, np.int32)
    best = best_of_each(pairs.feature, pairs.count.astype(np.float64), FREQUENT)
    owner = pairs.feature[best]
    rank = np.arange(len(best)) - np.searchsorted(owner, owner)
    count_FK[owner, rank] = pairs.count[best]
    token_FK[owner, rank] = pairs.token[best]
    token_FK[count_FK * 10 < count_FK[:, :1]] = -1
    return token_FK, count_FK


def _list(pairs: TokenPairs, features: int, limit: int) -> Ragged:
    """The lists of one role: tokens by z."""
    best = best_of_each(pairs.feature, pairs.z, limit)
    columns: dict[str, npt.NDArray[Any]] = {"token": pairs.token[best], "count": pairs.count[best]}
    columns |= {name: getattr(pairs, name)[best].astype(np.float32) for name in ("share", "lift", "z")}
    return lists_of(pairs.feature[best], features, columns)


def _distinct(value_FS: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """int32 [F]: different numbers in each row, negative ones left out."""
    sorted_FS = np.sort(value_FS, axis=1)
    new_FS = sorted_FS >= 0
    new_FS[:, 1:] &= sorted_FS[:, 1:] != sorted_FS[:, :-1]
    count_F: npt.NDArray[np.int32] = new_FS.sum(axis=1).astype(np.int32)
    return count_F
