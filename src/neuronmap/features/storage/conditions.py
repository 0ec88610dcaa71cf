"""Conditions on features, read from text: ``density>=0.001``, ``class=punctuation``, ``label~berlin``, ``fires_on= the``.

    column OP value        column of features.parquet or hints.parquet; OP is >= <= != = > < ~ (contains, any case) !~ (does not)
    column=null            no value; column!=null: any value
    fires_on=TOKEN         features that fire on a token, by text (with or without a leading space) or id
    promotes=TOKEN         features that have it among the tokens they promote

Spaces around a value count only inside double quotes: ``top_token_text=" the"``; a quoted ``"null"`` is the text. A condition becomes
SQL in which the column comes from the schema and the value is a bound parameter, never text of the query.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuronmap.errors import InputError
from neuronmap.features.storage.schema import TABLES

__all__ = ["COLUMNS", "TOKEN_COLUMNS", "Filter", "parse_filter", "parse_filters", "require_column"]

_FILTER = re.compile(r"\s*(\w+)\s*(>=|<=|!=|!~|==|=|>|<|~)(.*)", re.DOTALL)
_SQL = {"=": "=", "!=": "<>", ">=": ">=", "<=": "<=", ">": ">", "<": "<"}
_NUMBERS = {"int8", "int16", "int32", "int64", "uint16", "uint32", "float", "double"}

COLUMNS: dict[str, str] = {
    column.name: column.type for table in ("features", "hints") for column in TABLES[table].columns
}
"""Every column of features.parquet and hints.parquet -> its type."""

TOKEN_COLUMNS = {"fires_on": "token_features", "promotes": "promoted"}
"""Conditions on a token -> the table that answers them."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition.

    Attributes:
        column: a name of :data:`COLUMNS` or :data:`TOKEN_COLUMNS`.
        op: >= <= != = > < ~ or !~.
        value: a number, a text, or None for null.
    """

    column: str
    op: str
    value: float | int | str | None

    def __post_init__(self) -> None:
        if self.column in TOKEN_COLUMNS:
            if self.op not in ("=", "!=") or isinstance(self.value, float) or self.value in (None, ""):
                raise InputError(f"{self.column} takes = or != and a token: its text or its id.")
            return
        require_column(self.column)
        if self.op not in (*_SQL, "~", "!~"):
            raise InputError(f"{self.op!r} does not compare. Use one of: {' '.join((*_SQL, '~', '!~'))}.")
        number = COLUMNS[self.column] in _NUMBERS
        if self.value is None:
            if self.op not in ("=", "!="):
                raise InputError(f"{self.column} {self.op} null: null is compared with = or != only.")
        elif number and (self.op in ("~", "!~") or isinstance(self.value, str) or math.isnan(self.value)):
            raise InputError(
                f"{self.column} {self.op} {self.value!r}: the column holds numbers; compare it with >= <= = != > < and a number."
            )
        elif not number and (self.op in (">", "<", ">=", "<=") or not isinstance(self.value, str)):
            raise InputError(
                f"{self.column} {self.op} {self.value!r}: the column holds text; compare it with = != ~ !~ and text."
            )

    def to_sql(self) -> tuple[str, list[Any]]:
        """A condition of SQL over the table of features and its parameters; not for conditions on tokens."""
        name = f'"{self.column}"'
        if self.value is None:
            return f"{name} IS {'NOT ' if self.op == '!=' else ''}NULL", []
        if self.op == "~":
            return f"contains(lower({name}), lower(?))", [self.value]
        if self.op == "!~":
            return f"NOT coalesce(contains(lower({name}), lower(?)), false)", [self.value]
        value: float | int | str = self.value
        if COLUMNS[self.column] == "float" and not isinstance(value, str):
            with np.errstate(over="ignore"):
                value = float(np.float32(value))  # 0.9 is then the 0.9 of a float32 column
        if self.op == "!=":
            return f"{name} IS DISTINCT FROM ?", [value]
        return f"{name} {_SQL[self.op]} ?", [value]


def require_column(name: str) -> str:
    """The name, if features or hints have such a column.

    Raises:
        InputError: suggests the nearest names.
    """
    if name not in COLUMNS:
        near = difflib.get_close_matches(name, [*COLUMNS, *TOKEN_COLUMNS], n=3, cutoff=0.5)
        raise InputError(
            f"There is no column {name!r}.",
            hint=f"Did you mean {' or '.join(near)}?" if near else f"Columns: {', '.join((*COLUMNS, *TOKEN_COLUMNS))}.",
        )
    return name


def parse_filter(text: str) -> Filter:
    """Read one condition.

    Raises:
        InputError: it has no such form, the column is unknown, or the value is not of the column's type.
    """
    parts = _FILTER.fullmatch(text)
    if parts is None:
        raise InputError(
            f"{text!r} is not a condition. It needs a column, one of >= <= != = > < ~ !~, and a value.",
            hint="For example: density>=0.001, class=punctuation, label~berlin, max=null.",
        )
    column, op, value = parts[1], "=" if parts[2] == "==" else parts[2], parts[3].strip()
    if value == "null":
        return Filter(column, op, None)
    if COLUMNS.get(column) in _NUMBERS:
        return Filter(column, op, _number(column, value))
    quoted = len(value) >= 2 and value[0] == value[-1] == '"'
    if column in TOKEN_COLUMNS and re.fullmatch(r"\d{1,9}", value):
        return Filter(column, op, int(value))
    return Filter(column, op, value[1:-1] if quoted else value)


def parse_filters(where: str | Filter | Iterable[str | Filter]) -> list[Filter]:
    """Read one condition or several, all of which must hold."""
    given = [where] if isinstance(where, str | Filter) else list(where)
    return [one if isinstance(one, Filter) else parse_filter(one) for one in given if one != ""]


def _number(column: str, value: str) -> float | int:
    try:
        whole = int(value)
    except ValueError:
        pass
    else:
        return whole if -(2**63) <= whole < 2**63 else float(whole)  # SQL has no larger whole numbers
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"{column}: {value!r} is not a number.") from error
