"""The feature table: rows that meet the conditions, page by page in an order, and its scatter.

Pages go on from the last feature of the page before (keyset), so that nothing is skipped or shown twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

from neuronmap.errors import InputError
from neuronmap.features.export.records import finite
from neuronmap.features.storage.conditions import Filter
from neuronmap.web.opened import Home, OpenAnalysis
from neuronmap.web.plotly import MOST_POINTS
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.columns import TABLE_COLUMNS, Cell, ColumnHead, cell, head_of
from neuronmap.web.views.table_query import FORM_FIELDS, Chip, Fault, TableQuery

if TYPE_CHECKING:
    import numpy.typing as npt

    from neuronmap.features.storage.store import FeatureStore

__all__ = [
    "Choice",
    "FeatureTable",
    "Paging",
    "Scatter",
    "TableForm",
    "feature_table",
    "filtered_rows",
    "paging",
    "scatter",
    "table_form",
]

ROWS_OF_A_PAGE = 50
STATUSES = ("alive", "dense", "rare", "never")


class Choice(BaseModel):
    """An entry of a selection."""

    value: str
    count: int = Field(description="Features of the whole analysis that have it.")


class Paging(BaseModel):
    """Where a page is in its order."""

    total: int = Field(description="Features of the SAE.")
    matching: int = Field(description="Features that meet the conditions.")
    first: int = Field(description="Place of the first row, from 1; 0 if there is none.")
    last: int = Field(description="Place of the last row.")
    begin: str = Field(default="", description="Address of the first page; empty on it.")
    previous: str = Field(default="", description="Address of the page before; empty on the first.")
    next: str = Field(default="", description="Address of the page after; empty on the last.")


class TableForm(BaseModel):
    """What the form over the table shows."""

    values: dict[str, str] = Field(description="Fields as they were sent.")
    where: list[str] = Field(description="Free conditions.")
    sort: str
    limit: int | None
    chips: list[Chip]
    faults: list[Fault]
    statuses: list[Choice]
    classes: list[Choice]
    columns: list[ColumnHead] = Field(description="All columns, for the chooser.")
    clear: str = Field(description="Address without conditions.")


class FeatureTable(BaseModel):
    """The table, one page of it."""

    basis: Basis
    form: TableForm
    paging: Paging
    heads: list[ColumnHead]
    features: list[int]
    given: dict[int, str] = Field(
        default_factory=dict,
        description="Who gave the label of a feature; those that are not here have that of their rule.",
    )
    rows: list[list[Cell]] = Field(description="One list a row, in the order of the heads.")
    csv: str = Field(description="All matching rows as CSV.")
    jsonl: str = Field(description="The same as JSON lines.")
    cards: str = Field(description="The same features as cards.")
    scatter: str = Field(description="Points of the scatter; empty where there is none.")


@dataclass(frozen=True)
class Found:
    """Features of one page, and where it is."""

    features: list[int]
    order_M: npt.NDArray[np.int64]
    place: int

    limit: int

    @property
    def cursor_before(self) -> int | None:
        """The feature that the page before begins after; None where that page is the first."""
        return int(self.order_M[self.place - self.limit - 1]) if self.place > self.limit else None


def find(analysed: OpenAnalysis, query: TableQuery, limit: int, conditions: list[Filter] | None) -> Found:
    """The features of the page that a query is at; none without conditions.

    Args:
        analysed: the analysis.
        query: order and cursor.
        limit: most features of a page.
        conditions: what they meet; None where one of them cannot be read.

    Raises:
        InputError: an unknown column to sort by, or the cursor is no feature.
    """
    sort = query.order()
    if conditions is None:
        return Found([], np.empty(0, np.int64), 0, limit)
    queries = analysed.store.queries

    def order() -> npt.NDArray[np.int64]:
        rows = queries.select(conditions, sort=sort, limit=None, columns=["feature"])
        return np.asarray(rows.to_arrow()["feature"].to_numpy())

    order_M = analysed.orders.get((sort, *conditions), order)
    if query.after is None:
        place = 0
    else:
        at = np.flatnonzero(order_M == query.after)
        if len(at):
            place = int(at[0]) + 1
        else:  # the cursor does not meet the conditions (any more): where it would stand
            rest = queries.select(conditions, sort=sort, limit=1, after=query.after, columns=["feature"]).features
            place = int(np.flatnonzero(order_M == rest[0])[0]) if rest else len(order_M)
    return Found(order_M[place : place + limit].tolist(), order_M, place, limit)


def paging(home: Home, page: str, query: TableQuery, found: Found, total: int) -> Paging:
    """Counts and neighbouring pages."""
    shown, place, matching = len(found.features), found.place, len(found.order_M)
    more = place + shown < matching
    return Paging(
        total=total,
        matching=matching,
        first=place + 1 if shown else 0,
        last=place + shown,
        begin=query.address(home, page) if place else "",
        previous=query.address(home, page, after=found.cursor_before) if place else "",
        next=query.address(home, page, after=found.features[-1]) if more and shown else "",
    )


def table_form(analysed: OpenAnalysis, page: str, query: TableQuery, faults: list[Fault]) -> TableForm:
    """The form with what was sent."""
    home, store = analysed.home, analysed.store
    values = query.model_dump(
        mode="json", by_alias=True, exclude={"where", "columns", "after", "column", "op", "value"}
    )
    chosen = set(query.columns) or {name for name in TABLE_COLUMNS if head_of(name).default}
    heads = [head_of(name) for name in TABLE_COLUMNS]
    for head in heads:
        head.shown = head.name in chosen or head.name == "feature"
    bare: dict[str, Any] = {"where": [], **dict.fromkeys(FORM_FIELDS, "")}
    return TableForm(
        values={name: "" if value is None else str(value) for name, value in values.items()},
        where=query.free(),
        sort=query.sort,
        limit=query.limit,
        chips=query.chips(home, page),
        faults=faults,
        statuses=_counted(store, "status", STATUSES),
        classes=_counted(store, "class", ()),
        columns=heads,
        clear=query.address(home, page, **bare),
    )


def _counted(store: FeatureStore, column: str, order: tuple[str, ...]) -> list[Choice]:
    """Values of a column with how often they come; in an order, else the most frequent first."""
    found = store.queries.values_of(column)
    names = [name for name in order if name in found] or sorted(found, key=lambda name: (-found[name], name))
    return [Choice(value=name, count=found[name]) for name in names]


def feature_table(analysed: OpenAnalysis, query: TableQuery) -> FeatureTable:
    """One page of the table; without rows where a condition cannot be read, which the form then says.

    Raises:
        InputError: an unknown column.
    """
    home, store = analysed.home, analysed.store
    conditions, faults = query.conditions(store)
    shown = ["feature", *query.shown_columns()]
    heads = [_sorted(head_of(name), home, query) for name in shown]
    found = find(analysed, query, query.limit or ROWS_OF_A_PAGE, None if faults else conditions)
    rows = rows_of(store, found.features, shown)
    given = store.given(found.features) if "label" in shown else {}
    for row in rows:
        if row["feature"] in given:
            row["label"] = given[row["feature"]].text
    plain: dict[str, Any] = {"columns": [], "limit": None, "after": None}
    return FeatureTable(
        basis=Basis.of(analysed),
        form=table_form(analysed, "features", query, faults),
        paging=paging(home, "features", query, found, store.num_features),
        heads=heads,
        features=found.features,
        given={feature: one.author for feature, one in given.items()},
        rows=[[cell(name, row[name]) for name in shown] for row in rows],
        csv=query.address(home, "features.csv", **plain),
        jsonl=query.address(home, "features.jsonl", **plain),
        cards=query.address(home, "cards", columns=[]),
        scatter="" if home.alone else query.address(home, "features-scatter.json", **plain, sort=""),
    )


def rows_of(store: FeatureStore, features: list[int], columns: list[str]) -> list[dict[str, Any]]:
    """Rows of features, in the order given; NaN is null."""
    return [finite(row) for row in store.queries.take(features, columns)]


def _sorted(head: ColumnHead, home: Home, query: TableQuery) -> ColumnHead:
    """A head that leads to its order: first from the largest down for figures, from A on for texts."""
    name, backwards = query.sort.removeprefix("-"), query.sort.startswith("-")
    if name == head.name:
        head.sorted = "descending" if backwards else "ascending"
        head.sort = query.address(home, "features", sort=name if backwards else f"-{name}")
    else:
        head.sort = query.address(home, "features", sort=f"-{head.name}" if head.number else head.name)
    return head


def filtered_rows(store: FeatureStore, query: TableQuery) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Columns and all matching rows, for export.

    Raises:
        InputError: a condition or column that cannot be read.
    """
    conditions, faults = query.conditions(store)
    if faults:
        raise InputError(faults[0].message, hint=faults[0].hint)
    columns = ["feature", *query.shown_columns()] if query.columns else list(TABLE_COLUMNS)
    table = store.queries.select(conditions, sort=query.order(), limit=None, columns=columns).to_arrow()
    rows = (finite(row) for batch in table.to_batches(max_chunksize=1000) for row in batch.to_pylist())
    return columns, rows


