"""What holds of a feature, worked out from all that was ever said of it.

The same acts give the same result, in whatever order they came, so that two books with the same acts say the same:

- Acts in one place (a person's votes on a label, an author's scores of a label by one protocol): the newest counts, by time, then by id.
- A label that names an older one by the same author, of the same feature and side, is a new wording of it. Wordings of one label are in one
  place, too: two new wordings of one label, made on two machines, do not both hold.
- An act that its author has taken back does not count, nor does what it took the place of.
- An act about a label that is not of this feature, or a retraction of somebody else's act, changes nothing. It is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from neuronmap.config import FrozenConfig
from neuronmap.interpretation.labels.acts import Act, Author, Comment, Flag, Label, Listing, Retract, Score, Vote

__all__ = [
    "Conflict",
    "HeldFlag",
    "HeldLabel",
    "HeldScore",
    "HeldVote",
    "Said",
    "Standing",
    "chance",
    "held_labels",
    "is_rewording",
]

_PROTOCOLS = ("people", "detection", "fuzzing", "intruder", "simulation", "embedding")
"""The first of these that a label has a score by is its score in tables."""

Kind = TypeVar("Kind", bound=Act)


class HeldScore(FrozenConfig):
    """A score without its judgements."""

    id: str
    """Of the act."""
    author: Author
    """Who judged."""
    at: str
    """When."""
    protocol: str
    """How."""
    value: float | None
    """The protocol's headline."""
    low: float | None
    """95 % interval."""
    high: float | None
    """Its high end."""
    figures: dict[str, Any]
    """As in :class:`Score`."""


class HeldVote(FrozenConfig):
    """A vote that counts."""

    id: str
    """Of the act."""
    author: Author
    """Whose."""
    at: str
    """When."""
    value: int
    """1 or -1."""


class HeldFlag(FrozenConfig):
    """A flag that is raised."""

    id: str
    """Of the act."""
    author: Author
    """Whose."""
    at: str
    """When."""
    reason: str
    """What is wrong."""


class HeldLabel(FrozenConfig):
    """A label that holds, with what was said of it."""

    label: Label
    """The label."""
    scores: tuple[HeldScore, ...] = ()
    """The newest of each author and protocol; in the order of protocols, see :attr:`score`, of one protocol its newest version first, then
    the newest first."""
    votes: tuple[HeldVote, ...] = ()
    """Votes for and against it, the oldest first."""
    flags: tuple[HeldFlag, ...] = ()
    """Flags on it."""
    comments: int = 0
    """Comments on it."""
    wordings: int = 1
    """How many wordings it had, this one included."""
    others: tuple[str, ...] = ()
    """Labels of the same feature and side, by other authors, that say something else."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> HeldLabel:
        """As written by :meth:`to_dict`, or by the book, without the label's id."""
        label = {name: value for name, value in values["label"].items() if name != "id"}
        return cls(**{**values, "label": label})

    @cached_property
    def id(self) -> str:
        """Of the label."""
        return self.label.id

    @property
    def up(self) -> int:
        """Votes for it; the author's own does not count."""
        return sum(vote.value > 0 and vote.author != self.label.author for vote in self.votes)

    @property
    def down(self) -> int:
        """Votes against it; the author's own does not count."""
        return sum(vote.value < 0 and vote.author != self.label.author for vote in self.votes)

    @property
    def score(self) -> HeldScore | None:
        """The score for tables: by people if there is one, else detection, fuzzing, intruder, simulation, embedding, any other."""
        return next((one for one in self.scores if one.value is not None), None)

    @property
    def conflict(self) -> bool:
        """Whether somebody disagrees: by a vote against it, or a different label beside it."""
        return bool(self.down or self.others)

    def rank(self) -> tuple[float, ...]:
        """The smaller, the rather it is shown where there is room for one label of a feature.

        People's labels with more votes for them than against come first, the most votes first; then labels whose score is surely above
        chance, by the low end of its interval; then people's other labels, models', rules'; last those with more votes against them.
        Equal ones: the newest first.
        """
        votes, kind, score = self.up - self.down, self.label.author.kind, self.score
        low = -1.0 if score is None or score.low is None else score.low - chance(score.protocol)
        if votes < 0:
            return 9, -votes
        if kind == "person" and votes > 0:
            return 0, -votes
        if low > 0:
            return 1, -low
        return 2 + ("person", "model", "rule").index(kind), -votes


class Conflict(NamedTuple):
    """Labels of one feature and side that somebody disagrees about.

    Attributes:
        sae, feature, side: which.
        labels: all labels of that side, the best first.
    """

    sae: str
    feature: int
    side: str
    labels: tuple[HeldLabel, ...]


class Kept(NamedTuple):
    """An act with its id: that of a score cannot be worked out when its judgements were not read.

    Attributes:
        id: of the act.
        act: what was said; a score's judgements may be missing.
    """

    id: str
    act: Act

    @property
    def order(self) -> tuple[str, str]:
        """Time, then id."""
        return self.act.at, self.id


