"""Columns of the feature table: heads, what they mean, how their values are shown. All of them come from the store's schema."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, create_model

from neuronmap.features.storage.conditions import COLUMNS
from neuronmap.features.storage.schema import TABLES
from neuronmap.features.storage.text import visible

__all__ = ["DEFAULT_COLUMNS", "TABLE_COLUMNS", "Cell", "ColumnHead", "FeatureRow", "cell", "head_of"]

DEFAULT_COLUMNS = (
    "label",
    "class",
    "status",
    "density",
    "max",
    "f1",
    "top_token_text",
    "top_lift_text",
    "top_promoted_text",
)
"""Beside the feature's number, which is always there."""

_HEADS = {
    "feature": "#",
    "max": "largest",
    "f1": "F1",
    "f1_low": "F1, low",
    "f1_high": "F1, high",
    "top_token_text": "top token",
    "top_token": "top token, id",
    "top_lift_text": "most typical token",
    "top_lift_token": "most typical token, id",
    "top_promoted_text": "promotes",
    "top_promoted": "promotes, id",
    "q50": "median",
    "nearest": "nearest decoder",
    "coactive": "fires most with",
}
_LEFT_OUT = ("rule_json",)
TABLE_COLUMNS = tuple(name for name in COLUMNS if name not in _LEFT_OUT)
"""Every column that the table can show, in the schema's order."""

_ABOUT = {column.name: column.about for table in ("features", "hints") for column in TABLES[table].columns}
_PERCENT = (
    "density",
    "density_low",
    "density_high",
    "top_token_share",
    "top_token_share_low",
    "top_token_share_high",
    "early_share",
)
_LINKS = ("nearest", "coactive")
_WHOLE = ("int8", "int16", "int32", "int64", "uint16", "uint32")
_TYPES: dict[str, Any] = {"string": str} | dict.fromkeys(_WHOLE, int) | dict.fromkeys(("float", "double"), float)


class ColumnHead(BaseModel):
    """One column."""

    name: str = Field(description="As in the store, in conditions and in exports.")
    head: str = Field(description="As people read it.")
    about: str = Field(description="What it holds.")
    kind: str = Field(description="count, number, percent, token, text, status or feature.")
    default: bool = Field(description="Whether it is shown when nothing was chosen.")
    shown: bool = Field(default=False, description="Whether it is shown now.")
    sorted: str = Field(default="", description="ascending or descending, if the table is in its order.")
    sort: str = Field(default="", description="Address of the table in its order; the other way round if it is.")

    @property
    def number(self) -> bool:
        """Whether values stand at the right."""
        return self.kind in ("count", "number", "percent")


class Cell(BaseModel):
    """One value of the table."""

    kind: str
    value: Any

    @property
    def shown(self) -> str:
        """A token's text with whitespace made visible."""
        return visible(str(self.value))


def head_of(name: str) -> ColumnHead:
    """A column by name; it must be one of :data:`TABLE_COLUMNS`."""
    return ColumnHead(
        name=name,
        head=_HEADS.get(name, name.removesuffix("_text").replace("_", " ")),
        about=_ABOUT[name],
        kind=_kind(name),
        default=name in DEFAULT_COLUMNS,
    )


def cell(name: str, value: Any) -> Cell:
    """A value with the way it is shown."""
    return Cell(kind=_kind(name), value=value)


def _kind(name: str) -> str:
    if name in _LINKS or name == "feature":
        return "feature"
    if name in _PERCENT:
        return "percent"
    if name == "status":
        return "status"
    if name.endswith("_text"):
        return "token"
    if COLUMNS[name] in _WHOLE:
        return "count"
    return "text" if COLUMNS[name] == "string" else "number"


_FIELDS: dict[str, Any] = {
    name: (_TYPES[COLUMNS[name]] | None, Field(default=None, description=_ABOUT[name])) for name in COLUMNS
}
FeatureRow = create_model(
    "FeatureRow",
    __doc__="Numbers and short texts of a feature, columns of features.parquet and hints.parquet; null where there is none.",
    **_FIELDS,
)
"""One row, typed by the store's schema; used where the API describes what it answers."""
