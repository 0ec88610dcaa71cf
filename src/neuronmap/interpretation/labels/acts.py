"""Acts: everything that anybody ever said of a feature, one immutable record each. What holds now follows from them.

    label    a short text for what the feature fires on (side "input") or what it promotes ("output"), with the long explanation
    score    how well a label predicts firing, by one protocol, with every judgement that it rests on
    comment  a remark on a feature, or on one of its labels
    vote     a person's yes, no, or neither, to a label
    flag     something is wrong with the feature, or with a label, and why; or: not any more
    listing  the feature is on a list of the author's, or is no more ("bookmarks" is a list)
    verdict  one answer of a blind task: does this label say that the feature fires on this example?
    retract  the author takes an act back; it stays to be seen

An act's id is the digest of all that it says, so the same act that comes twice is one, and two books are merged by putting their acts
together: in any order, as often as one likes, and nothing is lost (a grow-only set, as in Shapiro et al., INRIA RR-7506). Where one
act takes an older one's place (a second vote, a label's new wording) the newer counts by time, then by id; both stay in the history.

A feature is named by the digest of its SAE's weights and its number, so acts mean the same on every machine.
"""

from __future__ import annotations

import datetime
import functools
import unicodedata
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, computed_field

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError, InputError
from neuronmap.hashing import canonical_json, digest_json, short

__all__ = [
    "BOOKMARKS",
    "Act",
    "Author",
    "Comment",
    "Flag",
    "Judgement",
    "Label",
    "Listing",
    "Retract",
    "Score",
    "Verdict",
    "Vote",
    "is_act",
    "read_act",
    "stamp",
]

BOOKMARKS = "bookmarks"
"""The list that a bookmark puts a feature on."""
_ID = r"^[0-9a-f]{32}$"
_DIGEST = r"^sha256:[0-9a-f]{64}$"

_MOST_DETAILS = 1 << 16
"""Bytes of evidence or figures."""


_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of what follows: a name could read as another one."""


def _controls(letter: str) -> bool:
    return unicodedata.category(letter) == "Cc" or letter in _TURNS


def _written(text: str, allowed: str) -> str:
    """A text without control characters, which databases and terminals do not bear; one of spaces alone says nothing."""
    bad = next((letter for letter in text if _controls(letter) and letter not in allowed), None)
    if bad is not None:
        raise ConfigError(f"Text {text[:40]!r} holds the control character {bad!r}.", hint="Leave it out.")
    if text and not text.strip():
        raise ConfigError("A text of spaces alone says nothing.")
    return text


def _line(text: str) -> str:
    return _written(text, "")


def _lines(text: str) -> str:
    return _written(text, "\n\t")


def _details(values: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(canonical_json(values).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"Evidence and figures are plain JSON types: {str(error)[:200]}.") from None
    if size > _MOST_DETAILS:
        raise ConfigError(f"Evidence or figures have {size:,} bytes; {_MOST_DETAILS:,} are allowed.")
    return values


ActId = Annotated[str, Field(pattern=_ID)]
Line = AfterValidator(_line)
Lines = AfterValidator(_lines)
Details = Annotated[dict[str, Any], AfterValidator(_details)]


def stamp(moment: datetime.datetime | None = None) -> str:
    """A moment as acts write it: ISO 8601, UTC, microseconds; now when left out. Sorts as text."""
    at = (moment or datetime.datetime.now(datetime.UTC)).astimezone(datetime.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Author(FrozenConfig):
    """Who said it."""

    kind: Literal["rule", "model", "person"]
    """rule: a hint of the analysis. model: a language model. person: somebody."""
    name: Annotated[str, Field(min_length=1, max_length=200), Line]
    """The person's name, the language model's, or that of the rules."""


class Act(FrozenConfig):
    """What all acts share."""

    kind: str
    """Which act it is."""
    sae: Annotated[str, Field(pattern=_DIGEST)]
    """Digest of the weights of the SAE (``metadata.neuronmap.weights_digest``)."""
    feature: Annotated[int, Field(ge=0, lt=1 << 31)]
    """Number of the feature, from 0."""
    author: Author
    """Who said it."""
    at: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]
    """When, by the author's clock; see :func:`stamp`."""

    replaces_by: ClassVar[tuple[str, ...]] = ()
    """Fields that, with author, SAE, feature and kind, decide which older act this one takes the place of; () means none."""
    about: ClassVar[str] = ""
    """Field with the act that this one is about; empty for none."""

    @computed_field  # type: ignore[prop-decorator]
    @functools.cached_property
    def id(self) -> str:
        """The first 32 hexadecimal digits of the digest of everything above."""
        return short(digest_json(self.model_dump(mode="json", exclude={"id"})), 32)

    @property
    def target(self) -> str | None:
        """Id of the act that this one is about; None where it is about the feature."""
        found: str | None = getattr(self, self.about) if self.about else None
        return found

    def place(self) -> tuple[Any, ...] | None:
        """What it shares with the older acts that it takes the place of, within a feature; None where it takes none."""
        if not self.replaces_by:
            return None
        values: list[Any] = []
        for name in self.replaces_by:
            value: Any = self
            for part in name.split("."):
                value = getattr(value, part)
            values.append(value)
        return (self.kind, self.author.kind, self.author.name, *values)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """As written by ``to_dict``; an ``id`` in it must be the right one."""
        said = dict(values)
        claimed = said.pop("id", None)
        try:
            act = cls(**said)
            _ = act.id
        except (TypeError, UnicodeError, RecursionError) as error:
            raise InputError(f"It is no {cls.model_fields['kind'].default}: {str(error)[:200]}.") from None
        if claimed is not None and claimed != act.id:
            raise InputError(f"The {act.kind} {str(claimed)[:40]} does not say what its id says: it was changed.")
        return act


