"""Topic rules: words that are among the last tokens when a feature fires, and hardly elsewhere.

Shapes: F features of a block, V vocabulary, N rows of the coded sample in the fit half, n windows of sampled firings, W = 8 words.

Words are weighted by TF-IDF: (share of the feature's windows with the word) x log(1 / share of all windows with it). A word must be in the
windows of three documents, and more often than chance by ``LEAST_Z`` standard errors. The 1, 2, 3, 5 or 8 heaviest make the rule, by F1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neuronmap.interpretation.hints.candidates import COSTS, EXTRA_COST, Found
from neuronmap.interpretation.hints.evidence import Evidence, distinct
from neuronmap.interpretation.hints.matching import covering_rows
from neuronmap.interpretation.hints.rules import TOPIC_WINDOW, Rule
from neuronmap.interpretation.hints.scoring import precision_and_f1
from neuronmap.interpretation.hints.traits import TokenTraits

__all__ = ["TOPIC_BELOW", "find_topics", "window_shares"]

TOPIC_BELOW = 0.6
"""Topics are looked for where no other rule reaches this F1 on the fit half."""
SIZES = (1, 2, 3, 5, 8)
MOST_WINDOWS = 64
"""Windows of a feature that words are taken from."""
MOST_COMMON = 0.1
"""Words that are in more than this share of all windows are no topic."""
LEAST_DOCUMENTS = 3
LEAST_Z = 5.0

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def window_shares(evidence: Evidence, traits: TokenTraits) -> Floats:
    """float64 [V]: share of the half's sampled rows with the token in the window; 1 for what is no word of three letters."""
    code = _in_windows(evidence, evidence.place_N, traits.word_V)
    count_V = np.bincount(code % traits.size, minlength=traits.size)
    # a token is in the windows of at least its own rows, and one that is in none of them (it stood at masked places only) in one: this
    # keeps words that the sample lacks from being free
    rows_V = np.maximum(evidence.tokens_V, 1) / max(evidence.tokens_V.sum(), 1)
    share_V = np.maximum(count_V / max(len(evidence.place_N), 1), rows_V)
    return np.where(traits.word_V, share_V, 1.0)


def _in_windows(evidence: Evidence, places: Ints, use_V: npt.NDArray[np.bool_]) -> Ints:
    """window * V + token of the different usable tokens of the windows that end at some places, ascending."""
    codes = []
    for offset in range(1 - TOPIC_WINDOW, 1):
        token = evidence.reading.token(places, offset)
        good = np.flatnonzero((token >= 0) & use_V[token])
        codes.append(good * len(use_V) + token[good])
    return distinct(np.concatenate(codes))


def find_topics(evidence: Evidence, traits: TokenTraits, wanted_F: npt.NDArray[np.bool_], share_V: Floats) -> Found:
    """The best topic rule of the wanted features.

    Args:
        evidence: the fit half of a block of features.
        traits: traits of the vocabulary.
        wanted_F: for which features to look.
        share_V: what :func:`window_shares` gave.
    """
    start_F = np.cumsum(evidence.count_F) - evidence.count_F
    rank_n = np.arange(len(evidence.feature_n)) - start_F[evidence.feature_n]
    window = np.flatnonzero(wanted_F[evidence.feature_n] & (rank_n < MOST_WINDOWS))
    windows_F = np.minimum(evidence.count_F, MOST_WINDOWS)
    code = _in_windows(evidence, evidence.place_n[window], share_V <= MOST_COMMON)
    of_window, token = np.divmod(code, traits.size)
    pair_of_code = evidence.feature_n[window[of_window]] * traits.size + token
    pair, inverse, count = np.unique(pair_of_code, return_inverse=True, return_counts=True)
    feature, word = np.divmod(pair, traits.size)
    unit = evidence.reading.unit_M[evidence.place_n[window[of_window]]]
    seen = distinct(inverse.astype(np.int64) * evidence.reading.units + unit)
    documents = np.bincount(seen // evidence.reading.units, minlength=len(pair))
    n, share = windows_F[feature], share_V[word]
    z = (count / n - share) / np.sqrt(share * (1 - share) / n)
    weight = np.where((documents >= LEAST_DOCUMENTS) & (z >= LEAST_Z), count / n * np.log(1 / share), 0.0)
    order = np.lexsort((word, -weight, feature))
    rank = np.empty(len(pair), np.int64)
    first_F = np.searchsorted(feature, np.arange(evidence.features))
    rank[order] = np.arange(len(pair)) - first_F[feature[order]]
    chosen = (weight > 0) & (rank < SIZES[-1])
    least_rank = np.full(len(window), SIZES[-1])
    in_rule = chosen[inverse]
    np.minimum.at(least_rank, of_window[in_rule], rank[inverse[in_rule]])
    f1_SF = _f1_by_size(evidence, feature[chosen], word[chosen], rank[chosen], window, least_rank)
    words_F = np.bincount(feature[chosen], minlength=evidence.features)
    net_SF = f1_SF - EXTRA_COST * (np.minimum(np.array(SIZES)[:, None], words_F) - 1)
    which_F = net_SF.argmax(0)
    f1_F = np.where(words_F > 0, f1_SF[which_F, np.arange(evidence.features)], 0.0)
    size_F = np.minimum(np.array(SIZES)[which_F], words_F)

    def rule(f: int) -> Rule:
        mine = order[first_F[f] : first_F[f] + size_F[f]]
        return Rule("topic", tokens=tuple(word[mine].tolist()))

    return Found(f1_F, COSTS["topic"] + EXTRA_COST * np.maximum(size_F - 1, 0), rule)


def _f1_by_size(evidence: Evidence, feature: Ints, word: Ints, rank: Ints, window: Ints, least_rank: Ints) -> Floats:
    """F1 of the first 1, 2, 3, 5, 8 words of each feature, float64 [sizes, F]."""
    false_SF = np.zeros((len(SIZES), evidence.features))
    most = SIZES[-1]
    if len(feature):
        # one bit a word, the heaviest highest: the sum of a row's bits tells its heaviest word
        for start, stop, called in covering_rows(feature, word, 1 << (most - 1 - rank), evidence):
            right = called.multiply(evidence.fires_FN[start:stop]).tocsr()
            for place, size in enumerate(SIZES):
                least = 1 << (most - size)
                false_SF[place, start:stop] = _count(called, least) - _count(right, least)
    found_SF = np.zeros((len(SIZES), evidence.features))
    taken_F = np.bincount(evidence.feature_n[window], minlength=evidence.features)
    for place, size in enumerate(SIZES):
        hits_F = np.bincount(evidence.feature_n[window[least_rank < size]], minlength=evidence.features)
        found_SF[place] = hits_F / np.maximum(taken_F, 1)
    false_rate_SF = false_SF / np.maximum(evidence.silent_F, 1)
    return np.nan_to_num(precision_and_f1(found_SF, false_rate_SF, evidence.firings_F, evidence.rest_F)[1], nan=0.0)


def _count(matrix: object, least: int) -> Ints:
    """Entries of each row of a CSR matrix of at least a value."""
    total = np.concatenate([[0], np.cumsum(matrix.data >= least)])  # type: ignore[attr-defined]
    counts: Ints = np.diff(total[matrix.indptr])  # type: ignore[attr-defined]
    return counts
