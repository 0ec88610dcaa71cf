"""Search, neighbourhoods and comparisons for scripts."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from neuronmap.errors import WebError
from neuronmap.models.samples import SENTENCE_ENCODER
from neuronmap.web.errors import responses
from neuronmap.web.parameters import Analysis, Depth, Least, SAEInQuery
from neuronmap.web.routing import ExplorerOf
from neuronmap.web.views.found import Found
from neuronmap.web.views.found import search as search_all
from neuronmap.web.views.meaning import search_meaning
from neuronmap.web.views.side_by_side import SideBySide, side_by_side
from neuronmap.web.views.similarity import By, Neighbourhood, neighbourhood

__all__ = ["router"]

router = APIRouter(prefix="/api/sae", tags=["features"])


@router.get(
    "/search",
    summary="Features by token, promoted token, label and example text, or by meaning",
    responses={
        **responses(404, 409, 422, 429, 503, 504),
        202: {"model": Found, "description": "Some texts are still being read in: ask again."},
    },
)
async def search(
    explorer: ExplorerOf,
    response: Response,
    q: Annotated[
        str,
        Query(
            min_length=1,
            max_length=200,
            description="A token, words of a label, a piece of text, or a feature's number.",
        ),
    ],
    sae: Annotated[str, Query(max_length=600, description="Of this SAE only; all when left out.")] = "",
    limit: Annotated[int, Query(ge=1, le=100, description="Most results of a kind for each SAE.")] = 20,
    by: Annotated[
        Literal["words", "meaning"],
        Query(description="What is written, or what is near in meaning; the latter needs the sentence encoder."),
    ] = "words",
) -> Found:
    """Search the newest analysis of each SAE. Status 202 while the text of one is still being read in.

    By meaning, features are compared with the question by a sentence encoder; the first time, it reads every feature.
    """
    if by == "meaning":
        SENTENCE_ENCODER.require()
        found = await search_meaning(explorer, q, sae=sae, limit=limit)
        if found.asked is not None and found.asked.problem is not None:
            problem = found.asked.problem
            raise WebError(problem.status, problem.code, problem.message, hint=problem.hint)
    else:
        found = await run_in_threadpool(search_all, explorer, q, sae=sae, limit=limit)
    if found.building:
        response.status_code = 202
        response.headers["Retry-After"] = "1"
    return found


@router.get("/similarity", summary="What is near a feature", responses=responses(404, 409, 422))
def similarity(
    explorer: ExplorerOf,
    sae: SAEInQuery,
    feature: Annotated[int, Query(ge=0, lt=2**31)],
    by: Annotated[By, Query(description="Decoder cosine, or Jaccard index of firing.")] = "cosine",
    min: Least = None,
    depth: Depth = 1,
    analysis: Analysis = "",
) -> Neighbourhood:
    """The neighbourhood of a feature with the cosines and co-firing of all its pairs."""
    return neighbourhood(explorer.analysed(sae, analysis), feature, by, min, depth)


@router.get("/compare_features", summary="Two to four features side by side", responses=responses(404, 409, 422))
def compare_features(
    explorer: ExplorerOf,
    sae: SAEInQuery,
    f: Annotated[
        list[Annotated[str, Field(max_length=620)]],
        Query(min_length=1, max_length=20, description="`12`, or `other/sae:12`; at most four."),
    ],
    analysis: Analysis = "",
) -> SideBySide:
    """Labels, figures, tokens and examples of features, and how near they are pairwise."""
    return side_by_side(explorer, sae, f, analysis)
