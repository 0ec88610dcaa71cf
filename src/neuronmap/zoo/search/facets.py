"""How many hits each value of a filter would leave: what a page for browsing offers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, ColumnElement, Connection, func

from neuronmap.zoo.document import Document
from neuronmap.zoo.people.principal import Principal
from neuronmap.zoo.search.conditions import conditions, joined, matching
from neuronmap.zoo.search.index import SearchIndex
from neuronmap.zoo.search.query import Query
from neuronmap.zoo.tables import search_documents

__all__ = ["FacetValue", "Facets", "facets"]

_MOST_VALUES = 50


class FacetValue(Document):
    """A value of a filter."""

    value: str
    """As the filter takes it."""
    count: int
    """Hits with it, all other conditions holding."""


class Facets(Document):
    """Values that a search can be narrowed to, the most frequent first. A filter's own setting does not narrow its own list."""

    total: int
    """Hits of the search as it is."""
    kinds: tuple[FacetValue, ...]
    """For ``kind``."""
    models: tuple[FacetValue, ...]
    """For ``model``; without owner."""
    architectures: tuple[FacetValue, ...]
    """For ``architecture``."""
    licences: tuple[FacetValue, ...]
    """For ``licence``."""


def facets(connection: Connection, index: SearchIndex, principal: Principal, query: Query) -> Facets:
    """Count by kind, model, architecture and licence; the query's order and cursor do not count.

    Args:
        connection: within a transaction.
        index: of the texts.
        principal: what they may not see is not counted.
        query: the search.
    """
    text = matching(index, query, scored=False)
    documents = search_documents.c

    def values(field: str, column: ColumnElement[Any]) -> tuple[FacetValue, ...]:
        return _counted(connection, column, text, conditions(connection, principal, query, but=field))

    total = connection.scalar(joined([func.count()], text).where(*conditions(connection, principal, query)))
    return Facets(
        total=total or 0,
        kinds=values("kind", documents.kind),
        models=values("model", documents.model_folded),
        architectures=values("architecture", documents.architecture),
        licences=values("licence", documents.licence),
    )


def _counted(
    connection: Connection, column: ColumnElement[Any], text: CTE | None, where: list[Any]
) -> tuple[FacetValue, ...]:
    count = func.count()
    asked = joined([column, count], text).where(*where, column.is_not(None)).group_by(column)
    rows = connection.execute(asked.order_by(count.desc(), column).limit(_MOST_VALUES))
    return tuple(FacetValue(value=value, count=number) for value, number in rows)
