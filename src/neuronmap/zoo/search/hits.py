"""Rows of documents, to be shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from neuronmap.zoo.digests import Digest
from neuronmap.zoo.registry.rows import time_text
from neuronmap.zoo.tables import artefacts, figures, search_documents, tags, versions

__all__ = ["SHOWN", "hit_values"]

SHOWN = (
    *(column for column in search_documents.c if column.name != "body"),
    versions.c.label,
    versions.c.digest,
    versions.c.state,
    versions.c.size_bytes,
    artefacts.c.stars,
)
"""Columns that a hit is made of."""
_AS_THEY_ARE = (
    "kind",
    "title",
    "summary",
    "state",
    "model",
    "hook",
    "layer",
    "component",
    "architecture",
    "d_in",
    "width",
    "l0",
    "licence",
    "stars",
)


def hit_values(connection: Connection, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Fields of :class:`neuronmap.zoo.views.SearchHit` for rows of :data:`SHOWN`, with their tags and figures."""
    numbers = [row.version_id for row in rows]
    words: dict[int, list[str]] = {}
    for number, tag in connection.execute(
        select(tags.c.version_id, tags.c.tag).where(tags.c.version_id.in_(numbers)).order_by(tags.c.tag)
    ):
        words.setdefault(number, []).append(tag)
    values: dict[int, dict[str, float]] = {}
    for number, name, value in connection.execute(
        select(figures).where(figures.c.version_id.in_(numbers)).order_by(figures.c.name)
    ):
        values.setdefault(number, {})[name] = value
    return [
        {
            **{name: getattr(row, name) for name in _AS_THEY_ARE},
            "reference": f"{row.namespace}/{row.name}@{row.label}",
            "digest": Digest(row.digest),
            "authors": tuple(row.authors),
            "tags": tuple(words.get(row.version_id, ())),
            "metrics": values.get(row.version_id, {}),
            "size": row.size_bytes,
            "published": time_text(row.published_at),
        }
        for row in rows
    ]
