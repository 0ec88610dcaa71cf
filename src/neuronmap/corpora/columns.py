"""Which column of a table holds the text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from neuronmap.errors import CorpusFormatError

__all__ = ["Kind", "choose_column", "kinds_of_rows", "kinds_of_schema"]

Kind = Literal["text", "ids", "other"]

TEXT_NAMES = ("text", "content", "body", "document", "raw_content", "article", "story", "sentence")
IDS_NAMES = ("input_ids", "tokens", "token_ids")


def choose_column(kinds: Mapping[str, Kind], chosen: str | None, where: str) -> str:
    """The column to read: the one asked for, else one with a usual name, else the only one that can be text.

    Args:
        kinds: what each column holds.
        chosen: the user's ``text_column``, or None.
        where: the table's name, for messages.

    Raises:
        CorpusFormatError: no such column, or nothing to choose by; lists the columns.
    """
    listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
    if chosen is not None:
        if kinds.get(chosen) in ("text", "ids"):
            return chosen
        if chosen in kinds:
            raise CorpusFormatError(
                f"Column '{chosen}' of {where} holds neither text nor token ids. Columns: {listed}.",
                hint="Name a text column with text_column.",
            )
        near = difflib.get_close_matches(chosen, list(kinds), n=1)
        raise CorpusFormatError(
            f"{where} has no column '{chosen}'. Columns: {listed}.",
            hint=f"Did you mean text_column='{near[0]}'?" if near else "Name one of them with text_column.",
        )
    for names, kind in ((TEXT_NAMES, "text"), (IDS_NAMES, "ids")):
        for name in names:
            if kinds.get(name) == kind:
                return name
        if kind == "text":
            texts = [name for name, found in kinds.items() if found == "text"]
            if len(texts) == 1:
                return texts[0]
    raise CorpusFormatError(
        f"Cannot tell which column of {where} is the text. Columns: {listed}.",
        hint="Name it with text_column.",
    )


def kinds_of_schema(schema: Any) -> dict[str, Kind]:
    """Kinds of the columns of a pyarrow schema."""
    return {field.name: _kind_of_type(field.type) for field in schema}


def _kind_of_type(kind: Any) -> Kind:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "ids" if types.is_integer(kind.value_type) else "other"
    return "other"


def kinds_of_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, Kind]:
    """Kinds of the columns of some sample rows; a column counts as text when any of its values is a string."""
    kinds: dict[str, Kind] = {}
    for row in rows:
        for name, value in row.items():
            kind = _kind_of_value(value)
            if kinds.get(name, "other") == "other":
                kinds[name] = kind
    return kinds


def _kind_of_value(value: Any) -> Kind:
    if isinstance(value, str):
        return "text"
    if isinstance(value, (list, tuple)) and value and all(type(item) is int for item in value):
        return "ids"
    return "ids" if getattr(getattr(value, "dtype", None), "kind", "") in ("i", "u") and value.ndim == 1 else "other"
