"""The examples that a label is made from, and those it is scored on: never of the same document.

| set | what |
| --- | --- |
| explain | 10 strongest contexts, 2 from each fifth of the firings, 5 hard negatives (its own tokens without firing) |
| score | 5 from each fifth of the firings, 10 random places, 10 hard negatives |

Half of the hard negatives to score on are the feature's own tokens without firing, half are places where a neighbour fires and the
feature does not.

A fifth is that of the strongest firing in the window, since that is what a judge sees. Positives of the score set are those drawn
uniformly first; a fifth that they do not fill takes firings kept by strength, then strongest contexts. Every negative is silent in its
whole window. Whether a feature is silent where its neighbour fires is in no analysis: it is read anew from the language model
(:class:`Activations`), as are random places where the analysis has too few; without that reading these are missing, and said to be.

Shapes: T tokens of a context, W of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from neuronmap.features.storage.store import Example, FeatureStore
from neuronmap.features.summary.distributions import histogram_quantiles
from neuronmap.interpretation.explaining.halves import Half, Halves

__all__ = ["Activations", "ExplainSet", "ScoreSet", "Shown", "explain_set", "score_sets"]

FIFTHS = 5
TOP, FROM_EACH_FIFTH, HARD = 10, 2, 5
POSITIVES, RANDOM, HARD_EACH, SPARE = 5, 10, 5, 5
LEAST_EXPLAIN, LEAST_POSITIVES, LEAST_NEGATIVES = 3, 5, 5
"""Fewer examples than these say nothing: no label is made, or no score."""
_LEAST_TOKENS = 4
_NEIGHBOURS, _OF_NEIGHBOUR = 8, 8
_NEIGHBOURS_READ, _RANDOM_READ, _TRIES = 14, 3, 16
"""Contexts read for a feature: at most so many where neighbours fire, and so many for each random place that is missing."""


class Activations(Protocol):
    """Reads activations from the language model again (:class:`neuronmap.hub.explaining.LiveActivations`)."""

    def read(self, wanted: Sequence[tuple[int, int]]) -> list[npt.NDArray[np.float32]]:
        """float32 [T] for each (feature, context): the activations, 0 at positions that were masked."""
        ...


@dataclass(frozen=True, eq=False)
class Shown:
    """One example as explainers and judges see it: a window of one document.

    Attributes:
        example: the window, cut at the document's ends.
        group: ``top``, ``quantile-0`` (the weakest fifth) to ``quantile-4``, ``random``, ``hard-token`` or ``hard-neighbour``.
        tokens: (text, activation) of what is shown; special tokens are left out, and a character is in one piece.
    """

    example: Example
    group: str
    tokens: tuple[tuple[str, float], ...]

    @property
    def active(self) -> bool:
        """Whether the feature fires in the window."""
        return bool(self.example.activations.any())

    @property
    def peak(self) -> float:
        """Largest activation of the window."""
        return float(self.example.activations.max(initial=0.0))

    @property
    def text(self) -> str:
        """The window's text."""
        return "".join(text for text, _ in self.tokens)

    @property
    def place(self) -> tuple[int, int]:
        """Context, and position of the peak (of negatives: of the place that was drawn)."""
        return self.example.sequence, self.example.position


@dataclass(frozen=True)
class ExplainSet:
    """What a label is made from.

    Attributes:
        feature: its number.
        top, quantiles: where it fires, the strongest first.
        negatives: where it is silent.
        missing: what there is less of than the protocol wants, in words.
    """

    feature: int
    top: tuple[Shown, ...]
    quantiles: tuple[Shown, ...]
    negatives: tuple[Shown, ...]
    missing: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """Why no label can be made; empty if one can."""
        number = len(self.top) + len(self.quantiles)
        if number >= LEAST_EXPLAIN:
            return ""
        return f"it fires in {number} windows of the half that labels are made from; {LEAST_EXPLAIN} are needed"


