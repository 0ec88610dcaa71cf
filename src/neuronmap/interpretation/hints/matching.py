"""Which places the rules of many features match: the same answers as ``Rule.predict``, for a whole block of features at once.

Shapes: F features of a block, N rows of the coded sample in one half, n sampled firings of the block in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse

from neuronmap.interpretation.hints.evidence import Evidence, distinct
from neuronmap.interpretation.hints.reading import Reading, ngram_key
from neuronmap.interpretation.hints.rules import TOPIC_WINDOW, Rule
from neuronmap.interpretation.hints.traits import ENDING_LENGTHS, TokenTraits, trait_index

__all__ = ["Matches", "covering_rows", "keys_of", "match"]

_MOST_CALLED = 20_000_000
"""Called rows that are held at once."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """What some rules, one a feature, say of one half's evidence.

    Attributes:
        found_n: bool, whether the rule of its feature finds each sampled firing.
        called: yields (start, stop, CSR [stop - start, N]): the rows that the rules of those features call firing, with the number
            of reasons (words of a topic).
    """

    found_n: npt.NDArray[np.bool_]
    called: Callable[[], Iterator[tuple[int, int, scipy.sparse.csr_matrix]]]


def keys_of(kind: str, reading: Reading, traits: TokenTraits, places: Ints, length: int = 0) -> Ints:
    """What rules of a kind that lists things compare: one int64 a place, -1 for nothing. ``length`` is of n-grams and endings."""
    if kind == "tokens":
        return reading.token(places)
    if kind == "previous":
        return reading.token(places, -1)
    if kind == "next":
        return reading.token(places, 1)
    if kind == "ngrams":
        return reading.ngram(places, length)
    endings: Ints = traits.ending_VL[reading.ids_M[places], ENDING_LENGTHS.index(length)].astype(np.int64)
    return endings


def match(rules: Sequence[Rule | None], evidence: Evidence, traits: TokenTraits) -> Matches:
    """Evaluate one rule a feature (None matches nowhere) on a half."""
    found_n = np.zeros(len(evidence.place_n), bool)
    lists: list[_RowLists] = []
    listed: dict[tuple[str, int], list[tuple[int, int]]] = {}
    plain: dict[Rule, list[int]] = {}
    topics: list[tuple[int, int]] = []
    for feature, rule in enumerate(rules):
        if rule is None:
            continue
        if rule.kind in ("trait", "position", "always"):
            plain.setdefault(rule, []).append(feature)
        elif rule.kind == "topic":
            topics += [(feature, token) for token in rule.tokens]
        else:
            for length, key in _listed_keys(rule, traits):
                listed.setdefault((rule.kind, length), []).append((feature, key))
    for (kind, length), pairs in listed.items():
        pair = _Pairs(pairs, evidence.features)
        found_n |= pair.hold(evidence.feature_n, keys_of(kind, evidence.reading, traits, evidence.place_n, length))
        lists.append(pair.rows(keys_of(kind, evidence.reading, traits, evidence.place_N, length)))
    if topics:
        found, rows = _topics(topics, evidence)
        found_n |= found
        lists.append(rows)
    for rule, features in plain.items():
        of_rule = np.zeros(evidence.features, bool)
        of_rule[features] = True
        mine_n = of_rule[evidence.feature_n]
        found_n[mine_n] = _plain(rule, evidence.reading, evidence.place_n[mine_n])
        called = np.flatnonzero(_plain(rule, evidence.reading, evidence.place_N)).astype(np.int64)
        lists.append(
            _RowLists(
                np.array(features), np.zeros(len(features), np.int64), np.full(len(features), len(called)), called
            )
        )
    return Matches(found_n, lambda: _called(lists, evidence.features, len(evidence.place_N)))


def _plain(rule: Rule, reading: Reading, places: Ints) -> npt.NDArray[np.bool_]:
    if rule.kind == "trait":
        return (reading.mask_M[places] >> np.uint64(trait_index(rule.trait)) & np.uint64(1)) > 0
    if rule.kind == "position":
        position = reading.position(places)
        return (position >= rule.start) & (position < rule.stop)
    return np.ones(len(places), bool)


def _listed_keys(rule: Rule, traits: TokenTraits) -> list[tuple[int, int]]:
    """(length, key) of each thing that a rule lists."""
    if rule.kind == "ngrams":
        return [(len(ngram), int(ngram_key(ngram)[0])) for ngram in rule.ngrams]
    if rule.kind == "endings":
        return [(len(ending), traits.endings.index(ending)) for ending in rule.endings]
    return [(0, token) for token in rule.tokens]


@dataclass(frozen=True)
class _RowLists:
    """Features with slices of a list of rows: ``rows[first : first + count]`` belongs to ``feature``; slices may overlap."""

    feature: Ints
    first: Ints
    count: Ints
    rows: Ints
    weight: Ints | None = None  # of each slice; None: 1

    def of(self, start: int, stop: int) -> tuple[Ints, Ints, Ints]:
        """(feature, row, weight) of every row of features ``start`` to ``stop``."""
        mine = (self.feature >= start) & (self.feature < stop)
        count = self.count[mine]
        begin = np.cumsum(count) - count
        index = np.arange(int(count.sum())) + (self.first[mine] - begin).repeat(count)
        weight = np.ones(len(count), np.int64) if self.weight is None else self.weight[mine]
        return self.feature[mine].repeat(count), self.rows[index], weight.repeat(count)


class _Pairs:
    """(feature, key) pairs that can be looked up."""

    def __init__(self, pairs: Sequence[tuple[int, int]] | Ints, features: int) -> None:
        table = np.asarray(pairs, np.int64).reshape(-1, 2)
        self.feature, self.key = table[:, 0], table[:, 1]
        self.keys, place = np.unique(self.key, return_inverse=True)
        self._codes = distinct(place * features + self.feature)
        self._features = features

    def place(self, key: Ints) -> Ints:
        """Number of each key among ``keys``, -1 for others."""
        place = np.searchsorted(self.keys, key)
        place[place == len(self.keys)] = 0
        return np.where(self.keys[place] == key, place, -1)

    def hold(self, feature: Ints, key: Ints) -> npt.NDArray[np.bool_]:
        """Whether (feature, key) is one of the pairs."""
        place = self.place(key)
        code = place * self._features + feature
        at = np.searchsorted(self._codes, code)
        at[at == len(self._codes)] = 0
        held: npt.NDArray[np.bool_] = (place >= 0) & (self._codes[at] == code)
        return held

    def rows(self, key_N: Ints) -> _RowLists:
        """The rows with each pair's key."""
        place_N = self.place(key_N)
        known = np.flatnonzero(place_N >= 0)
        return self.lists(place_N[known], known)

    def lists(self, place: Ints, row: Ints, weight: Ints | None = None) -> _RowLists:
        """From rows and the number among ``keys`` of what each of them has."""
        count = np.bincount(place, minlength=len(self.keys))
        own = self.place(self.key)
        return _RowLists(
            self.feature, (np.cumsum(count) - count)[own], count[own], row[np.argsort(place, kind="stable")], weight
        )