class Label(Act):
    """A label with its explanation."""

    kind: Literal["label"] = "label"
    """Which act it is."""
    side: Literal["input", "output"] = "input"
    """input: what it fires on. output: what it makes the model say."""
    text: Annotated[str, Field(min_length=1, max_length=200), Line]
    """Short: one to six words are best."""
    explanation: Annotated[str, Field(max_length=5000), Lines] = ""
    """Long: whole sentences."""
    method: Annotated[str, Field(min_length=1, max_length=120), Line]
    """How it came about: ``by hand``, ``hints``, ``quantiles@1`` (a prompt and its version), ..."""
    evidence: Details = Field(default_factory=dict)
    """What the author had seen, for machines: analysis key, examples (sequence, position), prompt digest, tokens, cost."""
    replaces: ActId | None = None
    """The label, by the same author, that this one is the new wording of."""

    about: ClassVar[str] = "replaces"


class Judgement(FrozenConfig):
    """One answer that a score rests on."""

    sequence: Annotated[int, Field(ge=0)]
    """Context of the example in the analysis."""
    position: Annotated[int, Field(ge=0)]
    """Its peak, or its middle."""
    group: Annotated[str, Field(max_length=40), Line]
    """Where it is drawn from: ``top``, ``quantile-0`` ... ``quantile-9``, ``random``, ``hard-token``, ``hard-neighbour``, ..."""
    truth: bool | float
    """Whether the feature fires there (or how much, for simulation)."""
    said: bool | float | None
    """What the judge said; None where no answer could be read."""


