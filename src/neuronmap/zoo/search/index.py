"""Full text search, as each database does it by itself: FTS5 on SQLite, ``tsvector`` on PostgreSQL.

Both index the same words of :class:`neuronmap.zoo.tables.search_documents`, keep themselves up to date, and find the same
documents; how they rank them differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import CTE, Double, Integer, String, cast, column, func, literal, literal_column, select, table
from sqlalchemy.dialects.postgresql import TSVECTOR

from neuronmap.database import Database
from neuronmap.zoo.tables import search_documents

__all__ = ["SearchIndex", "search_index"]

_WEIGHTS = "4.0, 1.0, 2.0, 8.0"  # of title, body, namespace, name


class SearchIndex(Protocol):
    """Finds documents by words."""

    def matching(self, terms: Sequence[tuple[str, ...]], *, scored: bool = True) -> CTE:
        """Documents that hold every term, as a part of a query.

        Args:
            terms: as :func:`neuronmap.zoo.search.words.terms_of` gives them, at least one; of the last, the last word may go on.
            scored: False where the order does not count, which is quicker.

        Returns:
            Columns ``version_id`` and ``score``, which is greater for a better fit.
        """
        ...


class _SQLite:
    def matching(self, terms: Sequence[tuple[str, ...]], *, scored: bool = True) -> CTE:
        phrases = [f'"{" ".join(term)}"' for term in terms]  # words are letters and digits alone: nothing to escape
        asked = " AND ".join(phrases) + " *"
        index = table("zoo_search_text", column("rowid", Integer))
        score: Any = literal(0.0)
        if scored:
            score = -func.bm25(literal_column("zoo_search_text"), literal_column(_WEIGHTS), type_=Double)
        return (
            select(index.c.rowid.label("version_id"), score.label("score"))
            .where(literal_column("zoo_search_text", String).op("MATCH")(literal(asked, String)))
            .cte("matching")
            .prefix_with("MATERIALIZED")
        )


class _PostgreSQL:
    def matching(self, terms: Sequence[tuple[str, ...]], *, scored: bool = True) -> CTE:
        phrases = [" <-> ".join(f"'{word}'" for word in term) for term in terms]
        asked = func.to_tsquery("simple", " & ".join(f"({phrase})" for phrase in _going_on(phrases)))
        vector: Any = literal_column("zoo_search_documents.text_vector", TSVECTOR)
        score: Any = cast(func.ts_rank(vector, asked, type_=Double), Double) if scored else literal(0.0)
        return (
            select(search_documents.c.version_id, score.label("score"))
            .where(vector.op("@@")(asked))
            .cte("matching")
            .prefix_with("MATERIALIZED")
        )


def _going_on(phrases: list[str]) -> list[str]:
    return [*phrases[:-1], phrases[-1] + ":*"]


def search_index(database: Database) -> SearchIndex:
    """The index of a database."""
    return _SQLite() if database.is_sqlite else _PostgreSQL()
