"""``/api/sae/features`` and what belongs to it: features of an SAE, one feature, its neighbours, examples and histogram."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from neuronmap.features.export.records import finite
from neuronmap.features.storage.store import FeatureRecord
from neuronmap.web.errors import WebError, responses
from neuronmap.web.explorer import Analysed
from neuronmap.web.parameters import Analysis, Number, SAEInQuery
from neuronmap.web.routing import ExplorerOf
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.columns import FeatureRow
from neuronmap.web.views.examples_of import Around, Kind, ShownExample, shown
from neuronmap.web.views.feature import FeaturePage, FeatureQuery, feature_page
from neuronmap.web.views.names import FeatureName, feature_names
from neuronmap.web.views.plot_data import plot_rows
from neuronmap.web.views.relations import Coactive, Lagged, Neighbour, relations
from neuronmap.web.views.table_query import condition

__all__ = ["router"]

router = APIRouter(prefix="/api/sae", tags=["features"])

Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]
Cursor = Annotated[int | None, Query(ge=0, lt=2**31, description="Cursor: the `next` of the page before.")]
Token = Annotated[
    str,
    Query(min_length=1, max_length=200, description="A token: its text, with or without a leading space, or its id.", examples=[" the"]),
]  # fmt: skip
Where = Annotated[
    list[Annotated[str, Field(max_length=300)]],
    Query(
        max_length=20,
        description="Conditions, all of which must hold: `density>=0.001`, `class=n-gram`, `label~berlin`, `fires_on= the`, "
        "`promotes= Paris`, `f1!=null`. Operators: >= <= != = > < ~ (contains) !~.",
        examples=[["status=alive", "f1>=0.5"]],
    ),
]
Columns = Annotated[
    list[Annotated[str, Field(max_length=60)]],
    Query(max_length=100, description="These columns only, and `feature`; all of them when left out.", examples=[["label", "density"]]),
]  # fmt: skip
ERRORS = responses(404, 409, 422)


class FeatureList(BaseModel):
    """Features that meet the conditions."""

    basis: Basis
    features: list[FeatureRow] = Field(description="Rows with the columns that were asked for.")
    total: int = Field(description="Features of the SAE.")
    matching: int = Field(description="Features that meet the conditions, on all pages.")
    next: int | None = Field(description="Cursor of the next page; null on the last.")


class FeatureFound(FeatureName):
    """A feature that has to do with a token."""

    token: int = Field(description="Id of the token.")
    token_text: str
    share_of_token: float | None = Field(default=None, description="Share of the token's places on which it fires.")
    share_of_feature: float | None = Field(default=None, description="Share of its firings that are on the token.")
    logit: float | None = Field(default=None, description="Direct logit of the token.")


class TokenFeatures(BaseModel):
    """Features of a token, the strongest first."""

    basis: Basis
    features: list[FeatureFound]


class NeighbourList(BaseModel):
    """Features that have to do with a feature, in one way."""

    basis: Basis
    feature: int
    kind: str
    neighbours: list[Neighbour | Coactive | Lagged]


class ExampleList(BaseModel):
    """Examples of a feature."""

    basis: Basis
    feature: int
    largest: float | None = Field(description="Its largest activation; null if it never fired.")
    examples: list[ShownExample]
    total: int = Field(description="Stored examples of the kind and group.")


class HistogramBin(BaseModel):
    """One bin."""

    bin: int
    low: float
    high: float
    firings: int


class HistogramAnswer(BaseModel):
    """Firings of a feature by activation."""

    basis: Basis
    feature: int
    firings: int
    bins: list[HistogramBin] = Field(description="All 64 bins; four to an octave.")


def checked_number(analysed: Analysed, number: int) -> FeatureRecord:
    """The feature of a number.

    Raises:
        WebError: 404 with the valid range and the nearest alive one.
    """
    store = analysed.store
    if number >= store.num_features:
        near = store.nearest_alive(number)
        raise WebError(
            404,
            "not_found",
            f"There is no feature {number}: features are 0 to {store.num_features - 1}.",
            hint="" if near is None else f"The nearest one that is alive is {near}.",
        )
    return store.feature(number)


@router.get("/features", summary="Features that meet conditions", response_model=FeatureList, responses=ERRORS)
def features(
    explorer: ExplorerOf,
    sae: SAEInQuery,
    analysis: Analysis = "",
    where: Where = [],  # noqa: B006 (FastAPI copies it)
    sort: Annotated[
        str, Query(max_length=60, description="A column; `-max` has the largest first. Nulls come last.")
    ] = "feature",
    limit: Limit = 100,
    after: Cursor = None,
    columns: Columns = [],  # noqa: B006
) -> Response:
    """Filter, sort and page all features of an SAE. Pages are by key: none is skipped or comes twice."""
    analysed = explorer.analysed(sae, analysis)
    queries = analysed.store.queries
    conditions = [condition(text) for text in where if text.strip()]
    rows = queries.select(conditions, sort=sort, limit=limit, after=_cursor(analysed, after), columns=columns or None)
    found = [finite(row) for row in rows]
    more = bool(found) and bool(
        queries.select(conditions, sort=sort, limit=1, after=found[-1]["feature"], columns=["feature"])
    )
    return JSONResponse(
        {
            "basis": Basis.of(analysed).model_dump(mode="json"),
            "features": found,
            "total": analysed.store.num_features,
            "matching": queries.count(conditions),
            "next": found[-1]["feature"] if more else None,
        }
    )


def _cursor(analysed: Analysed, after: int | None) -> int | None:
    return None if after is None else checked_number(analysed, after).feature


@router.get("/feature", summary="Everything of one feature", responses=ERRORS)
def feature(explorer: ExplorerOf, sae: SAEInQuery, feature: Number, analysis: Analysis = "") -> FeaturePage:
    """Numbers, label with its evidence, histograms, logits, tokens, relations, top examples: what its page shows."""
    analysed = explorer.analysed(sae, analysis)
    record = checked_number(analysed, feature)
    return feature_page(analysed, record.feature, FeatureQuery(analysis=analysis, all=True), "")


@router.get("/neighbours", summary="Features that have to do with one", responses=ERRORS)
def neighbours(
    explorer: ExplorerOf,
    sae: SAEInQuery,
    feature: Number,
    kind: Annotated[
        Literal["cosine", "coactive", "leads", "follows"],
        Query(
            description="Similar decoder direction; fires on the same tokens; fires on the token after; on the token before."
        ),
    ] = "cosine",
    analysis: Analysis = "",
    limit: Annotated[int, Query(ge=1, le=100, description="At most so many; twenty are stored.")] = 20,
) -> NeighbourList:
    """Features by decoder cosine, by firing together, or by firing one token later or earlier."""
    analysed = explorer.analysed(sae, analysis)
    found = relations(checked_number(analysed, feature))
    rows: list[Any] = list(found.neighbours if kind == "cosine" else getattr(found, kind))
    return NeighbourList(basis=Basis.of(analysed), feature=feature, kind=kind, neighbours=rows[:limit])


@router.get("/examples", summary="Examples of a feature", responses=ERRORS)
def examples(
    explorer: ExplorerOf,
    sae: SAEInQuery,
    feature: Number,
    kind: Annotated[
        Kind, Query(description="top, quantile, bin, random (silent) or hard (its token, yet silent).")
    ] = "top",
    group: Annotated[
        int | None, Query(ge=0, le=127, description="Quantile group (0 the weakest) or bin; all when left out.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="At most so many.")] = 50,
    context: Annotated[
        Around, Query(description="How much text: snippet, the stored window, or the full context.")
    ] = "window",
    analysis: Annotated[str, Query(max_length=100)] = "",
) -> ExampleList:
    """Stored examples with the activation of each piece of text; outside the stored window activations are not known and 0."""
    analysed = explorer.analysed(sae, analysis)
    record = checked_number(analysed, feature)
    found = [one for one in analysed.store.examples(feature, kind) if group is None or one.group == group]
    return ExampleList(
        basis=Basis.of(analysed),
        feature=feature,
        largest=finite(record.row["max"]),
        examples=[shown(one, context) for one in found[:limit]],
        total=len(found),
    )


@router.get("/histogram", summary="Firings of a feature by activation", responses=ERRORS)
def feature_histogram(
    explorer: ExplorerOf, sae: SAEInQuery, feature: Number, analysis: Analysis = ""
) -> HistogramAnswer:
    """Firings in each bin; edges grow by a factor."""
    analysed = explorer.analysed(sae, analysis)
    record = checked_number(analysed, feature)
    bins = [
        HistogramBin(bin=row["bin"], low=row["from"], high=row["to"], firings=row["firings"])
        for row in plot_rows(record, "histogram")[1]
    ]
    return HistogramAnswer(basis=Basis.of(analysed), feature=feature, firings=record.row["firings"], bins=bins)


@router.get("/fires_on", summary="Features that fire on a token", responses=ERRORS)
def fires_on(
    explorer: ExplorerOf, sae: SAEInQuery, token: Token, analysis: Analysis = "", limit: Limit = 50
) -> TokenFeatures:
    """Features that fire on the largest share of a token's places first."""
    return _of_token(explorer.analysed(sae, analysis), "firing_on", token, limit)


@router.get("/promotes", summary="Features that promote a token", responses=ERRORS)
def promotes(
    explorer: ExplorerOf, sae: SAEInQuery, token: Token, analysis: Analysis = "", limit: Limit = 50
) -> TokenFeatures:
    """Features that have a token among those they promote, by direct logit."""
    return _of_token(explorer.analysed(sae, analysis), "promoting", token, limit)


def _of_token(analysed: Analysed, question: str, token: str, limit: int) -> TokenFeatures:
    asked: int | str = int(token) if token.isascii() and token.isdigit() and len(token) < 10 else token
    rows = [finite(row) for row in getattr(analysed.store.queries, question)(asked, limit)]
    names = feature_names(analysed.store, [row["feature"] for row in rows])
    wanted = set(FeatureFound.model_fields) - set(FeatureName.model_fields)
    found = [
        FeatureFound(**name.model_dump(), **{field: row[field] for field in wanted if field in row})
        for name, row in zip(names, rows, strict=True)
    ]
    return TokenFeatures(basis=Basis.of(analysed), features=found)
