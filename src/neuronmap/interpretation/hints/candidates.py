"""Candidate rules: for each feature the best of each kind, made from the half of the documents that is not scored.

Shapes: F features of a block, N rows and n sampled firings of the fit half, P traits, E edges of position ranges.

Each is chosen by F1 on the fit half less a cost for what makes it longer or stranger (``COSTS``), so that of two rules that do as well the
simpler one wins. F1 is the estimate of :mod:`neuronmap.interpretation.hints.scoring`.

Rules that list things that exclude each other (tokens, previous tokens, n-grams, endings): F1 is largest for some number of the things
in order of precision, so all prefixes of that order are tried. A token's precision is shrunk towards what its exact count in the whole
pass implies, with the weight of ``PRIOR_ROWS`` rows: an informative prior, so that rare tokens do not win by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse

from neuronmap.interpretation.hints.evidence import Evidence, distinct
from neuronmap.interpretation.hints.matching import keys_of
from neuronmap.interpretation.hints.rules import Kind, Rule
from neuronmap.interpretation.hints.scoring import precision_and_f1
from neuronmap.interpretation.hints.traits import ENDING_LENGTHS, TRAITS, TokenTraits

__all__ = ["COSTS", "EXTRA_COST", "LONGEST_NGRAM", "Found", "best", "find_rules"]

COSTS: dict[str, float] = {
    "always": 0.0,
    "tokens": 0.0,
    "trait": 0.003,
    "position": 0.01,
    "endings": 0.01,
    "previous": 0.01,
    "ngrams": 0.005,  # for each token
    "topic": 0.02,
    "next": 0.03,
}
"""F1 that a rule of a kind must be better by than one that costs nothing."""
EXTRA_COST = 0.002
"""F1 that each thing listed after the first must add; c sampled firings on it count as c - 2 / c."""
LONGEST_NGRAM = 4
LIST_LENGTH = 32
"""Most things that a rule lists; of endings 3, since more of them would describe no kind of word."""
ENDINGS_LISTED = 3
LEAST_SHARE = 0.01
"""Share of a feature's sampled firings that a thing must have to be listed; at least two firings."""
PRIOR_ROWS = 10.0
DENSE = 0.1
"""Density above which "always" is a candidate."""
ENDING_WORDS = 3
"""Different tokens among the firings that an ending must be seen on."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """The best rule of one kind for each feature: its F1 on the fit half (0: none), its cost, and how to get it."""

    f1_F: Floats
    cost_F: Floats
    rule: Callable[[int], Rule]


def best(found: list[Found]) -> tuple[Floats, list[Rule | None]]:
    """The candidate with the highest F1 less cost of each feature: that F1 and the rule; the first of equals."""
    net_KF = np.stack([np.where(item.f1_F > 0, item.f1_F - item.cost_F, -1.0) for item in found])
    which_F = net_KF.argmax(0)
    features = np.arange(net_KF.shape[1])
    f1_F = np.stack([item.f1_F for item in found])[which_F, features]
    rules = [found[k].rule(f) if net_KF[k, f] > 0 else None for f, k in enumerate(which_F)]
    return np.where(net_KF[which_F, features] > 0, f1_F, 0.0), rules


def find_rules(evidence: Evidence, traits: TokenTraits, promoted_FN: npt.NDArray[np.integer] | None) -> list[Found]:
    """Every kind of rule but topics, which are looked for where these do not do well (:mod:`neuronmap.interpretation.hints.topics`).

    Args:
        evidence: the fit half of a block of features.
        traits: traits of the vocabulary.
        promoted_FN: tokens with the largest direct logits of the block's features, for rules of kind ``next``; None: not tried.
    """
    found = [_listing(evidence, traits, "tokens"), _always(evidence), _traits(evidence), _positions(evidence)]
    found += [_listing(evidence, traits, "endings", length) for length in reversed(ENDING_LENGTHS)]
    found += [_listing(evidence, traits, "previous")]
    found += [_listing(evidence, traits, "ngrams", length) for length in range(2, LONGEST_NGRAM + 1)]
    if promoted_FN is not None:
        found.append(_listing(evidence, traits, "next", promoted_FN=promoted_FN))
    return found


def _f1(evidence: Evidence, feature: Ints | slice, found: Floats, false: Floats) -> Floats:
    """F1 from the share found of sampled firings and the silent rows of the sample called firing; 0 where not defined."""
    rest, silent = evidence.rest_F[feature], np.maximum(evidence.silent_F[feature], 1)
    shape = (-1,) + (1,) * (found.ndim - 1)
    f1 = precision_and_f1(
        found, false / silent.reshape(shape), evidence.firings_F[feature].reshape(shape), rest.reshape(shape)
    )[1]
    return np.nan_to_num(f1, nan=0.0)


def _always(evidence: Evidence) -> Found:
    share = evidence.firings_F / np.maximum(evidence.firings_F + evidence.rest_F, 1)
    f1_F = np.where((share > DENSE) & (evidence.count_F > 0), 2 * share / (1 + share), 0.0)
    return Found(f1_F, np.full(len(f1_F), COSTS["always"]), lambda _: Rule("always"))


def _shares(
    evidence: Evidence, holds_n: npt.NDArray[np.float32], holds_N: npt.NDArray[np.float32]
) -> tuple[Floats, Floats]:
    """Of columns that hold or not at places: share of each feature's sampled firings, and silent sampled rows, both [F, columns]."""
    start = np.concatenate([[0], np.cumsum(evidence.count_F)])
    ones = np.ones(len(evidence.place_n), np.float32)
    own_Fn = scipy.sparse.csr_matrix((ones, np.arange(len(ones)), start), shape=(evidence.features, len(ones)))
    found = (own_Fn @ holds_n) / np.maximum(evidence.count_F, 1)[:, None]
    false = holds_N.sum(0, dtype=np.float64) - evidence.fires_FN.astype(np.float32) @ holds_N
    return found.astype(np.float64), np.asarray(false, np.float64)


