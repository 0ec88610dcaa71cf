"""Searching: conditions, an order, and one page after the other."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, ColumnElement, Connection, and_, func, or_, select

from neuronmap.zoo.people.principal import Principal
from neuronmap.zoo.search.conditions import conditions, joined, matching
from neuronmap.zoo.search.cursors import Cursor
from neuronmap.zoo.search.hits import SHOWN, hit_values
from neuronmap.zoo.search.index import SearchIndex
from neuronmap.zoo.search.query import Query
from neuronmap.zoo.tables import artefacts, figures, search_documents, versions
from neuronmap.zoo.views import SearchHit, SearchPage

__all__ = ["find"]


def find(connection: Connection, index: SearchIndex, principal: Principal, query: Query) -> SearchPage:
    """One page of what a search finds.

    Args:
        connection: within a transaction.
        index: of the texts.
        principal: what they may not see is neither found nor counted.
        query: the search.

    Raises:
        InputError: the cursor was not made by this search.
    """
    after = Cursor.read(query)
    text = matching(index, query, scored=query.sort.removeprefix("-") == "relevance")
    where = conditions(connection, principal, query)
    value, falling = _order(query, text)
    asked = joined([*SHOWN, value.label("sorted_by")], text).where(*where)
    if after is not None:
        asked = asked.where(_beyond(value, falling, after, _may_be_missing(query)))
    if _may_be_missing(query):
        asked = asked.order_by(value.is_(None))
    asked = asked.order_by(value.desc() if falling else value.asc(), search_documents.c.version_id.desc())
    asked = asked.limit(query.limit + 1)
    rows = connection.execute(asked).all()
    shown = rows[: query.limit]
    total = None
    if after is None:
        counted = joined([func.count()], matching(index, query, scored=False))
        total = connection.scalar(counted.where(*where)) or 0
    last = Cursor(shown[-1].sorted_by, shown[-1].version_id).write(query) if len(rows) > query.limit else None
    hits = tuple(SearchHit(**values) for values in hit_values(connection, shown))
    return SearchPage(hits=hits, next=last, total=total)


def _order(query: Query, text: CTE | None) -> tuple[ColumnElement[Any], bool]:
    """What the order goes by, and whether the greatest comes first. What has no value there comes last, either way."""
    name = query.sort.removeprefix("-")
    reversed_ = query.sort.startswith("-")
    if name == "relevance" and text is not None:
        return text.c.score, not reversed_
    if name.startswith("metric:"):
        figure = (
            select(figures.c.value)
            .where(figures.c.version_id == search_documents.c.version_id, figures.c.name == name[len("metric:") :])
            .scalar_subquery()
        )
        return figure, not reversed_
    columns: dict[str, tuple[ColumnElement[Any], bool]] = {
        "relevance": (search_documents.c.published_at, True),
        "newest": (search_documents.c.published_at, True),
        "stars": (artefacts.c.stars, True),
        "downloads": (versions.c.downloads, True),
        "name": (search_documents.c.namespace + "/" + search_documents.c.name, False),
        "width": (search_documents.c.width, False),
        "l0": (search_documents.c.l0, False),
    }
    column, falling = columns[name]
    return column, falling != reversed_


def _may_be_missing(query: Query) -> bool:
    """Whether what the order goes by can be NULL; to ask that of a column which cannot be would keep the database from its index."""
    name = query.sort.removeprefix("-")
    return name in ("width", "l0") or name.startswith("metric:")


def _beyond(value: ColumnElement[Any], falling: bool, after: Cursor, missing: bool) -> ColumnElement[bool]:
    later = search_documents.c.version_id < after.version_id
    if after.value is None:
        return and_(value.is_(None), later)
    further = value < after.value if falling else value > after.value
    rest = or_(further, and_(value == after.value, later))
    return or_(value.is_(None), rest) if missing else rest
