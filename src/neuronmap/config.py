"""The base of every configuration: frozen, complete, and strict about unknown keys."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from neuronmap.errors import ConfigError
from neuronmap.hashing import digest_json

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["FrozenConfig", "config_error"]


class FrozenConfig(BaseModel):
    """A frozen pydantic model whose mistakes are :class:`~neuronmap.errors.ConfigError`.

    Each field's docstring (a string literal under the field) is its description: it feeds ``--help``, the
    JSON schema, the form in the browser and the reference pages.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise config_error(error, type(self)) from None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from a plain dictionary (a TOML table, a JSON object) with the same checks."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, ``None`` included; ``from_dict`` reads it back to an equal object."""
        return self.model_dump(mode="json")

    def updated(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked again as a whole."""
        return type(self)(**{**self.model_dump(exclude_unset=True), **changes})

    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all fields, as ``sha256:<hex>``."""
        return digest_json(self.to_dict())


def config_error(error: ValidationError, owner: type[BaseModel]) -> ConfigError:
    """Turn pydantic's report into sentences: field, value received, what is allowed.

    Args:
        error: what pydantic raised.
        owner: the configuration class, for its field names.

    Returns:
        One error that lists every fault; the hint suggests near names for unknown keys.
    """
    lines: list[str] = []
    hints: list[str] = []
    faults = error.errors()
    for fault in faults:
        if fault["type"] == "value_error" and isinstance(fault.get("ctx", {}).get("error"), ConfigError):
            inner = fault["ctx"]["error"]
            lines.append(inner.message)
            if inner.hint:
                hints.append(inner.hint)
            continue
        name = ".".join(str(part) for part in fault["loc"]) or owner.__name__
        if fault["type"] == "extra_forbidden":
            lines.append(f"{owner.__name__} has no field '{name}'.")
            near = difflib.get_close_matches(name, owner.model_fields, n=3, cutoff=0.5)
            hints.append(f"Did you mean {' or '.join(near)}?" if near else f"Fields: {', '.join(owner.model_fields)}.")
        elif fault["type"] == "missing":
            lines.append(f"{owner.__name__} needs '{name}'.")
        elif (told := _told_of(fault, faults, owner)) is not None:
            name, message = told
            lines.append(f"{owner.__name__}.{name} = {_short(fault['input'])}: {message}.")
    return ConfigError(" ".join(lines), hint=" ".join(dict.fromkeys(hints)))


def _told_of(fault: ErrorDetails, faults: Sequence[ErrorDetails], owner: type[BaseModel]) -> tuple[str, str] | None:
    """Name of the field and what is wrong. A value that fits no branch of a union is told once, at its first fault, with all it may be."""
    path, branches = fault["loc"], [fault]
    if len(path) == 2 and _has_branches(owner, path[0]):
        branches, path = [one for one in faults if one["loc"][:1] == path[:1]], path[:1]
        if branches[0] is not fault:
            return None
    messages = [one["msg"].removeprefix("Value error, ") for one in branches]
    messages = [f"{message[:1].lower()}{message[1:]}" for message in messages]
    name = ".".join(str(part) for part in path) or owner.__name__
    return name, " or ".join([messages[0], *(message.removeprefix("input should be ") for message in messages[1:])])


def _has_branches(owner: type[BaseModel], field: int | str) -> bool:
    """Whether a field may be one of several types, none of which has fields of its own."""
    found = owner.model_fields.get(str(field))
    if found is None or get_origin(found.annotation) not in (Union, UnionType):
        return False
    branches = [one for one in get_args(found.annotation) if one is not NoneType]
    return len(branches) > 1 and not any(isinstance(one, type) and issubclass(one, BaseModel) for one in branches)


def _short(value: Any, most: int = 120) -> str:
    """A value as it was given; of a long one its beginning."""
    shown = repr(value)
    return shown if len(shown) <= most else f"{shown[:most]}... ({len(shown):,} characters)"