def _traits(evidence: Evidence) -> Found:
    bits = np.arange(len(TRAITS), dtype=np.uint64)

    def unpacked(places: Ints) -> npt.NDArray[np.float32]:
        return (evidence.reading.mask_M[places][:, None] >> bits & np.uint64(1)).astype(np.float32)

    found, false = _shares(evidence, unpacked(evidence.place_n), unpacked(evidence.place_N))
    f1_FP = _f1(evidence, slice(None), found, false)
    which_F = f1_FP.argmax(1)
    f1_F = f1_FP.max(1) if f1_FP.size else np.zeros(evidence.features)
    return Found(f1_F, np.full(len(f1_F), COSTS["trait"]), lambda f: Rule("trait", trait=TRAITS[which_F[f]].name))


def _positions(evidence: Evidence) -> Found:
    length = evidence.reading.context_length
    edges_E = sorted({*range(min(5, length)), *(round(2 ** (k / 2)) for k in range(4, 40)), length})
    edges_E = [edge for edge in edges_E if edge <= length]

    def columns(places: Ints) -> npt.NDArray[np.float32]:
        place = np.searchsorted(edges_E, evidence.reading.position(places), side="right") - 1
        inside: npt.NDArray[np.bool_] = place[:, None] == np.arange(len(edges_E) - 1)
        return inside.astype(np.float32)

    found, false = _shares(evidence, columns(evidence.place_n), columns(evidence.place_N))
    first, last = np.triu_indices(len(edges_E), 1)
    # narrower first, for of equals the first wins; the last is the whole context, which is no place
    narrow = np.argsort(last - first, kind="stable")[: max(len(first) - 1, 1)]
    first, last = first[narrow], last[narrow]

    def ranges(values: Floats) -> Floats:
        total = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
        inside: Floats = total[:, last] - total[:, first]
        return inside

    f1_FR = _f1(evidence, slice(None), ranges(found), ranges(false))
    which_F = f1_FR.argmax(1)
    cost_F = np.full(evidence.features, COSTS["position"])
    return Found(
        f1_FR.max(1),
        cost_F,
        lambda f: Rule("position", start=edges_E[first[which_F[f]]], stop=edges_E[last[which_F[f]]]),
    )


# --- rules that list things ------------------------------------------------------------------------------------------


