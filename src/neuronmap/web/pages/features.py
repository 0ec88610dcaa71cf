"""All features of an SAE: as a table, as cards, as a file, as points of a scatter."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from neuronmap.web.caching import unchanged
from neuronmap.web.downloads import csv_download, jsonl_download
from neuronmap.web.errors import responses
from neuronmap.web.rendering import render
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.cards import CardsPage, cards_page
from neuronmap.web.views.feature_table import FeatureTable, Scatter, feature_table, filtered_rows, scatter
from neuronmap.web.views.table_query import TableQuery
from neuronmap.web.views.unreadable import or_faults

__all__ = ["router"]

router = PageRouter()

Asked = Annotated[TableQuery, Query()]


@router.page("/sae/{sae:path}/-/features", "features.html")
def features(request: Request, explorer: ExplorerOf, sae: str, query: Asked) -> FeatureTable:
    """All features in a table: filter, sort, choose columns, page."""
    table: FeatureTable = or_faults(
        request, "features.html", feature_table(explorer.analysed(sae, query.analysis), query)
    )
    return table


@router.page("/sae/{sae:path}/-/cards", "cards.html")
def cards(request: Request, explorer: ExplorerOf, sae: str, query: Asked) -> CardsPage:
    """The same features as cards: label, histogram, tokens, three snippets."""
    page: CardsPage = or_faults(request, "cards.html", cards_page(explorer.analysed(sae, query.analysis), query))
    return page


@router.get("/sae/{sae:path}/-/cards-more", include_in_schema=False, response_class=HTMLResponse)
def more_cards(request: Request, explorer: ExplorerOf, sae: str, query: Asked) -> Response:
    """The next cards only, for a page that already shows the first ones."""
    page = cards_page(explorer.analysed(sae, query.analysis), query)
    return render(request, "_cards.html", {"page": page})


@router.get(
    "/sae/{sae:path}/-/features.csv",
    tags=["pages"],
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}, "description": "All matching rows."}, **responses(404, 409, 422)},
)
def features_csv(request: Request, explorer: ExplorerOf, sae: str, query: Asked) -> Response:
    """All features that meet the conditions, as CSV: every column, or those of `columns`."""
    analysed = explorer.analysed(sae, query.analysis)
    tag = analysed.etag_of(request)
    if (same := unchanged(request, tag)) is not None:
        return same
    columns, rows = filtered_rows(analysed.store, query)
    return csv_download(f"{sae}-features.csv", columns, rows, tag)


@router.get(
    "/sae/{sae:path}/-/features.jsonl",
    tags=["pages"],
    response_class=Response,
    responses={
        200: {"content": {"application/x-ndjson": {}}, "description": "All matching rows."},
        **responses(404, 409, 422),
    },
)
def features_jsonl(request: Request, explorer: ExplorerOf, sae: str, query: Asked) -> Response:
    """The same as JSON lines."""
    analysed = explorer.analysed(sae, query.analysis)
    tag = analysed.etag_of(request)
    if (same := unchanged(request, tag)) is not None:
        return same
    _, rows = filtered_rows(analysed.store, query)
    return jsonl_download(f"{sae}-features.jsonl", rows, tag)


@router.get(
    "/sae/{sae:path}/-/features-scatter.json",
    tags=["pages"],
    response_model=Scatter,
    responses=responses(404, 409, 422),
)
def features_scatter(explorer: ExplorerOf, sae: str, query: Asked) -> Response:
    """Density and largest activation of the features that meet the other conditions; a sample where there are many."""
    points = scatter(explorer.analysed(sae, query.analysis).store, query)
    return JSONResponse(points.model_dump(mode="json"))
