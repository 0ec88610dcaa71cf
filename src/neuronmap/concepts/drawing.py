"""How built-in concepts are made: frames of words that are filled once for every class.

A frame is a sentence with everything chosen but the contrast; it is written once for each class (and for each level of
the nuisances that are crossed inside it), so label, nuisances and words are balanced by construction. Every condition
gets the same number of frames in every split. Each list of content words is cut into three parts, one for each split, and
entries of a part are used in turn, so that few items still have many lemmas. Texts end at the word that is read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from neuronmap.concepts.checks import FEWEST_ITEMS, checked
from neuronmap.concepts.items import SPLITS, ConceptData, Item, Split
from neuronmap.concepts.words import closed
from neuronmap.errors import ConfigError

__all__ = ["SHARES", "Draft", "Plan", "Supply", "fill"]

SHARES: dict[Split, float] = {"train": 0.6, "calibration": 0.15, "test": 0.25}
"""Shares of the items, and of every list of content words."""

_TRIES = 200


class _Entry(Protocol):
    @property
    def lemma(self) -> str: ...


EntryT = TypeVar("EntryT", bound=_Entry)
T = TypeVar("T")


@dataclass(frozen=True)
class Draft:
    """One text of a frame; it is read at its last word.

    Attributes:
        text: words with single spaces.
        label: the class.
        cluster: the lemma that is drawn as a whole.
        pair: drafts of one frame with the same value here make a pair.
        factors: levels of the nuisances, without the crossed one.
    """

    text: str
    label: str
    cluster: str
    pair: str = ""
    factors: Mapping[str, str] = field(default_factory=dict)


class Supply:
    """The words of one split, each list in turn.

    Args:
        stream: concepts with the same stream and the same frames get the same sentences.
        split: which part of every list of content words is used.
        seed: of the order and of the cut into splits.
    """

    def __init__(self, stream: str, split: Split, seed: int) -> None:
        self.split = split
        self.seed = seed
        self._rng = random.Random(f"{stream}:{split}:{seed}")
        self._turns: dict[str, Iterator[object]] = {}

    def lemma(self, role: str, entries: Sequence[EntryT], *, apart: Sequence[EntryT] = ()) -> EntryT:
        """The next content word of this split for a role in the sentence; never one of ``apart``."""
        if role not in self._turns:
            self._turns[role] = self._endless(_part(entries, self.split, self.seed))
        while True:
            entry: EntryT = next(self._turns[role])  # type: ignore[assignment] # one role, one list
            if entry not in apart:
                return entry

    def word(self, name: str) -> str:
        """The next word of a closed list; all splits share these."""
        return self.option(name, closed(name))

    def option(self, role: str, options: Sequence[T]) -> T:
        """The next one of a few options."""
        if role not in self._turns:
            self._turns[role] = self._endless(options)
        return next(self._turns[role])  # type: ignore[return-value] # one role, one list

    def _endless(self, entries: Sequence[object]) -> Iterator[object]:
        """Entries in random order, all of them before any comes again."""
        while True:
            yield from self._rng.sample(entries, len(entries))


def _part(entries: Sequence[EntryT], split: Split, seed: int) -> list[EntryT]:
    """This split's part of a list; parts are disjoint and together the whole."""
    order = list(entries)
    random.Random(f"{seed}:{' '.join(entry.lemma for entry in entries)}").shuffle(order)
    train = round(len(order) * SHARES["train"])
    calibration = max(2, round(len(order) * SHARES["calibration"]))
    return {
        "train": order[:train],
        "calibration": order[train : train + calibration],
        "test": order[train + calibration :],
    }[split]


@dataclass(frozen=True)
class Plan:
    """What a built-in concept is generated from.

    Attributes:
        name: the concept's name.
        classes: labels in order.
        crossed: the factor whose levels are the conditions.
        conditions: its levels.
        frame_items: texts a frame gives.
        frame: (words, condition) -> the texts of one frame.
        stream: concepts that share it get the same sentences.
    """

    name: str
    classes: tuple[str, ...]
    crossed: str
    conditions: tuple[str, ...]
    frame_items: int
    frame: Callable[[Supply, str], list[Draft]]
    stream: str

    def __call__(self, items: int, seed: int) -> ConceptData:
        """About ``items`` items: whole frames, as many of every condition, at least one in every split."""
        return fill(self, items, seed)


def fill(plan: Plan, items: int, seed: int) -> ConceptData:
    """Data of a plan; the same arguments give the same items.

    Raises:
        ConfigError: for fewer than 16 items, or for more than the word lists give.
    """
    if items < FEWEST_ITEMS:
        raise ConfigError(f"items = {items}: at least {FEWEST_ITEMS} are needed.")
    made: list[Item] = []
    seen: set[str] = set()
    for split in SPLITS:
        supply = Supply(plan.stream, split, seed)
        rounds = max(1, round(items * SHARES[split] / (plan.frame_items * len(plan.conditions))))
        for number in range(rounds):
            for condition in plan.conditions:
                drafts = _unseen(plan, supply, condition, seen, items)
                made += [_item(plan, draft, condition, split, number) for draft in drafts]
    return checked(ConceptData(plan.name, plan.classes, tuple(made)))


def _unseen(plan: Plan, supply: Supply, condition: str, seen: set[str], items: int) -> list[Draft]:
    for _ in range(_TRIES):
        drafts = plan.frame(supply, condition)
        texts = {draft.text for draft in drafts}
        if not texts & seen:
            seen |= texts
            return drafts
    raise ConfigError(
        f"items = {items}: the word lists do not give that many different texts for '{plan.name}'.",
        hint="Ask for fewer items.",
    )


def _item(plan: Plan, draft: Draft, condition: str, split: Split, number: int) -> Item:
    return Item(
        text=draft.text,
        label=draft.label,
        span=(draft.text.rindex(" ") + 1, len(draft.text)),
        cluster=draft.cluster,
        pair="-".join(part for part in (split, condition, str(number), draft.pair) if part),
        condition=condition,
        split=split,
        factors={plan.crossed: condition, **draft.factors},
    )
