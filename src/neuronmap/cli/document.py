"""The base of every JSON document."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Document"]


class Document(BaseModel):
    """A document, or a record in one: strict about unknown keys, described by the docstrings of its fields."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())