def covering_rows(
    feature: Ints, token: Ints, weight: Ints, evidence: Evidence
) -> Iterator[tuple[int, int, scipy.sparse.csr_matrix]]:
    """As ``Matches.called``, of rows with the features' tokens in their topic window: the sum of the weights of those tokens."""
    pair = _Pairs(np.stack([feature, token], 1), evidence.features)
    return _called([_windows(pair, evidence, weight)], evidence.features, len(evidence.place_N))


def _windows(pair: _Pairs, evidence: Evidence, weight: Ints | None = None) -> _RowLists:
    codes = []
    for offset in range(1 - TOPIC_WINDOW, 1):
        place_N = pair.place(evidence.reading.token(evidence.place_N, offset))
        rows = np.flatnonzero(place_N >= 0)
        codes.append(place_N[rows] * len(evidence.place_N) + rows)
    place, row = np.divmod(distinct(np.concatenate(codes)), len(evidence.place_N))
    return pair.lists(place, row, weight)


def _topics(pairs: Sequence[tuple[int, int]], evidence: Evidence) -> tuple[npt.NDArray[np.bool_], _RowLists]:
    pair = _Pairs(pairs, evidence.features)
    mine = np.flatnonzero(np.isin(evidence.feature_n, pair.feature))
    found_n = np.zeros(len(evidence.place_n), bool)
    for offset in range(1 - TOPIC_WINDOW, 1):
        found_n[mine] |= pair.hold(evidence.feature_n[mine], evidence.reading.token(evidence.place_n[mine], offset))
    return found_n, _windows(pair, evidence)


def _called(lists: Sequence[_RowLists], features: int, rows: int) -> Iterator[tuple[int, int, scipy.sparse.csr_matrix]]:
    size_F = np.zeros(features, np.int64)
    for item in lists:
        np.add.at(size_F, item.feature, item.count)
    start = 0
    while start < features:
        total = np.cumsum(size_F[start:])
        stop = start + max(1, int(np.searchsorted(total, _MOST_CALLED, side="right")))
        parts = [item.of(start, stop) for item in lists] or [(np.zeros(0, np.int64),) * 3]
        feature, row, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
        entries = (weight.astype(np.int32), (feature - start, row))
        yield start, stop, scipy.sparse.coo_matrix(entries, shape=(stop - start, rows)).tocsr()  # adds up what is twice
        start = stop
