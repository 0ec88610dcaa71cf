"""What must hold of a document, as SQL conditions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import CTE, Connection, Select, and_, exists, func, or_, select

from neuronmap.zoo.people.principal import Principal, visible
from neuronmap.zoo.search.index import SearchIndex
from neuronmap.zoo.search.query import Query
from neuronmap.zoo.search.words import folded_model, terms_of
from neuronmap.zoo.tables import artefacts, figures, namespaces, search_documents, tags, versions

__all__ = ["conditions", "joined", "matching", "of_model"]

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_documents = search_documents.c


def joined(columns: Iterable[Any], text: CTE | None = None) -> Select[Any]:
    """Documents with their versions, artefacts and namespaces, and with the score of a text where one is asked for."""
    asked = (
        select(*columns)
        .select_from(search_documents)
        .join(versions, versions.c.id == _documents.version_id)
        .join(artefacts, artefacts.c.id == versions.c.artefact_id)
        .join(namespaces, namespaces.c.id == artefacts.c.namespace_id)
    )
    return asked if text is None else asked.join(text, text.c.version_id == _documents.version_id)


def matching(index: SearchIndex, query: Query, *, scored: bool = True) -> CTE | None:
    """The documents that hold the query's words; None without words."""
    terms = terms_of(query.q)
    return index.matching(terms, scored=scored) if terms else None


def conditions(connection: Connection, principal: Principal, query: Query, *, but: str = "") -> list[Any]:
    """Every condition besides the words.

    Args:
        connection: within a transaction.
        principal: what they may not see is not found.
        query: the search.
        but: a field to leave out.
    """
    found = [_documents.findable, visible(principal, connection)]
    if not query.all_versions:
        found.append(_documents.newest)
    if query.q.strip() and not terms_of(query.q):
        found.append(_documents.version_id < 0)  # nothing holds a word without letters and digits
    for name in ("kind", "hook", "layer", "component", "architecture", "d_in", "licence", "namespace"):
        value = getattr(query, name)
        if value is not None and name != but:
            found.append(_documents[name] == value)
    if query.model is not None and but != "model":
        found.append(of_model(query.model))
    found += [_has_tag(tag) for tag in query.tag]
    bounds = (
        (_documents.width, query.width_min, query.width_max),
        (_documents.l0, query.l0_min, query.l0_max),
    )
    for column, least, most in bounds:
        if least is not None:
            found.append(column >= least)
        if most is not None:
            found.append(column <= most)
    for condition in query.conditions:
        found.append(_has_figure(condition.name, _OPERATORS[condition.operator](figures.c.value, condition.value)))
    if query.author is not None:
        found.append(_documents.authors_folded.contains(query.author.lower(), autoescape=True))
    if query.private is not None:
        found.append(artefacts.c.private.is_(query.private))
    return found


def of_model(name: str) -> Any:
    """Documents of a language model: by its full name, or by the last part where one of the two names no owner."""
    same = func.lower(_documents.model) == name.lower()
    folded = _documents.model_folded == folded_model(name)
    return or_(same, and_(folded, _documents.model.not_like("%/%")) if "/" in name else folded)


def _has_tag(tag: str) -> Any:
    return exists().where(tags.c.version_id == _documents.version_id, tags.c.tag == tag.lower())


def _has_figure(name: str, bound: Any) -> Any:
    return exists().where(figures.c.version_id == _documents.version_id, figures.c.name == name, bound)
