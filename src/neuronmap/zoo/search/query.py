"""What somebody searches for. The fields are the parameters of ``GET /api/zoo/search`` and the options of ``neuronmap zoo search``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from neuronmap.errors import InputError
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.document import Document
from neuronmap.zoo.faults import faults_of
from neuronmap.zoo.licences import check_licence
from neuronmap.zoo.records import list_kinds

__all__ = ["MOST_HITS", "SORTS", "CompatibilityQuery", "MetricCondition", "Query"]

MOST_HITS = 100
SORTS = ("relevance", "newest", "stars", "downloads", "name", "width", "l0")
"""Orders besides ``metric:NAME``. The best, newest, most come first; names, widths and L0 begin with the least; ``-`` reverses."""

_METRIC_NAME = r"[A-Za-z0-9_.@/ -]{1,120}"
_CONDITION = re.compile(rf"({_METRIC_NAME}?)\s*(>=|<=|>|<|=)\s*([-+0-9.eE]{{1,40}})")
_SORT = re.compile(rf"-?({'|'.join(SORTS)}|metric:{_METRIC_NAME})")


class MetricCondition(NamedTuple):
    """A figure and its bound.

    Attributes:
        name: of the figure.
        operator: ``>=``, ``<=``, ``>``, ``<`` or ``=``.
        value: the bound, finite.
    """

    name: str
    operator: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``explained_variance>=0.7``.

        Raises:
            InputError: it is not of that form.
        """
        found = _CONDITION.fullmatch(text.strip())
        try:
            if found is None or not math.isfinite(value := float(found[3])):
                raise ValueError
        except ValueError:
            raise InputError(
                f"{text[:80]!r} is no condition: a figure, one of >= <= > < =, and a number, as in explained_variance>=0.7."
            ) from None
        return cls(found[1].strip(), found[2], value)


def _printable(text: str) -> str:
    if any(ord(one) < 32 or 0xD800 <= ord(one) < 0xE000 for one in text):
        raise ValueError("it holds control characters or halves of characters")
    return text


def _condition(text: str) -> str:
    try:
        MetricCondition.parse(text)
    except InputError as error:
        raise ValueError(error.message) from None
    return text


def _kind(name: str | None) -> str | None:
    known = [kind.name for kind in list_kinds()]
    if name is not None and name not in known:
        raise ValueError(f"there is no kind {name!r}; there are {', '.join(known)}")
    return name


def _licence(text: str) -> str:
    try:
        return check_licence(text)
    except InputError as error:
        raise ValueError(error.message) from None


def _sort(text: str) -> str:
    if not _SORT.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is no order: {', '.join(SORTS)} or metric:NAME are; - before it reverses it")
    return text


def _words(most: int) -> Any:
    return Annotated[str, Field(max_length=most), AfterValidator(_printable)]


_Name = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_printable)]
_Int = Annotated[int, Field(ge=-1, lt=1 << 31)]
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Parameters(Document):
    """Parameters that people give."""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """From parameters by name.

        Raises:
            InputError: names every one that cannot be used.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            faults = "; ".join(str(fault).rstrip(".") for fault in faults_of(error))
            raise InputError(f"The search cannot be understood: {faults}.") from None


class Query(_Parameters):
    """A search. All conditions must hold; without any, everything is found."""

    q: Annotated[str, Field(max_length=500)] = ""
    """Words that it must hold, in any order; the last may go on. There is no syntax."""
    kind: Annotated[str | None, Field(pattern=r"^[A-Z][A-Z0-9_]{1,40}$"), AfterValidator(_kind)] = None
    """Kind of artefact: SAE_MODEL, ANALYSIS_RESULT, ..."""
    tag: Annotated[tuple[_Name, ...], Field(max_length=20)] = ()
    """Tags that it must have, all of them."""
    model: _Name | None = None
    """Language model, with or without its owner; case does not count."""
    hook: _Name | None = None
    """Hook point."""
    layer: _Int | None = None
    """Block, from 0."""
    component: _Name | None = None
    """Component of the block."""
    architecture: _Name | None = None
    """Of the SAE."""
    d_in: _Int | None = None
    """Width of the activation."""
    width_min: _Count | None = None
    """Features at least."""
    width_max: _Count | None = None
    """Features at most."""
    l0_min: float | None = None
    """Active features of a token at least."""
    l0_max: float | None = None
    """Active features of a token at most."""
    metric: Annotated[tuple[Annotated[str, AfterValidator(_condition)], ...], Field(max_length=20)] = ()
    """Conditions on figures, such as explained_variance>=0.7; all must hold."""
    licence: Annotated[str | None, AfterValidator(lambda text: text if text is None else _licence(text))] = None
    """SPDX expression."""
    author: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)] | None = None
    """Part of an author's name."""
    namespace: _Name | None = None
    """Person or organisation."""
    private: bool | None = None
    """Only what is private (of what the asker may see), or only what is public."""
    all_versions: bool = False
    """Every published version, not the newest of each artefact alone."""
    sort: Annotated[str, AfterValidator(_sort)] = "relevance"
    """relevance (newest without words), newest, stars, downloads, name, width, l0 or metric:NAME; - before it reverses it."""
    cursor: Annotated[str | None, Field(max_length=1000)] = None
    """Where to go on: ``next`` of the page before."""
    limit: Annotated[int, Field(ge=1, le=MOST_HITS)] = 20
    """Hits of a page."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("width", "l0"):
            least, most = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if least is not None and most is not None and least > most:
                raise ValueError(f"{name}_min = {least:g} is greater than {name}_max = {most:g}: nothing can be found")
        return self

    @property
    def conditions(self) -> list[MetricCondition]:
        """``metric``, read."""
        return [MetricCondition.parse(text) for text in self.metric]


class CompatibilityQuery(_Parameters):
    """Which SAEs fit this model and place? At least one of model, model_digest, tokenizer_digest and d_in is needed."""

    model: _Name | None = None
    """The language model's name, with or without its owner."""
    model_digest: Digest | None = None
    """Over its weights and configuration: equal digests fit exactly."""
    tokenizer_digest: Digest | None = None
    """Over its tokenizer."""
    layer: _Int | None = None
    """Block, from 0."""
    component: _Name | None = None
    """Component of the block."""
    d_in: _Int | None = None
    """Width of the activation there."""
    limit: Annotated[int, Field(ge=1, le=MOST_HITS)] = 50
    """Hits at most, the best first."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.model or self.model_digest or self.tokenizer_digest or self.d_in is not None):
            raise ValueError("one of model, model_digest, tokenizer_digest and d_in is needed")
        return self