class Scatter(BaseModel):
    """Points of density against largest activation, of features that fired."""

    features: list[int]
    density: list[float]
    max: list[float]
    status: list[int] = Field(description="Place in statuses.")
    statuses: list[str]
    total: int = Field(description="Features that meet the conditions and fired.")
    sampled: bool = Field(description="Whether the points are a sample of them.")


def scatter(store: FeatureStore, query: TableQuery) -> Scatter:
    """Points of the features that meet the conditions, those on density and maximum apart; at most :data:`MOST_POINTS`.

    Raises:
        InputError: a condition that cannot be read.
    """
    conditions, faults = query.conditions(store, without=("density", "max"))
    if faults:
        raise InputError(faults[0].message, hint=faults[0].hint)
    fired = [*conditions, Filter("firings", ">", 0)]
    table = store.queries.select(fired, limit=None, columns=["density", "max", "status"]).to_arrow()
    total = len(table)
    if total > MOST_POINTS:  # drawn once and for all, so that the same points come each time
        table = table.take(np.sort(np.random.default_rng(0).choice(total, MOST_POINTS, replace=False)))
    return Scatter(
        features=table["feature"].to_pylist(),
        density=[float(f"{value:.4g}") for value in table["density"].to_pylist()],
        max=[float(f"{value:.4g}") for value in table["max"].to_pylist()],
        status=[STATUSES.index(name) for name in table["status"].to_pylist()],
        statuses=list(STATUSES),
        total=total,
        sampled=total > MOST_POINTS,
    )
