"""Which examples a feature shows: strongest contexts, groups of equally many firings, and places where it is silent.

Top examples are those of the state, in their order.

Quantile examples: a feature's firings are cut into G groups of equally many (edges from the histogram), group 0 the weakest. First come
the firings that were drawn uniformly, in the order of their hashes: the first k of a group are a fair sample of it. A group that they do
not fill is filled up from the reservoir's bins: an entry kept in a bin with n firings of which m are kept stands for n / m firings, and
these entries are ordered by
-log(u) / (n / m), u a number in (0, 1) drawn for each firing: an exponential race, which gives a sample without replacement with
probabilities in proportion to what an entry stands for (Efraimidis and Spirakis 2006), so a bin of which a large part is kept is not
shown too often. u is drawn apart from the hash that the reservoir kept the entry for: those are small by choice. Of entries of one
context only the first of the race is used.

Bin examples: one more from each occupied reservoir bin, the first by u, of contexts that are not shown yet; their group is the bin of the
histogram that the firing is in.

Negatives come from the coded sample, where every firing is known. Random: a row drawn from a context, used if the feature is silent in
the whole window around it; at most one a context. Hard: rows whose token is one of the feature's most frequent tokens and on which it
does not fire, tokens in turn; at most one a context; the feature may fire elsewhere in the window, and that is recorded. Features that
never fired get none; features with few silent places get fewer.

Shapes: F features of one chunk, n examples, N rows and E entries of the coded sample, Q sampled contexts of T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from neuronmap.features.collect.layout import RESERVOIR_BINS, bin_of, draw
from neuronmap.features.collect.state import CodedSample
from neuronmap.features.config import AnalysisConfig
from neuronmap.features.storage.schema import EXAMPLE_KINDS
from neuronmap.features.summary.distributions import histogram_quantiles
from neuronmap.features.summary.ragged import Ragged, ranges

__all__ = [
    "CodedFirings",
    "Examples",
    "bin_examples",
    "hard_negatives",
    "merged",
    "quantile_examples",
    "random_negatives",
    "top_examples",
]

# draws of their own, apart from those of the pass: the seed is far from any seed that a user gives
_RACE, _CONTEXTS, _ROWS, _TOKENS, _ORDER = ((number << 40) for number in range(1, 6))
_RANDOM_TRIES = 32  # contexts tried for each random negative wanted
_HARD_TRIES = 16  # rows of a token tried for each hard negative wanted


@dataclass(frozen=True)
class Examples:
    """Examples in the order of ``examples.parquet`` (schema "examples").

    Attributes:
        feature: int32 [n].
        kind: int8 [n], index into :data:`neuronmap.features.storage.schema.EXAMPLE_KINDS`.
        group: int8 [n].
        rank: int16 [n].
        sequence: uint32 [n].
        position: uint16 [n].
        activation: float32 [n].
        firings: lists of offset (int8, from the position) and value (float32).
    """

    feature: npt.NDArray[np.int32]
    kind: npt.NDArray[np.int8]
    group: npt.NDArray[np.int8]
    rank: npt.NDArray[np.int16]
    sequence: npt.NDArray[np.uint32]
    position: npt.NDArray[np.uint16]
    activation: npt.NDArray[np.float32]
    firings: Ragged

    def __len__(self) -> int:
        return len(self.feature)


def merged(parts: list[Examples]) -> Examples:
    """All examples, by feature, kind, group, rank."""
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("feature", "kind", "group", "rank", "sequence", "position", "activation")
    }
    size = np.concatenate([np.diff(part.firings.offset) for part in parts])
    offset = np.concatenate([[0], np.cumsum(size)])
    firings = Ragged(
        offset, {name: np.concatenate([part.firings[name] for part in parts]) for name in ("offset", "value")}
    )
    order = np.lexsort([columns[name] for name in ("rank", "group", "kind", "feature")])
    return Examples(**{name: column[order] for name, column in columns.items()}, firings=firings.take(order))


def top_examples(features: dict[str, npt.NDArray[Any]], first: int, config: AnalysisConfig, unit: float) -> Examples:
    """The strongest contexts of some features.

    Args:
        features: arrays of a state, cut to the features.
        first: number of the first of them.
        config: the settings of the state.
        unit: of the state.
    """
    count_F = features["top_count"].astype(np.int64)
    owner = np.repeat(np.arange(len(count_F)), count_F)
    rank = ranges(np.zeros_like(count_F), count_F)
    return _kept(features["top"][owner, rank], owner + first, "top", np.zeros(len(owner)), rank, config, unit)


def quantile_examples(
    features: dict[str, npt.NDArray[Any]], first: int, config: AnalysisConfig, unit: float
) -> Examples:
    """Examples from each group of equally many firings; arguments as of :func:`top_examples`.

    Returns:
        Up to ``quantile_examples`` a group, those drawn uniformly before those of the race.
    """
    groups = config.quantiles
    shares = [group / groups for group in range(1, groups)]
    edges_FG = histogram_quantiles(features["histogram"], features["max"], unit, shares)
    bin_owner, place, bin_entry, drawn = _reservoirs(features, first, config)
    firings_FR = features["histogram"].astype(np.int64).reshape(len(edges_FG), -1, 2).sum(axis=2)
    stands_for = firings_FR[bin_owner, place] / features["bin_count"][bin_owner, place]
    count_F = features["drawn_count"].astype(np.int64)
    own = np.repeat(np.arange(len(count_F)), count_F)
    uniform = features["drawn"][own, ranges(np.zeros_like(count_F), count_F)]
    owner, entry = np.concatenate([own, bin_owner]), np.concatenate([uniform, bin_entry])
    # hashes are below 2**32: those drawn uniformly come first
    race = np.concatenate([uniform["order"].astype(np.float64), 2.0**32 - np.log(drawn) / stands_for])
    group = (entry["value"][:, None] > edges_FG[owner]).sum(axis=1)
    order = np.lexsort((entry["position"], entry["sequence"], race, owner))
    order = order[_first_of_context(owner[order], entry["sequence"][order])]
    order = order[np.lexsort((np.arange(len(order)), group[order], owner[order]))]
    lane = owner[order] * groups + group[order]
    rank = np.arange(len(order)) - np.searchsorted(lane, lane)
    use = rank < config.quantile_examples
    order, rank = order[use], rank[use]
    return _kept(entry[order], owner[order] + first, "quantile", group[order], rank, config, unit)


def bin_examples(
    features: dict[str, npt.NDArray[Any]], first: int, config: AnalysisConfig, unit: float, shown: list[Examples]
) -> Examples:
    """One more example from each reservoir bin that has one of a context not shown yet.

    Args:
        features, first, config, unit: as of :func:`top_examples`.
        shown: examples of these features whose contexts are left out.
    """
    owner, place, entry, drawn = _reservoirs(features, first, config)
    taken = np.concatenate([_context_key(part.feature - first, part.sequence) for part in shown])
    by_draw = np.lexsort((entry["position"], entry["sequence"], -drawn, owner))
    chosen = []
    for reservoir in range(
        RESERVOIR_BINS
    ):  # one after the other: a context that one bin shows is not shown by the next
        here = by_draw[place[by_draw] == reservoir]
        here = here[~np.isin(_context_key(owner[here], entry["sequence"][here]), taken)]
        here = here[np.unique(owner[here], return_index=True)[1]]
        taken = np.concatenate([taken, _context_key(owner[here], entry["sequence"][here])])
        chosen.append(here)
    order = np.concatenate(chosen)
    order = order[np.lexsort((place[order], owner[order]))]
    group = bin_of((entry["value"][order] / unit).astype(np.float32))
    return _kept(entry[order], owner[order] + first, "bin", group, np.zeros_like(group), config, unit)


def _reservoirs(
    features: dict[str, npt.NDArray[Any]], first: int, config: AnalysisConfig
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Every kept entry: its feature (from 0), its reservoir bin, the entry, and u."""
    kept_FR = features["bin_count"].astype(np.int64)
    owner, place = np.nonzero(kept_FR)
    size = kept_FR[owner, place]
    owner, place = np.repeat(owner, size), np.repeat(place, size)
    entry = features["bins"][owner, place, ranges(np.zeros_like(size), size)]
    drawn = draw(config.seed + _RACE, owner + first, entry["sequence"], entry["position"])
    return owner, place, entry, (drawn + 0.5) / 2.0**32