def _listing(
    evidence: Evidence,
    traits: TokenTraits,
    kind: Kind,
    length: int = 0,
    promoted_FN: npt.NDArray[np.integer] | None = None,
) -> Found:
    key_n = keys_of(kind, evidence.reading, traits, evidence.place_n, length)
    known_n = np.flatnonzero(key_n >= 0)
    keys, first, inverse = np.unique(key_n[known_n], return_index=True, return_inverse=True)
    size = max(len(keys), 1)
    pair, count = np.unique(evidence.feature_n[known_n] * size + inverse, return_counts=True)
    least_F = np.maximum(2, LEAST_SHARE * evidence.count_F)
    kept = count >= least_F[pair // size]
    if promoted_FN is not None:
        kept &= (promoted_FN[pair // size] == keys[pair % size][:, None]).any(1)
    pair, count = pair[kept], count[kept]
    feature, key = np.divmod(pair, size)
    example = evidence.place_n[known_n[first[key]]] if len(pair) else np.zeros(0, np.int64)
    if kind == "endings":
        varied = _words_seen(evidence, known_n, inverse, pair, size) >= ENDING_WORDS
        pair, count, feature, key, example = (part[varied] for part in (pair, count, feature, key, example))
    rows_K, fired = _on_rows(
        evidence, keys_of(kind, evidence.reading, traits, evidence.place_N, length), keys, pair, size
    )
    false = rows_K[key] - fired
    # discounted: that a rare thing was seen is why it is listed, which the other half need not repeat (2 firings count as 1)
    share = (count - 2 / count) / np.maximum(evidence.count_F[feature], 1)
    true = share * evidence.firings_F[feature]
    scale = evidence.rest_F[feature] / np.maximum(evidence.silent_F[feature], 1)
    if kind == "tokens":
        exact = evidence.tokens_V[keys[key]].astype(np.float64)
        prior = np.clip(1 - true / np.maximum(exact, 1), 0, 1)
        false_all = (false + PRIOR_ROWS * prior) / (rows_K[key] + PRIOR_ROWS) * exact
    else:
        false_all = (false + 0.5) * scale
        if kind == "ngrams":
            false_all = np.minimum(false_all, evidence.tokens_V[evidence.reading.ids_M[example]])
    first_cost = COSTS[kind] * (length if kind == "ngrams" else 1)
    longest = ENDINGS_LISTED if kind == "endings" else LIST_LENGTH
    chosen = _prefixes(feature, true, false_all, evidence, first_cost, longest)

    def rule(f: int) -> Rule:
        mine = chosen.order[chosen.start_F[f] : chosen.start_F[f] + chosen.length_F[f]]
        mine = mine[np.argsort(-count[mine], kind="stable")]  # what it fires on most comes first
        listed = keys[key[mine]].tolist()
        if kind == "ngrams":
            ids, place = evidence.reading.ids_M, example[mine]
            return Rule(kind, ngrams=tuple(tuple(ids[p - length + 1 : p + 1].tolist()) for p in place))
        if kind == "endings":
            return Rule(kind, endings=tuple(traits.endings[ending] for ending in listed))
        return Rule(kind, tokens=tuple(listed))

    return Found(chosen.f1_F, first_cost + EXTRA_COST * np.maximum(chosen.length_F - 1, 0), rule)


def _words_seen(evidence: Evidence, known_n: Ints, inverse: Ints, pair: Ints, size: int) -> Ints:
    """Different tokens of each (feature, key) pair among the sampled firings."""
    token = evidence.reading.ids_M[evidence.place_n[known_n]].astype(np.int64)
    tokens = len(evidence.tokens_V)
    seen = distinct((evidence.feature_n[known_n] * size + inverse) * tokens + token) // tokens
    at = np.searchsorted(seen, pair)
    result: Ints = np.searchsorted(seen, pair, side="right") - at
    return result


def _on_rows(evidence: Evidence, key_N: Ints, keys: Ints, pair: Ints, size: int) -> tuple[Ints, Ints]:
    """Sampled rows with each key, and those of them on which the feature of each (feature, key) pair fires."""
    if not len(pair):
        return np.zeros(size, np.int64), np.zeros(0, np.int64)
    place_N = np.searchsorted(keys, key_N)
    place_N[place_N == len(keys)] = 0
    wanted_K = np.zeros(size, bool)
    wanted_K[pair % size] = True
    known_N = (keys[place_N] == key_N) & wanted_K[place_N]
    rows_K = np.bincount(place_N[known_N], minlength=size)
    feature_E, row_E = evidence.entries()
    kept_E = known_N[row_E]
    code_E = feature_E[kept_E] * size + place_N[row_E[kept_E]]
    at_E = np.searchsorted(pair, code_E)
    at_E[at_E == len(pair)] = 0
    fired = np.bincount(at_E[pair[at_E] == code_E], minlength=len(pair))
    return rows_K, fired


@dataclass(frozen=True)
class _Chosen:
    """Of things in order of (feature, precision descending): how many of each feature's are listed, and the F1 they reach."""

    order: Ints
    start_F: Ints
    length_F: Ints
    f1_F: Floats


def _prefixes(
    feature: Ints, true: Floats, false: Floats, evidence: Evidence, first_cost: float, longest: int
) -> _Chosen:
    count_F = np.bincount(feature, minlength=evidence.features)
    start_F = np.cumsum(count_F) - count_F
    precision = true / np.maximum(true + false, 1e-30)
    order = np.lexsort((-true, -precision, feature))
    feature, true, false = feature[order], true[order], false[order]

    def running(values: Floats) -> Floats:
        total = np.concatenate([[0.0], np.cumsum(values)])
        summed: Floats = total[1:] - total[start_F][feature]
        return summed

    rank = np.arange(len(order)) - start_F[feature]
    true, false = running(true), running(false)
    f1 = 2 * true / np.maximum(evidence.firings_F[feature] + true + false, 1e-30)
    net = np.where(rank < longest, f1 - first_cost - EXTRA_COST * rank, -np.inf)
    length_F, f1_F = np.zeros(evidence.features, np.int64), np.zeros(evidence.features)
    some = np.flatnonzero(count_F)
    if len(some):
        top = np.maximum.reduceat(net, start_F[some]).repeat(count_F[some])
        winner = np.flatnonzero(net == top)
        _, at = np.unique(feature[winner], return_index=True)
        length_F[some], f1_F[some] = rank[winner[at]] + 1, f1[winner[at]]
    return _Chosen(order, start_F, length_F, f1_F)
