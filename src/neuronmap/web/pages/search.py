"""Searching all features; what the numbers mean; the API as a page."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import BaseModel

from neuronmap.web.explorer import ExplorerOf
from neuronmap.web.rendering import PageRouter
from neuronmap.web.views.found import Found, search
from neuronmap.web.views.routes import RouteGroup, route_groups

__all__ = ["router"]

router = PageRouter()


class SearchPage(BaseModel):
    """What a search found."""

    sae: str
    saes: list[str]
    found: Found


class AboutPage(BaseModel):
    """What the numbers mean."""

    saes: int


class ApiPage(BaseModel):
    """The routes for scripts."""

    version: str
    groups: list[RouteGroup]


@router.page("/search", "search.html", nav="search")
def find(
    explorer: ExplorerOf,
    q: Annotated[
        str, Query(max_length=200, description="A token, words of a label, a piece of text, or a feature's number.")
    ] = "",
    sae: Annotated[str, Query(max_length=600, description="Of this SAE only.")] = "",
    limit: Annotated[int, Query(ge=1, le=100, description="Most results of a kind for each SAE.")] = 8,
) -> SearchPage:
    """Features by token, promoted token, label and example text."""
    saes = [entry.id for entry in explorer.entries() if not entry.problem and explorer.analyses(entry)]
    return SearchPage(sae=sae, saes=saes, found=search(explorer, q, sae=sae, limit=limit))


@router.page("/about", "about.html", errors=())
def about(explorer: ExplorerOf) -> AboutPage:
    """What the numbers of the explorer mean."""
    return AboutPage(saes=len(explorer.entries()))


@router.page("/api", "api.html", errors=())
def api_page(request: Request) -> ApiPage:
    """The routes for scripts, from the OpenAPI document."""
    document: dict[str, Any] = request.app.openapi()
    return ApiPage(version=document["info"]["version"], groups=route_groups(document))
