"""Finding artefacts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Query as InQuery

from neuronmap.web.zoo import PREFIX
from neuronmap.web.zoo.access import Asker, ContextOf, ZooRoute, allowed
from neuronmap.zoo.search.compatible import CompatibilityPage
from neuronmap.zoo.search.facets import Facets
from neuronmap.zoo.search.query import CompatibilityQuery, Query
from neuronmap.zoo.views import SearchPage

__all__ = ["router"]

router = APIRouter(prefix=PREFIX, tags=["zoo search"], route_class=ZooRoute)


@router.get("/search", summary="Search", **allowed("read", rate="search"))
def search(query: Annotated[Query, InQuery()], context: ContextOf, asker: Asker) -> SearchPage:
    """The newest version of every artefact that fits, or every version; a page at a time."""
    return context.registry.search(asker, query)


@router.get("/facets", summary="What a search can be narrowed to", **allowed("read", rate="search"))
def facets(query: Annotated[Query, InQuery()], context: ContextOf, asker: Asker) -> Facets:
    """Kinds, models, architectures and licences of what a search finds, with how many there are of each."""
    return context.registry.facets(asker, query)


@router.get("/compatible", summary="Which SAEs fit a model", **allowed("read", rate="search"))
def compatible(query: Annotated[CompatibilityQuery, InQuery()], context: ContextOf, asker: Asker) -> CompatibilityPage:
    """SAEs for a model and a layer, the best first, each with the reasons why it fits or only nearly does."""
    return context.registry.compatible(asker, query)
