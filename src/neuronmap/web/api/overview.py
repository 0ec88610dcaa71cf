"""One SAE for scripts: what it is, what its features look like together, the map."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from neuronmap.web.errors import responses
from neuronmap.web.parameters import Analysis, SAEInQuery
from neuronmap.web.plotly import MOST_POINTS
from neuronmap.web.routing import ExplorerOf
from neuronmap.web.views.map import FeatureMap, feature_map
from neuronmap.web.views.overview import Dictionary, SAEPage, dictionary_of, sae_page

__all__ = ["router"]

router = APIRouter(prefix="/api/sae", tags=["SAEs"])


class Overview(BaseModel):
    """What an analysis says of all features together."""

    sae: str
    analysis: str
    dictionary: Dictionary


@router.get("/model", summary="One SAE", responses=responses(404, 409, 422))
def model(explorer: ExplorerOf, sae: SAEInQuery, analysis: Analysis = "") -> SAEPage:
    """Facts, evaluation, training curves, analyses, files and model card of one SAE."""
    return sae_page(explorer, sae, analysis)


@router.get("/overview", summary="All features of an SAE together", responses=responses(404, 409, 422))
def overview(explorer: ExplorerOf, sae: SAEInQuery, analysis: Analysis = "") -> Overview:
    """Densities, L0, explained variance, most frequent features and clusters of one analysis."""
    analysed = explorer.analysed(sae, analysis)
    return Overview(sae=sae, analysis=analysed.analysis.name, dictionary=dictionary_of(analysed))


@router.get("/map", summary="The map of features", responses=responses(404, 409, 422))
def map_of_features(
    explorer: ExplorerOf,
    sae: SAEInQuery,
    analysis: Analysis = "",
    limit: Annotated[
        int, Query(ge=1, le=1_000_000, description="Most features; above it a sample that is the same each time.")
    ] = MOST_POINTS,
) -> FeatureMap:
    """Places, densities, classes and clusters of the features, as columns."""
    return feature_map(explorer.analysed(sae, analysis), limit)