class Score(Act):
    """How well a label predicts firing."""

    kind: Literal["score"] = "score"
    """Which act it is."""
    label: ActId
    """The label."""
    protocol: Annotated[str, Field(min_length=1, max_length=120), Line]
    """``detection@1``, ``fuzzing@1``, ``simulation@1``, ``embedding@1``, ``people@2``, ..."""
    value: Annotated[float, Field(ge=-1, le=1)] | None
    """The protocol's headline: balanced accuracy, correlation, area under the curve; None where too little could be read."""
    low: float | None = None
    """95 % interval."""
    high: float | None = None
    """Its high end."""
    figures: Details = Field(default_factory=dict)
    """Recall by quantile, false positives by kind of negative, baselines, numbers parsed and failed, tokens, cost, prompt digest."""
    judgements: Annotated[tuple[Judgement, ...], Field(max_length=2000)] = ()
    """Every answer."""

    replaces_by: ClassVar[tuple[str, ...]] = ("label", "protocol")
    about: ClassVar[str] = "label"


class Comment(Act):
    """A remark."""

    kind: Literal["comment"] = "comment"
    """Which act it is."""
    text: Annotated[str, Field(min_length=1, max_length=5000), Lines]
    """The remark."""
    on: ActId | None = None
    """The label (or comment) it is about; None: the feature."""

    about: ClassVar[str] = "on"


class Vote(Act):
    """Yes or no to a label."""

    kind: Literal["vote"] = "vote"
    """Which act it is."""
    label: ActId
    """The label."""
    value: Literal[-1, 0, 1]
    """1: yes. -1: no. 0: neither (any more)."""

    replaces_by: ClassVar[tuple[str, ...]] = ("label",)
    about: ClassVar[str] = "label"


class Flag(Act):
    """Something is wrong."""

    kind: Literal["flag"] = "flag"
    """Which act it is."""
    on: ActId | None = None
    """The label; None: the feature."""
    reason: Annotated[str, Field(min_length=1, max_length=1000), Lines]
    """What."""
    raised: bool = True
    """False: not any more."""

    replaces_by: ClassVar[tuple[str, ...]] = ("on",)
    about: ClassVar[str] = "on"


class Listing(Act):
    """A feature on a list."""

    kind: Literal["listing"] = "listing"
    """Which act it is."""
    name: Annotated[str, Field(min_length=1, max_length=100), Line]
    """The list's; ``bookmarks`` for bookmarks."""
    listed: bool = True
    """False: taken off."""
    note: Annotated[str, Field(max_length=1000), Lines] = ""
    """Why."""

    replaces_by: ClassVar[tuple[str, ...]] = ("name",)


class Verdict(Act):
    """One answer of a blind task: the person saw a label and an example, neither who wrote the one nor whether the other fires."""

    kind: Literal["verdict"] = "verdict"
    """Which act it is."""
    label: ActId
    """The label."""
    analysis: Annotated[str, Field(pattern=_DIGEST)]
    """Key of the analysis the example is of."""
    judgement: Judgement
    """The example, the truth, and what was said."""

    replaces_by: ClassVar[tuple[str, ...]] = ("label", "analysis", "judgement.sequence", "judgement.position")
    about: ClassVar[str] = "label"


class Retract(Act):
    """An act of the same author taken back."""

    kind: Literal["retract"] = "retract"
    """Which act it is."""
    act: ActId
    """Which. What that act took the place of goes with it."""

    about: ClassVar[str] = "act"


_KINDS: dict[str, type[Act]] = {
    str(one.model_fields["kind"].default): one for one in (Label, Score, Comment, Vote, Flag, Listing, Verdict, Retract)
}


def is_act(values: dict[str, Any]) -> bool:
    """Whether an object means to be an act, rather than a plain label (``{"feature": 7, "label": "colours"}``)."""
    return "kind" in values and "author" in values


def read_act(values: Any) -> Act:
    """An act from plain JSON types, whichever it is.

    Raises:
        InputError, ConfigError: it is none, or its id is not that of what it says.
    """
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise InputError("It is no act: an object with a kind is needed.")
    if values["kind"] not in _KINDS:
        raise InputError(f"There is no act of kind {values['kind'][:40]!r}; there are {', '.join(_KINDS)}.")
    return _KINDS[values["kind"]].from_dict(values)
