"""One feature: its page, the data of its plots, what the model does without it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Form, Path, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel

from neuronmap.errors import NeuronMapError
from neuronmap.web.addresses import base_path, lead_to
from neuronmap.web.asking import Asked, ask, checked, problem_of
from neuronmap.web.downloads import csv_response
from neuronmap.web.errors import WebError, responses
from neuronmap.web.fetch import EXPORTED
from neuronmap.web.live.requests import MOST_CHARACTERS, EffectsRequest
from neuronmap.web.own_text import MOST_FOLLOWING, Kept
from neuronmap.web.rendering import render, sae_path
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.feature import FeaturePage, FeatureQuery, feature_page
from neuronmap.web.views.feature_number import missing_feature, number_of
from neuronmap.web.views.labels.panel import label_panel
from neuronmap.web.views.labels.who import who_asks
from neuronmap.web.views.plot_data import PLOTS, plot_rows

__all__ = ["router"]

router = PageRouter()

Shown = Annotated[FeatureQuery, Query()]
_PATIENCE_S = 60.0
"""How long the fragment with effects waits before it says that they are being worked out."""


@router.get("/sae/{sae:path}/-/feature", include_in_schema=False)
def go(
    explorer: ExplorerOf,
    request: Request,
    sae: str,
    number: Annotated[str, Query(max_length=40)] = "",
    analysis: Annotated[str, Query(max_length=100)] = "",
    text: Annotated[str, Query(max_length=MOST_FOLLOWING)] = "",
    kept: Annotated[Kept, Query()] = "",
) -> Response:
    """From the box for a number to the feature."""
    explorer.entry(sae)
    wanted = number.strip().lstrip("#") or "0"
    return lead_to(request, sae_path(sae, "feature", wanted, analysis=analysis, text=text, kept=kept))


@router.get("/sae/{sae:path}/-/feature/random", include_in_schema=False)
def random_feature(explorer: ExplorerOf, request: Request, sae: str) -> Response:
    """A feature that is alive, drawn anew each time; what else stands in the address goes along."""
    analysed = explorer.analysed(sae, request.query_params.get("analysis"))
    along = {
        name: request.query_params[name][:MOST_FOLLOWING]
        for name in ("analysis", "text", "kept", "ctx")
        if name in request.query_params
    }
    target = sae_path(sae, "feature", analysed.store.queries.random_alive(), **along)
    answer = lead_to(request, target)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.page("/sae/{sae:path}/-/feature/{number}", "feature.html")
def feature(request: Request, explorer: ExplorerOf, sae: str, number: str, query: Shown) -> FeaturePage:
    """One feature: label and evidence, histogram, logits, examples, tokens, relations."""
    analysed = explorer.analysed(sae, query.analysis)
    found = number_of(analysed, number)
    if found is None:
        missing: FeaturePage = missing_feature(request, analysed, number)
        return missing
    page = feature_page(analysed, found, query, f"{request.url.scheme}://{request.url.netloc}{base_path(request)}")
    if not request.scope.get(EXPORTED):
        page.labels = label_panel(explorer.books.reading(), analysed.weights, found, who_asks(request), analysed.home)
    return page


CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {}}, "description": "The table."}}


@router.get(
    "/sae/{sae:path}/-/feature/{number}/plot/{name}.csv",
    tags=["pages"],
    response_class=Response,
    responses={**CSV, **responses(404, 409, 422)},
)
def plot_csv(
    request: Request,
    explorer: ExplorerOf,
    sae: str,
    number: str,
    name: Annotated[str, Path(max_length=40, description=f"One of {', '.join(PLOTS)}.")],
    analysis: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """The data of a plot of the feature page."""
    analysed = explorer.analysed(sae, analysis)
    found = number_of(analysed, number)
    if found is None:
        response: Response = missing_feature(request, analysed, number)
        return response
    if name not in PLOTS:
        raise WebError(404, "not_found", f"There is no plot {name!r}.", hint=f"There are: {', '.join(PLOTS)}.")
    columns, rows = plot_rows(analysed.store.feature(found), name)
    return csv_response(f"{sae}-{found}-{name}.csv", columns, rows)


class EffectsFragment(BaseModel):
    """What the model does without the feature."""

    sae: str
    feature: str
    text: str
    asked: Asked
    address: str
    back: str


@router.post("/sae/{sae:path}/-/feature/{number}/effects", include_in_schema=False, response_class=HTMLResponse)
async def effects(
    request: Request,
    explorer: ExplorerOf,
    sae: str,
    number: str,
    text: Annotated[str, Form(max_length=MOST_CHARACTERS)] = "",
    analysis: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """Take the feature out of the model in the contexts of its examples, or in a text, and see what changes."""
    try:
        values = {"sae": sae, "analysis": analysis or None, "feature": number, "text": text or None}
        asked = await ask(explorer, checked(EffectsRequest, values), patience=_PATIENCE_S)
    except NeuronMapError as error:
        asked = Asked(state="failed", problem=problem_of(error))
    page = EffectsFragment(
        sae=sae,
        feature=number,
        text=text,
        asked=asked,
        address=sae_path(sae, "feature", number, "effects", analysis=analysis),
        back=sae_path(sae, "feature", number, analysis=analysis),
    )
    template = "_effects.html" if request.headers.get("hx-request") == "true" else "effects.html"
    return render(request, template, {"page": page})