def _context_key(owner: npt.NDArray[np.integer], sequence: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    return owner.astype(np.int64) << 32 | sequence.astype(np.int64)


def _first_of_context(owner: npt.NDArray[np.integer], sequence: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Indices, ascending, of the first entry of each (owner, sequence)."""
    return np.sort(np.unique(_context_key(owner, sequence), return_index=True)[1])


def _kept(
    entry_n: npt.NDArray[np.void],
    feature_n: npt.NDArray[np.integer],
    kind: str,
    group_n: npt.NDArray[Any],
    rank_n: npt.NDArray[np.integer],
    config: AnalysisConfig,
    unit: float,
) -> Examples:
    window_nW = entry_n["window"]
    owner, place = np.nonzero(window_nW)
    offset = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(entry_n)))]).astype(np.int64)
    value = window_nW[owner, place].astype(np.float32) * np.float32(unit)
    firings = Ragged(offset, {"offset": (place - config.before).astype(np.int8), "value": value})
    return Examples(
        feature_n.astype(np.int32),
        np.full(len(entry_n), EXAMPLE_KINDS.index(kind), np.int8),
        group_n.astype(np.int8),
        rank_n.astype(np.int16),
        entry_n["sequence"].astype(np.uint32),
        entry_n["position"].astype(np.uint16),
        entry_n["value"].astype(np.float32),
        firings,
    )


class CodedFirings:
    """The coded sample by feature: where each one fires, to look up in O(log E).

    Args:
        sample: the coded sample.
        token_N: token of each row.
        features: F of the whole dictionary.
        context_length: T.
        config: the settings.
        unit: of the state.
    """

    def __init__(
        self,
        sample: CodedSample,
        token_N: npt.NDArray[np.integer],
        features: int,
        context_length: int,
        config: AnalysisConfig,
        unit: float,
    ) -> None:
        self.config, self.sample, self._length, self._unit = config, sample, context_length, unit
        sequence_N = sample.sequence_N
        new_N = np.ones(len(sequence_N), bool)
        new_N[1:] = sequence_N[1:] != sequence_N[:-1]
        self.first_Q = np.flatnonzero(new_N)
        self.count_Q = np.diff(self.first_Q, append=len(sequence_N))
        self.context_N = np.cumsum(new_N) - 1
        self._span = len(self.first_Q) * context_length
        place_N = self.context_N * context_length + sample.position_N.astype(np.int64)
        entries = (np.arange(len(sample.feature_E)), sample.feature_E, sample.offset_N)
        shape = (len(sequence_N), features)
        by_feature = scipy.sparse.csr_array(entries, shape=shape).tocsc()
        feature_E = np.repeat(np.arange(features, dtype=np.int64), np.diff(by_feature.indptr))
        self._key_E = feature_E * self._span + place_N[by_feature.indices]  # ascending
        self._value_E = sample.value_E[by_feature.data]
        # rows by token, in an order drawn for each row
        drawn_N = draw(config.seed + _ORDER, 0, sequence_N, sample.position_N)
        self.rows_by_token = np.lexsort((drawn_N, token_N))
        self._sorted_token_N = token_N[self.rows_by_token]

    def __len__(self) -> int:
        return len(self.first_Q)

    def rows_of(self, token_n: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where the rows of tokens begin in ``rows_by_token``, and how many there are."""
        low = np.searchsorted(self._sorted_token_N, token_n, side="left")
        return low, np.searchsorted(self._sorted_token_N, token_n, side="right") - low

    def between(
        self, feature_n: npt.NDArray[np.integer], row_n: npt.NDArray[np.int64], before: int, after: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Range of entries in which a feature fires around rows, from ``before`` places ahead to ``after`` behind."""
        position_n = self.sample.position_N[row_n].astype(np.int64)
        begin_n = feature_n.astype(np.int64) * self._span + self.context_N[row_n] * self._length
        low = np.searchsorted(self._key_E, begin_n + np.maximum(position_n - before, 0), side="left")
        last_n = begin_n + np.minimum(position_n + after, self._length - 1)
        return low, np.searchsorted(self._key_E, last_n, side="right")

    def examples(self, feature_n: npt.NDArray[np.integer], row_n: npt.NDArray[np.int64], kind: str) -> Examples:
        """Rows as examples without activation, ranked by their order; whatever fires in the window is recorded."""
        low, high = self.between(feature_n, row_n, self.config.before, self.config.after)
        inside = ranges(low, high - low)
        position_n = self.sample.position_N[row_n]
        centre = feature_n.astype(np.int64) * self._span + self.context_N[row_n] * self._length + position_n
        places = self._key_E[inside] - np.repeat(centre, high - low)
        value = self._value_E[inside].astype(np.float32) * np.float32(self._unit)
        firings = Ragged(
            np.concatenate([[0], np.cumsum(high - low)]), {"offset": places.astype(np.int8), "value": value}
        )
        num = len(row_n)
        return Examples(
            feature_n.astype(np.int32),
            np.full(num, EXAMPLE_KINDS.index(kind), np.int8),
            np.zeros(num, np.int8),
            (np.arange(num) - np.searchsorted(feature_n, feature_n)).astype(np.int16),
            self.sample.sequence_N[row_n],
            position_n,
            np.zeros(num, np.float32),
            firings,
        )


def random_negatives(coded: CodedFirings, feature_n: npt.NDArray[np.integer]) -> Examples:
    """Rows around which features are silent in the whole window.

    Args:
        coded: the sample by feature.
        feature_n: features that fire somewhere, ascending.

    Returns:
        Up to ``negatives`` a feature, each of another context.
    """
    want, contexts, seed = coded.config.negatives, len(coded), coded.config.seed
    row_nK = np.full((len(feature_n), want), -1, np.int64)
    found_n = np.zeros(len(feature_n), np.int64)
    active = np.arange(len(feature_n)) if want and contexts else np.zeros(0, np.int64)
    # a walk over all contexts, each met once: start and step are drawn, the step has no divisor in common with Q
    steps = np.flatnonzero(np.gcd(np.arange(1, contexts + 1), contexts) == 1) + 1
    start_n = draw(seed + _CONTEXTS, feature_n, 0, 0).astype(np.int64)
    step_n = (
        steps[draw(seed + _CONTEXTS, feature_n, 0, 1).astype(np.int64) % max(len(steps), 1)] if contexts else start_n
    )
    for attempt in range(min(contexts, _RANDOM_TRIES * want)):
        if not len(active):
            break
        feature = feature_n[active]
        context = (start_n[active] + attempt * step_n[active]) % contexts
        drawn = draw(seed + _ROWS, feature, context, 0).astype(np.int64)
        row = coded.first_Q[context] + drawn % coded.count_Q[context]
        low, high = coded.between(feature, row, coded.config.before, coded.config.after)
        silent = low == high
        good = active[silent]
        row_nK[good, found_n[good]] = row[silent]
        found_n[good] += 1
        active = active[found_n[active] < want]
    return _negatives(coded, feature_n, row_nK, found_n, "random")


def hard_negatives(
    coded: CodedFirings, feature_n: npt.NDArray[np.integer], frequent_nK: npt.NDArray[np.int32]
) -> Examples:
    """Rows of a feature's own frequent tokens on which it does not fire.

    Args:
        coded: the sample by feature.
        feature_n: features, ascending.
        frequent_nK: tokens of each, most frequent first; -1 for none.

    Returns:
        Up to ``negatives`` a feature, each of another context.
    """
    want, tokens, seed = coded.config.negatives, frequent_nK.shape[1], coded.config.seed
    row_nK = np.full((len(feature_n), want), -1, np.int64)
    context_nK = np.full((len(feature_n), want), -1, np.int64)
    found_n = np.zeros(len(feature_n), np.int64)
    low_nK, size_nK = coded.rows_of(frequent_nK)
    size_nK = np.where(frequent_nK < 0, 0, size_nK)
    most_n = size_nK.max(axis=1, initial=0)
    start_nK = draw(seed + _TOKENS, feature_n[:, None], np.maximum(frequent_nK, 0), 0).astype(np.int64)
    active = np.flatnonzero(most_n > 0) if want else np.zeros(0, np.int64)
    for attempt in range(_HARD_TRIES * want * tokens):
        turn, slot = divmod(attempt, tokens)
        if slot == 0:
            active = active[most_n[active] > turn]
        if not len(active):
            break
        there = active[size_nK[active, slot] > turn]
        size = size_nK[there, slot]
        row = coded.rows_by_token[low_nK[there, slot] + (start_nK[there, slot] + turn) % size]
        low, high = coded.between(feature_n[there], row, 0, 0)
        context = coded.context_N[row]
        good = (low == high) & (context_nK[there] != context[:, None]).all(axis=1)
        at = there[good]
        row_nK[at, found_n[at]] = row[good]
        context_nK[at, found_n[at]] = context[good]
        found_n[at] += 1
        active = active[found_n[active] < want]
    return _negatives(coded, feature_n, row_nK, found_n, "hard")


def _negatives(
    coded: CodedFirings,
    feature_n: npt.NDArray[np.integer],
    row_nK: npt.NDArray[np.int64],
    found_n: npt.NDArray[np.int64],
    kind: str,
) -> Examples:
    owner = np.repeat(np.arange(len(feature_n)), found_n)
    return coded.examples(feature_n[owner], row_nK[owner, ranges(np.zeros_like(found_n), found_n)], kind)