class Standing:
    """The acts of one feature, told apart by whether they hold.

    Args:
        acts: (id, act) of all that was said of the feature, in any order; each once.
    """

    def __init__(self, acts: Iterable[tuple[str, Act]]) -> None:
        self.all = sorted((Kept(*one) for one in acts), key=lambda one: one.order)
        self.by_id = {one.id: one.act for one in self.all}
        places: dict[Any, list[Kept]] = defaultdict(list)
        for one in self.all:
            places[self._place(one)].append(one)
        back = {
            one.act.act
            for one in self.all
            if isinstance(one.act, Retract) and _takes_back(one.act, self.by_id.get(one.act.act))
        }
        self.held: list[Kept] = []
        self.wordings: dict[str, int] = {}
        for some in places.values():
            last_back = max((at for at, kept in enumerate(some) if kept.id in back), default=-1)
            if rest := some[last_back + 1 :]:
                self.held.append(rest[-1])
                self.wordings[rest[-1].id] = len(some)
        self.held.sort(key=lambda one: one.order)

    def holds(self, identifier: str) -> bool:
        """Whether an act holds: it was neither replaced nor taken back."""
        return identifier in self.wordings

    def of(self, kind: type[Kind]) -> list[tuple[str, Kind]]:
        """(id, act) of the acts of a kind that hold, the oldest first."""
        return [(one.id, one.act) for one in self.held if isinstance(one.act, kind)]

    def _place(self, one: Kept) -> Any:
        if isinstance(one.act, Label):
            label = one.act
            return "label", label.author.kind, label.author.name, label.side, self._first_wording(one.id, label)
        return one.act.place() or one.id

    def _first_wording(self, identifier: str, label: Label) -> str:
        """Id of the first wording; of the oldest one that is named, where that is not here."""
        while label.replaces is not None:
            older = self.by_id.get(label.replaces)
            if older is None:
                return label.replaces
            if not isinstance(older, Label) or not is_rewording(label, older):
                break
            identifier, label = label.replaces, older
        return identifier


def is_rewording(label: Label, older: Act | None) -> bool:
    """Whether ``older``, which a label says that it replaces, is one that it may replace."""
    return isinstance(older, Label) and (older.sae, older.feature, older.side, older.author) == (
        label.sae,
        label.feature,
        label.side,
        label.author,
    )


def _takes_back(retract: Retract, act: Act | None) -> bool:
    """Whether a retraction counts: it is of the same author's act, which is none itself."""
    return act is not None and act.author == retract.author and not isinstance(act, Retract)


@dataclass(frozen=True)
class Said:
    """Everything about one feature.

    Attributes:
        labels: that hold, the best first.
        standing: all acts.
    """

    labels: tuple[HeldLabel, ...]
    standing: Standing

    @cached_property
    def comments(self) -> list[tuple[str, Comment]]:
        """(id, comment), the oldest first."""
        return self.standing.of(Comment)

    @cached_property
    def flags(self) -> list[HeldFlag]:
        """Flags on the feature itself."""
        return _flags(self.standing, None)

    @cached_property
    def listings(self) -> list[Listing]:
        """The lists that it is on."""
        return [one for _, one in self.standing.of(Listing) if one.listed]


def chance(protocol: str) -> float:
    """What a label that says nothing gets: 0 for a correlation (simulation), a fifth (intruder), 0.5 for balanced accuracy and areas."""
    special = {"simulation": 0.0, "intruder": 0.2}
    return special.get(protocol.split("@")[0], 0.5)


def held_labels(standing: Standing) -> list[HeldLabel]:
    """The labels of one feature that hold, the best first by :meth:`HeldLabel.rank`."""
    labels = standing.of(Label)
    scores, votes, comments = standing.of(Score), standing.of(Vote), standing.of(Comment)
    made = []
    for identifier, label in labels:
        flags = _flags(standing, identifier)
        made.append(
            HeldLabel(
                label=label,
                scores=tuple(_scores(scores, identifier)),
                votes=tuple(
                    HeldVote(id=at, author=one.author, at=one.at, value=one.value)
                    for at, one in votes
                    if one.label == identifier and one.value and one.author.kind == "person"
                ),
                flags=tuple(flags),
                comments=sum(one.on == identifier for _, one in comments),
                wordings=standing.wordings[identifier],
                others=tuple(
                    other_id
                    for other_id, other in labels
                    if other.side == label.side and other.author != label.author and _plain(other) != _plain(label)
                ),
            )
        )
    made.sort(key=lambda one: (one.label.at, one.id), reverse=True)
    return sorted(made, key=HeldLabel.rank)


def _scores(scores: list[tuple[str, Score]], label: str) -> list[HeldScore]:
    found = [
        HeldScore(
            id=at,
            author=one.author,
            at=one.at,
            protocol=one.protocol,
            value=one.value,
            low=one.low,
            high=one.high,
            figures=one.figures,
        )
        for at, one in scores
        if one.label == label
    ]
    found.sort(key=lambda one: (one.at, one.id), reverse=True)
    return sorted(found, key=lambda one: _protocol_order(one.protocol))


def _protocol_order(protocol: str) -> tuple[int, str, int, str]:
    name, _, rest = protocol.partition("@")
    version = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    rank = _PROTOCOLS.index(name) if name in _PROTOCOLS else len(_PROTOCOLS)
    return rank, name, -int(version or 0), protocol


def _flags(standing: Standing, on: str | None) -> list[HeldFlag]:
    return [
        HeldFlag(id=at, author=one.author, at=one.at, reason=one.reason)
        for at, one in standing.of(Flag)
        if one.raised and one.on == on
    ]


def _plain(label: Label) -> str:
    """What a label says, without case, spaces and the full stop."""
    return " ".join(label.text.casefold().split()).rstrip(".")
