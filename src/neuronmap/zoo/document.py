"""The base of what the zoo writes down and sends: frozen, strict about unknown fields, its faults listed by place."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Document"]


class Document(BaseModel):
    """A frozen pydantic model. Unlike a configuration it reports faults as pydantic does, so that a manifest lists all of them."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        populate_by_name=True,
        serialize_by_alias=True,
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, ``None`` included."""
        return self.model_dump(mode="json")
