"""Neighbourhood of a feature, and features side by side."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import BaseModel, Field

from neuronmap.web.downloads import csv_response
from neuronmap.web.errors import responses
from neuronmap.web.parameters import Analysis, Depth, Least, SAEInPath
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.names import FeatureName, feature_names
from neuronmap.web.views.side_by_side import SideBySide, side_by_side
from neuronmap.web.views.similarity import By, Neighbourhood, neighbourhood

__all__ = ["Features", "router"]

router = PageRouter()

Features = Annotated[
    list[Annotated[str, Field(max_length=620)]],
    Query(alias="f", max_length=20, description="`12`, or `other/sae:12`; two to four features."),
]


class SimilarityPage(BaseModel):
    """A feature and what is near it."""

    sae: str
    analysis: str
    near: Neighbourhood
    previous: int | None = Field(description="The next lower feature that is alive.")
    following: int | None = Field(description="The next higher one.")
    random: int | None = Field(description="Some feature that is alive.")
    starts: list[FeatureName] = Field(
        description="Features with near neighbours, to begin at; only where none was asked for."
    )


@router.page("/sae/{sae:path}/-/similarity", "similarity.html")
def similarity(
    explorer: ExplorerOf,
    sae: SAEInPath,
    feature: Annotated[
        int | None,
        Query(ge=0, lt=2**31, description="The feature in the middle; one with near neighbours when left out."),
    ] = None,
    by: Annotated[By, Query(description="Decoder cosine, or Jaccard index of firing.")] = "cosine",
    min: Least = None,
    depth: Depth = 1,
    analysis: Analysis = "",
) -> SimilarityPage:
    """What is near a feature: graph, heat map and table, by decoder direction or by firing."""
    analysed = explorer.analysed(sae, analysis)
    store = analysed.store
    starts: list[int] = []
    if feature is None:
        column = "nearest_cosine" if by == "cosine" else "coactive_jaccard"
        rows = store.queries.select(
            ["status=alive", f"{column}!=null"], sort=f"-{column}", limit=12, columns=["feature"]
        )
        starts = rows.features
    middle = feature if feature is not None else (starts[0] if starts else 0)
    return SimilarityPage(
        sae=sae,
        analysis=analysed.analysis.name,
        near=neighbourhood(analysed, middle, by, min, depth),
        previous=store.nearest_alive(middle, -1),
        following=store.nearest_alive(middle, 1),
        random=store.queries.random_alive(middle) if store.alive.any() else None,
        starts=feature_names(store, starts),
    )


@router.page("/sae/{sae:path}/-/compare", "compare.html")
def compare(explorer: ExplorerOf, sae: SAEInPath, f: Features = [], analysis: Analysis = "") -> SideBySide:  # noqa: B006 (FastAPI copies it)
    """Two to four features side by side, also of other SAEs."""
    return side_by_side(explorer, sae, f, analysis)


@router.get(
    "/sae/{sae:path}/-/plot/neighbours.csv",
    tags=["pages"],
    summary="All pairs of a neighbourhood, as CSV",
    response_class=Response,
    responses=responses(404, 409, 422),
)
def pairs_csv(
    explorer: ExplorerOf,
    sae: SAEInPath,
    feature: Annotated[int, Query(ge=0, lt=2**31)],
    by: By = "cosine",
    min: Least = None,
    depth: Depth = 1,
    analysis: Analysis = "",
) -> Response:
    """The data of the graph and of both heat maps: one row a pair."""
    found = neighbourhood(explorer.analysed(sae, analysis), feature, by, min, depth)
    columns = ("a", "b", "step_of_a", "step_of_b", "cosine", "jaccard")
    rows = (
        dict(
            zip(
                columns,
                (a.about.feature, b.about.feature, a.step, b.step, found.cosine[i][j], found.jaccard[i][j]),
                strict=True,
            )
        )
        for i, a in enumerate(found.near)
        for j, b in enumerate(found.near[:i])
    )
    return csv_response(f"{sae}-near-{feature}.csv", columns, rows)
