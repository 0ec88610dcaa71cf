"""Searching all features; what the numbers mean; the API as a page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from neuronmap.web.explorer import Explorer
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.found import Found, search
from neuronmap.web.views.meaning import search_meaning
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
async def find(
    explorer: ExplorerOf,
    q: Annotated[
        str, Query(max_length=200, description="A token, words of a label, a piece of text, or a feature's number.")
    ] = "",
    sae: Annotated[str, Query(max_length=600, description="Of this SAE only.")] = "",
    limit: Annotated[int, Query(ge=1, le=100, description="Most results of a kind for each SAE.")] = 8,
    by: Annotated[
        Literal["words", "meaning"], Query(description="What is written, or what is near in meaning.")
    ] = "words",
) -> SearchPage:
    """Features by token, promoted token, label and example text, or by meaning."""
    saes = await run_in_threadpool(_analysed_saes, explorer)
    if by == "meaning":
        return SearchPage(sae=sae, saes=saes, found=await search_meaning(explorer, q, sae=sae, limit=limit))
    return SearchPage(sae=sae, saes=saes, found=await run_in_threadpool(search, explorer, q, sae=sae, limit=limit))


def _analysed_saes(explorer: Explorer) -> list[str]:
    return [entry.id for entry in explorer.entries() if not entry.problem and explorer.analyses(entry)]


@router.page("/about", "about.html", errors=())
def about(explorer: ExplorerOf) -> AboutPage:
    """What the numbers of the explorer mean."""
    return AboutPage(saes=len(explorer.entries()))


@router.page("/api", "api.html", errors=())
def api_page(request: Request) -> ApiPage:
    """The routes for scripts, from the OpenAPI document."""
    document: dict[str, Any] = request.app.openapi()
    return ApiPage(version=document["info"]["version"], groups=route_groups(document))