@dataclass(frozen=True)
class ScoreSet:
    """What a label is scored on.

    Attributes:
        feature: its number.
        positives: where it fires, by fifth.
        negatives: where it is silent in the whole window.
        spare: further windows where it fires, for marks in the wrong place.
        missing: what there is less of than the protocol wants, in words.
    """

    feature: int
    positives: tuple[Shown, ...]
    negatives: tuple[Shown, ...]
    spare: tuple[Shown, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """Why no score can be given; empty if one can."""
        if len(self.positives) < LEAST_POSITIVES:
            return f"it fires in {len(self.positives)} windows of the half that labels are scored on; {LEAST_POSITIVES} are needed"
        if len(self.negatives) < LEAST_NEGATIVES:
            return f"only {len(self.negatives)} windows without firing are known; {LEAST_NEGATIVES} are needed"
        return ""


def explain_set(store: FeatureStore, feature: int, halves: Halves) -> ExplainSet:
    """The examples that a label of a feature is made from.

    Raises:
        InputError: there is no such feature.
    """
    pool = _Pool(store, feature, halves, "explain")
    top = pool.take("top", TOP)
    quantiles = [one for fifth in range(FIFTHS) for one in pool.fifth(fifth, FROM_EACH_FIFTH, ("quantile", "bin"))]
    hard = pool.silent("hard", HARD, "hard-token")
    silent = hard + pool.silent("random", HARD - len(hard), "random")
    missing = [
        *_less("strongest contexts", len(top), TOP),
        *_less("examples by quantile", len(quantiles), FROM_EACH_FIFTH * FIFTHS),
        *_less("hard negatives", len(hard), HARD),
    ]
    order = sorted(quantiles, key=lambda one: -one.peak)
    return ExplainSet(feature, tuple(top), tuple(order), tuple(silent), tuple(missing))


def score_sets(
    store: FeatureStore, features: Sequence[int], halves: Halves, reader: Activations | None = None, seed: int = 0
) -> list[ScoreSet]:
    """The examples that labels of features are scored on; many features at once, so that the model is run once for all.

    Args:
        store: the analysis.
        features: their numbers.
        halves: of the store.
        reader: reads where neighbours fire; None: such negatives are missing.
        seed: of random places.

    Raises:
        InputError: there is no such feature.
    """
    pools = [_Pool(store, feature, halves, "score") for feature in features]
    wanted: list[tuple[int, int]] = []
    if reader is not None:
        for pool in pools:
            pool.look_for(seed)
        wanted = list(dict.fromkeys((pool.feature, one.sequence) for pool in pools for one in pool.unread))
    found = dict(zip(wanted, reader.read(wanted), strict=True)) if reader is not None and wanted else {}
    return [_scored_on(pool, found, reader is not None) for pool in pools]


def _scored_on(pool: _Pool, found: dict[tuple[int, int], npt.NDArray[np.float32]], read: bool) -> ScoreSet:
    positives = [one for fifth in range(FIFTHS) for one in pool.fifth(fifth, POSITIVES, ("quantile", "bin", "top"))]
    token = pool.silent("hard", HARD_EACH, "hard-token")
    neighbour = pool.read_silent(found, "hard-neighbour", 2 * HARD_EACH - len(token))
    if len(neighbour) < HARD_EACH:
        token += pool.silent("hard", 2 * HARD_EACH - len(token) - len(neighbour), "hard-token")
    random = pool.silent("random", RANDOM, "random")
    random += pool.read_silent(found, "random", RANDOM - len(random))
    spare = [one for fifth in range(FIFTHS) for one in pool.fifth(fifth, 1, ("quantile", "bin", "top"))]
    missing = [
        *_less("windows where it fires", len(positives), POSITIVES * FIFTHS),
        *_less("random places", len(random), RANDOM),
        *_less("hard negatives", len(token) + len(neighbour), 2 * HARD_EACH),
        *([] if read else ["no negatives where neighbours fire: the language model was not read"]),
    ]
    return ScoreSet(pool.feature, tuple(positives), (*random, *token, *neighbour), tuple(spare[:SPARE]), tuple(missing))


def _less(what: str, there: int, wanted: int) -> list[str]:
    return [f"{there} of {wanted} {what}"] if there < wanted else []


@dataclass(eq=False)
class _Pool:
    """The examples of one feature in one half; each context is used once."""

    store: FeatureStore
    feature: int
    halves: Halves
    half: Half
    used: set[int] = field(default_factory=set)
    unread: list[Example] = field(default_factory=list)

    def __post_init__(self) -> None:
        found = [self._cut(one) for one in self.store.examples(self.feature)]
        self.examples = [one for one in found if one is not None]
        details = self.store.feature(self.feature)
        histogram = np.array([details.details["histogram"] or [0] * 64], np.int64)
        largest = np.array([details.row["max"] or 0.0], np.float32)
        shares = [group / FIFTHS for group in range(1, FIFTHS)]
        self.edges = histogram_quantiles(histogram, largest, float(self.store.manifest["unit"]), shares)[0]

    def take(self, kind: str, number: int) -> list[Shown]:
        """Where it fires, of a kind, in the order of the analysis."""
        return self._first((one for one in self.examples if one.kind == kind and one.activations.any()), number, kind)

    def fifth(self, fifth: int, number: int, kinds: Iterable[str]) -> list[Shown]:
        """Where the window's strongest firing is in a fifth of all firings."""
        fitting = [
            one
            for kind in kinds
            for one in self.examples
            if one.kind == kind and one.activations.any() and self._fifth_of(one) == fifth
        ]
        return self._first(fitting, number, f"quantile-{fifth}")

    def silent(self, kind: str, number: int, group: str) -> list[Shown]:
        """Where the analysis knows that it is silent in the whole window."""
        return self._first(
            (one for one in self.examples if one.kind == kind and not one.activations.any()), number, group
        )

    def read_silent(
        self, found: dict[tuple[int, int], npt.NDArray[np.float32]], group: str, number: int
    ) -> list[Shown]:
        """Where reading it again says that it is silent in the whole window."""
        fitting = []
        for one in self.unread:
            activations_T = found.get((self.feature, one.sequence))
            here = slice(one.start, one.start + len(one.token_ids))
            if one.kind == group and activations_T is not None and not activations_T[here].any():
                fitting.append(one)
        return self._first(fitting, number, group)

    def look_for(self, seed: int) -> None:
        """Places to be read: where neighbours fire, and at random."""
        details = self.store.feature(self.feature).details
        near = [
            entry["feature"] for name in ("neighbours", "coactive") for entry in (details[name] or [])[:_NEIGHBOURS]
        ]
        known = {one.sequence for one in self.examples}
        fires = [
            [one for one in map(self._cut, self.store.examples(other, "top")) if one is not None]
            for other in dict.fromkeys(near)
        ]
        by_rank = [some[rank] for rank in range(_OF_NEIGHBOUR) for some in fires if rank < len(some)]
        for one in by_rank:
            if len(self.unread) < _NEIGHBOURS_READ and one.sequence not in known:
                known.add(one.sequence)
                silent = np.zeros_like(one.activations)  # the neighbour's are not its own
                self.unread.append(
                    replace(one, feature=self.feature, kind="hard-neighbour", activation=0.0, activations=silent)
                )
        drawn = np.random.default_rng([seed, self.feature])
        short = RANDOM - sum(one.kind == "random" and not one.activations.any() for one in self.examples)
        most = len(self.unread) + max(short, 0) * _RANDOM_READ
        for _ in range(_TRIES * max(short, 0)):
            if len(self.unread) >= most:
                break
            sequence, position = (
                int(drawn.integers(self.store.num_contexts)),
                int(drawn.integers(self.store.context_length)),
            )
            if sequence in known or not self.store.kept(sequence)[position]:
                continue
            if (place := self._cut(self._window(sequence, position))) is not None:
                known.add(sequence)
                self.unread.append(place)

    def _window(self, sequence: int, position: int) -> Example:
        config = self.store.config
        start = max(0, position - config.before)
        ids = self.store.context(sequence)[start : position + config.after + 1]
        silent = np.zeros(len(ids), np.float32)
        return Example(self.feature, "random", 0, 0, sequence, position, 0.0, start, ids, silent, self.store)

    def _cut(self, one: Example) -> Example | None:
        """The part of a window that is of the peak's document; None if that is in the other half, or too short."""
        if self.halves.half(one.sequence, one.position) != self.half:
            return None
        begin, after = self.halves.document_span(one.sequence, one.position)
        first, stop = max(begin - one.start, 0), min(after - one.start, len(one.token_ids))
        if stop - first < _LEAST_TOKENS:
            return None
        return replace(
            one, start=one.start + first, token_ids=one.token_ids[first:stop], activations=one.activations[first:stop]
        )

    def _first(self, fitting: Iterable[Example], number: int, group: str) -> list[Shown]:
        found: list[Shown] = []
        for one in fitting:
            if len(found) >= number:
                break
            if one.sequence in self.used:
                continue
            tokens = _tokens(one)
            if not any(text.strip() for text, _ in tokens):
                continue
            self.used.add(one.sequence)
            found.append(Shown(one, group, tokens))
        return found

    def _fifth_of(self, one: Example) -> int:
        return int((one.activations.max() > self.edges).sum())


def _tokens(one: Example) -> tuple[tuple[str, float], ...]:
    values: Any = one.activations
    return tuple(
        (piece.text, float(max(values[piece.start : piece.stop], default=0.0)))
        for piece in one.pieces()
        if not piece.special
    )
