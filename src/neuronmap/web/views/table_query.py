"""What the feature table is asked: the fields of its form, as they stand in the address, and the conditions that they mean."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from neuronmap.errors import InputError
from neuronmap.features.storage.conditions import TOKEN_COLUMNS, Filter, parse_filter, require_column
from neuronmap.features.storage.store import FeatureStore
from neuronmap.web.opened import Home
from neuronmap.web.views.columns import DEFAULT_COLUMNS, TABLE_COLUMNS

__all__ = ["FORM_FIELDS", "Chip", "Fault", "TableQuery", "condition"]

_Short = Annotated[str, Field(default="", max_length=200)]
_BOUNDS = {
    "density_min": ("density", ">="),
    "density_max": ("density", "<="),
    "max_min": ("max", ">="),
    "max_max": ("max", "<="),
    "f1_min": ("f1", ">="),
}
_TEXTS = {
    "status": ("status", "="),
    "class_": ("class", "="),
    "label": ("label", "~"),
    "fires_on": ("fires_on", "="),
    "promotes": ("promotes", "="),
}
FORM_FIELDS = (*_TEXTS, *_BOUNDS)
"""Fields that each mean a condition."""


class Chip(BaseModel):
    """One condition that holds, with the way to take it away."""

    text: str
    remove: str = Field(description="Address of the table without it.")


class Fault(BaseModel):
    """A condition that cannot be read."""

    condition: str
    message: str
    hint: str
    field: str = Field(description="The field of the form that it came from; empty for a free condition.")


class TableQuery(BaseModel):
    """Filters, order, columns and place of the feature table."""

    model_config = ConfigDict(populate_by_name=True)

    analysis: str = Field(default="", max_length=100, description="Name of the analysis; the newest when left out.")
    where: list[Annotated[str, Field(max_length=300)]] = Field(
        default_factory=list, max_length=20, description="Free conditions, such as `density>=0.001`; all must hold."
    )
    column: str = Field(default="", max_length=60, description="With `op` and `value`: one more condition.")
    op: str = Field(default="=", max_length=2)
    value: str = Field(default="", max_length=200)
    status: _Short = ""
    class_: str = Field(default="", max_length=200, alias="class", description="Firing class.")
    label: _Short = ""
    fires_on: _Short = ""
    promotes: _Short = ""
    density_min: _Short = ""
    density_max: _Short = ""
    max_min: _Short = ""
    max_max: _Short = ""
    f1_min: _Short = ""
    sort: str = Field(default="feature", max_length=60, description="A column; with - in front from the largest down.")
    after: int | None = Field(default=None, ge=0, lt=2**31, description="The last feature of the page before.")
    limit: int | None = Field(default=None, ge=1, le=500, description="Rows or cards of a page.")
    columns: list[Annotated[str, Field(max_length=60)]] = Field(default_factory=list, max_length=100)

    # --- what it means -----------------------------------------------------------------------------------------------

    def free(self) -> list[str]:
        """The free conditions, the one made with ``column``, ``op`` and ``value`` last."""
        made = [f"{self.column}{self.op}{_quoted(self.value)}"] if self.column and self.value != "" else []
        return [*(one for one in self.where if one.strip()), *made]

    def conditions(self, store: FeatureStore, without: tuple[str, ...] = ()) -> tuple[list[Filter], list[Fault]]:
        """The conditions that can be read, and what is wrong with the others.

        Args:
            store: the analysis; whether a token exists is its vocabulary's to say.
            without: columns whose bounds are left out.
        """
        found, faults = list[Filter](), list[Fault]()
        for field, text in self._given():
            try:
                one = condition(text)
                if one.column in TOKEN_COLUMNS:
                    store.tables.require(TOKEN_COLUMNS[one.column])
                    store.queries.tokens_of(one.value)  # type: ignore[arg-type]
                if one.column not in without:
                    found.append(one)
            except InputError as error:
                faults.append(Fault(condition=text, message=error.message, hint=error.hint, field=field))
        return found, faults

    def order(self) -> str:
        """The order, checked.

        Raises:
            InputError: there is no such column.
        """
        require_column(self.sort.removeprefix("-"))
        return self.sort

    def shown_columns(self) -> list[str]:
        """Columns that are shown, in the schema's order except for the usual ones.

        Raises:
            InputError: there is no such column.
        """
        if not self.columns:
            return list(DEFAULT_COLUMNS)
        chosen = {require_column(name) for name in self.columns if name} - {"feature"}
        usual = [name for name in DEFAULT_COLUMNS if name in chosen]
        return usual + [name for name in TABLE_COLUMNS if name in chosen and name not in usual]

    def _given(self) -> list[tuple[str, str]]:
        """(field, condition) of all that was given."""
        given = [("", text) for text in self.free()]
        for field, (column, op) in {**_TEXTS, **_BOUNDS}.items():
            value = str(getattr(self, field))
            if value != "":
                given.append((field.rstrip("_"), f"{column}{op}{_quoted(value) if field in _TEXTS else value}"))
        return given

    # --- where it stands ---------------------------------------------------------------------------------------------

    def address(self, home: Home, page: str, **changes: Any) -> str:
        """Address of a page with this query, some of it changed; it begins at the first row unless ``after`` is given."""
        kept: dict[str, Any] = {"analysis": self.analysis, "where": self.free()}
        kept |= {name: getattr(self, name) for name in FORM_FIELDS}
        kept |= {
            "sort": "" if self.sort == "feature" else self.sort,
            "limit": self.limit,
            "columns": self.columns,
        }
        return home.path(page, **{**kept, **changes})

    def chips(self, home: Home, page: str) -> list[Chip]:
        """Every condition with the address without it."""
        free = self.free()
        chips = [
            Chip(text=text, remove=self.address(home, page, where=free[:at] + free[at + 1 :]))
            for at, text in enumerate(free)
        ]
        named = [(field, text) for field, text in self._given() if field]
        by_name = {field.rstrip("_"): field for field in FORM_FIELDS}
        return chips + [
            Chip(text=text, remove=self.address(home, page, **{by_name[field]: ""})) for field, text in named
        ]


def condition(text: str) -> Filter:
    """A condition as somebody typed it; a whole number that no column can hold is taken as a real one.

    Raises:
        InputError: it cannot be read.
    """
    found = parse_filter(text)
    if isinstance(found.value, int) and abs(found.value) >= 2**63:
        return Filter(found.column, found.op, float(found.value))
    return found


def _quoted(value: str) -> str:
    """A value whose spaces count; a token's id stays a number."""
    if value.isdigit() or value == "null" or (value.startswith('"') and value.endswith('"') and len(value) > 1):
        return value
    return f'"{value}"' if value != value.strip() or value == "" else value
