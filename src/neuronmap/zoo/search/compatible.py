"""Which SAEs fit a model and a place in it, and why."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, and_, case, false, func, or_

from neuronmap.zoo.document import Document
from neuronmap.zoo.people.principal import Principal, visible
from neuronmap.zoo.search.conditions import joined, of_model
from neuronmap.zoo.search.hits import SHOWN, hit_values
from neuronmap.zoo.search.query import CompatibilityQuery
from neuronmap.zoo.search.words import folded_model
from neuronmap.zoo.tables import artefacts, search_documents
from neuronmap.zoo.views import SearchHit

__all__ = ["CompatibilityHit", "CompatibilityPage", "Fit", "compatible"]

Fit = Literal["exact", "name", "declared", "revision", "tokenizer", "width"]
"""From the best to the least: equal weights; the same model by name; said to fit by its authors; the model's name, but other weights;
another model with an equal tokenizer; another model of the same width."""
_FITS: tuple[Fit, ...] = ("exact", "name", "declared", "revision", "tokenizer", "width")
_documents = search_documents.c


class CompatibilityHit(SearchHit):
    """An SAE that can be used, or at least tried."""

    fit: Fit
    """exact, name, declared, revision, tokenizer or width, from the best to the least."""
    usable: bool
    """Whether it is for this model, not merely of its width."""
    reasons: tuple[str, ...]
    """Sentences: what agrees, what differs, what is not known."""


class CompatibilityPage(Document):
    """SAEs for a model and a place, the best first."""

    hits: tuple[CompatibilityHit, ...]
    """The best fit first, then the most stars."""
    total: int
    """How many there are."""


def compatible(connection: Connection, principal: Principal, query: CompatibilityQuery) -> CompatibilityPage:
    """The newest version of every SAE that fits, best first.

    Width, layer and component must agree where they are asked for and known; what the model is decides on the rank.

    Args:
        connection: within a transaction.
        principal: what they may not see is not found.
        query: the model and the place.
    """
    rank = _rank(query)
    where = [
        _documents.kind == "SAE_MODEL",
        _documents.findable,
        _documents.newest,
        visible(principal, connection),
        rank.is_not(None),
        *_place(query),
    ]
    rows = connection.execute(
        joined([*SHOWN, rank.label("rank")])
        .where(*where)
        .order_by(rank, artefacts.c.stars.desc(), _documents.published_at.desc(), _documents.version_id.desc())
        .limit(query.limit)
    ).all()
    total = connection.scalar(joined([func.count()]).where(*where)) or 0
    hits = []
    for row, values in zip(rows, hit_values(connection, rows), strict=True):
        fit = _FITS[row.rank]
        usable = fit in ("exact", "name", "declared")
        hits.append(CompatibilityHit(**values, fit=fit, usable=usable, reasons=tuple(_reasons(query, row, fit))))
    return CompatibilityPage(hits=tuple(hits), total=total)


def _rank(query: CompatibilityQuery) -> ColumnElement[Any]:
    """Number of the fit; NULL for none."""
    same_weights = _documents.model_digest == query.model_digest if query.model_digest else false()
    other_weights = (
        and_(_documents.model_digest.is_not(None), _documents.model_digest != query.model_digest)
        if query.model_digest
        else false()
    )
    named = of_model(query.model) if query.model else false()
    declared = (
        _documents.fits_models.contains(f"\n{folded_model(query.model)}\n", autoescape=True) if query.model else false()
    )
    tokenizer = _documents.tokenizer_digest == query.tokenizer_digest if query.tokenizer_digest else false()
    width = _documents.d_in == query.d_in if query.d_in is not None else false()
    return case(
        (same_weights, 0),
        (and_(named, or_(other_weights.is_(False), _documents.model_digest.is_(None))), 1),
        (declared, 2),
        (named, 3),
        (tokenizer, 4),
        (width, 5),
    )


def _place(query: CompatibilityQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.d_in is not None:
        found.append(_documents.d_in == query.d_in)
    if query.layer is not None:
        declared = _documents.fits_layers.contains(f"\n{query.layer}\n", autoescape=True)
        found.append(or_(_documents.layer == query.layer, _documents.layer.is_(None), declared))
    if query.component is not None:
        found.append(or_(_documents.component == query.component, _documents.component.is_(None)))
    return found


def _reasons(query: CompatibilityQuery, row: Any, fit: Fit) -> list[str]:
    of_model_ = {
        "exact": f"It was trained on exactly these weights ({row.model}).",
        "name": f"It was trained on {row.model}; whether on these weights is not known.",
        "declared": f"It was trained on {row.model}; its authors say that it fits {query.model} as well.",
        "revision": f"It was trained on another revision of {row.model}: other weights.",
        "tokenizer": f"It was trained on another model ({row.model}) with the same tokenizer.",
        "width": f"It was trained on another model ({row.model}) of the same width, {row.d_in}.",
    }
    found = [of_model_[fit]]
    if query.tokenizer_digest and fit != "tokenizer":
        if row.tokenizer_digest is None:
            found.append("Its tokenizer is not known.")
        elif row.tokenizer_digest != query.tokenizer_digest:
            found.append("Its model had another tokenizer.")
        else:
            found.append("Its model had the same tokenizer.")
    if query.d_in is not None and fit != "width":
        found.append(f"It reads activations of the same width, {row.d_in}.")
    if query.layer is not None:
        if row.layer is None:
            found.append("Which layer it reads is not said.")
        elif row.layer == query.layer:
            found.append(f"It reads layer {row.layer}.")
        else:
            found.append(
                f"It was trained on layer {row.layer}; its authors say that it fits layer {query.layer} as well."
            )
    if query.component is not None:
        found.append(
            f"It reads {row.component}." if row.component else "Which component of the block it reads is not said."
        )
    return found
