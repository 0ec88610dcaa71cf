"""What may be said of a feature over HTTP, and the act that it becomes. People speak for themselves only: every author is a person."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from neuronmap.config import config_error
from neuronmap.errors import InputError
from neuronmap.interpretation.labels.acts import Act, Author, Comment, Flag, Label, Listing, Retract, Vote, stamp

__all__ = ["BY_HAND", "Saying", "act_of", "saying_of"]

BY_HAND = "by hand"
_Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Said(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class SayLabel(Said):
    """A label, or a new wording of one's own."""

    kind: Literal["label"]
    text: str = Field(
        min_length=1, max_length=200, description="Short: one to six words are best.", examples=["names of colours"]
    )
    explanation: str = Field(default="", max_length=5000, description="Long: whole sentences.")
    side: Literal["input", "output"] = Field(
        default="input", description="What it fires on, or what it makes the model say."
    )
    replaces: _Id | None = Field(default=None, description="A label of one's own that this is the new wording of.")


class SayVote(Said):
    """Yes, no or neither to a label."""

    kind: Literal["vote"]
    label: _Id
    value: Literal[-1, 0, 1]


class SayComment(Said):
    """A remark on the feature, or on a label or comment."""

    kind: Literal["comment"]
    text: str = Field(min_length=1, max_length=5000)
    on: _Id | None = Field(default=None, description="The label or comment; the feature when left out.")


class SayFlag(Said):
    """Something is wrong, or is not any more."""

    kind: Literal["flag"]
    reason: str = Field(min_length=1, max_length=1000)
    on: _Id | None = Field(default=None, description="The label; the feature when left out.")
    raised: bool = True


class SayListing(Said):
    """The feature is put on a list of one's own, or taken off."""

    kind: Literal["listing"]
    name: str = Field(default="bookmarks", min_length=1, max_length=100)
    listed: bool = True
    note: str = Field(default="", max_length=1000)


class SayRetract(Said):
    """Something of one's own is taken back."""

    kind: Literal["retract"]
    act: _Id


Saying = Annotated[SayLabel | SayVote | SayComment | SayFlag | SayListing | SayRetract, Field(discriminator="kind")]
"""One thing that is said of a feature."""
_READER: TypeAdapter[Saying] = TypeAdapter(Saying)
_KINDS: dict[str, type[Act]] = {
    "label": Label,
    "vote": Vote,
    "comment": Comment,
    "flag": Flag,
    "listing": Listing,
    "retract": Retract,
}


def saying_of(fields: dict[str, str]) -> Saying:
    """What a form sent; empty fields are left out.

    Raises:
        ConfigError: names the field, the value and what is allowed.
        InputError: it says no kind that there is.
    """
    given: dict[str, object] = {name: value for name, value in fields.items() if value.strip()}
    if given.get("kind") == "vote" and str(given.get("value")) in ("-1", "0", "1"):
        given["value"] = int(str(given["value"]))
    if given.get("kind") not in _KINDS:
        raise InputError(
            f"Nothing of kind {str(given.get('kind', ''))[:40]!r} can be said. Kinds: {', '.join(_KINDS)}."
        )
    try:
        return _READER.validate_python(given)
    except ValidationError as error:
        raise config_error(error, Said) from None


def act_of(said: Saying, author: Author, sae: str, feature: int) -> Act:
    """The act.

    Args:
        said: what is said.
        author: who says it.
        sae: digest of the weights of the SAE.
        feature: the number.

    Raises:
        ConfigError: a text that no act can hold.
        InputError: it is not known of which SAE the feature is.
    """
    if not sae:
        raise InputError("The analysis does not say of which weights it is, so nothing can be said of its features.")
    values = said.model_dump()
    kind = _KINDS[values.pop("kind")]
    if kind is Label:
        values["method"] = BY_HAND
    return kind(sae=sae, feature=feature, author=author, at=stamp(), **values)
