"""What the records of several kinds have in common."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from neuronmap.errors import InputError
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.document import Document

__all__ = ["Author", "CorpusRef", "HookRef", "Metrics", "ModelRef", "Record", "SearchFields", "Text"]

Text = Annotated[str, Field(max_length=500)]
Metrics = Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@/ -]{1,120}$")], float], Field(max_length=2000)]
"""Figures by dotted name (``explained_variance``, ``l0``, ``mse``, ...), finite."""

_ORCID = re.compile(r"(\d{4}-){3}\d{3}[\dX]")


def _checked_orcid(value: str | None) -> str | None:
    """An ORCID iD with the right check digit (ISO 7064 MOD 11-2)."""
    if value is None:
        return None
    bare = value.removeprefix("https://orcid.org/")
    total = 0
    if _ORCID.fullmatch(bare):
        digits = bare.replace("-", "")
        for digit in digits[:-1]:
            total = (total + int(digit)) * 2
        check = (12 - total % 11) % 11
        if digits[-1] == ("X" if check == 10 else str(check)):
            return bare
    raise InputError(
        f"{value[:60]!r} is no ORCID iD: four groups of four digits are, the last digit being a check digit."
    )


class Author(Document):
    """A person, or a group."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """As it is to be cited."""
    orcid: Annotated[str | None, AfterValidator(_checked_orcid)] = None
    """ORCID iD, such as 0000-0002-1825-0097."""
    affiliation: Text | None = None
    """Where they work."""


class ModelRef(Document):
    """A language model."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """As on the hub, or its folder's last part."""
    revision: Annotated[str | None, Field(max_length=100)] = None
    """Commit on the hub."""
    digest: Digest | None = None
    """Over its weights and configuration, as NeuronMap takes it (``ModelIdentity.model_digest``)."""
    tokenizer_digest: Digest | None = None
    """Over its tokenizer; equal tokenizers give equal token ids."""
    architecture: Text | None = None
    """Class name in transformers."""
    hidden_size: Annotated[int | None, Field(ge=1)] = None
    """Width of the residual stream."""
    num_layers: Annotated[int | None, Field(ge=1)] = None
    """Blocks."""


class HookRef(Document):
    """A place in the model."""

    name: Annotated[str, Field(min_length=1, max_length=300)]
    """The hook point, such as layers.8.residual."""
    layer: Annotated[int | None, Field(ge=-1, lt=1 << 31)] = None
    """Block, from 0; -1 for the embedding."""
    component: Annotated[str | None, Field(max_length=60)] = None
    """residual, residual_pre, mlp, attention, mlp_hidden, attention_heads."""
    module_path: Text | None = None
    """Module of the Hugging Face model."""
    side: Annotated[str | None, Field(pattern=r"^(in|out)$")] = None
    """Whether the module's input or output is read."""
    width: Annotated[int | None, Field(ge=1)] = None
    """Entries of the activation."""


class CorpusRef(Document):
    """A text."""

    name: Annotated[str, Field(min_length=1, max_length=300)]
    """Corpus, data set or file."""
    digest: Annotated[str | None, Field(max_length=100)] = None
    """Over its tokens."""
    tokens: Annotated[int | None, Field(ge=0)] = None
    """How many were read."""
    context_length: Annotated[int | None, Field(ge=1)] = None
    """Tokens of a context."""


class SearchFields(Document):
    """What a search filters by, beyond what every manifest says."""

    model: str | None = None
    """Name of the language model."""
    hook: str | None = None
    """Name of the hook point."""
    layer: int | None = None
    """Block."""
    component: str | None = None
    """Component of the block."""
    architecture: str | None = None
    """Of the SAE."""
    d_in: int | None = None
    """Width of the activation."""
    width: int | None = None
    """Number of features."""
    tokenizer_digest: str | None = None
    """Of the model's tokenizer."""
    model_digest: str | None = None
    """Of the model."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Figures to filter and sort by; ``l0`` among them where it is known."""
    fits_models: tuple[str, ...] = ()
    """Names of further models that it is said to fit."""
    fits_layers: tuple[int, ...] = ()
    """Further blocks that it is said to fit."""


class Record(Document):
    """Base of the records: what an artefact of one kind says of itself.

    A newer NeuronMap may have added fields: reading keeps what is known (:meth:`read`), writing refuses what is not.
    """

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """From a stored manifest: fields that a newer minor version of the schema added are passed over."""
        return cls(**{name: value for name, value in values.items() if name in cls.model_fields})

    def search_fields(self) -> SearchFields:
        """What it is found by."""
        return SearchFields()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Faults between fields; records override :meth:`inconsistencies`."""
        found = self.inconsistencies()
        if found:
            raise ValueError("; ".join(found))
        return self

    def inconsistencies(self) -> list[str]:
        """Sentences on fields that do not go together."""
        return []
