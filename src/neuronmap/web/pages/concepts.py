"""The first page of the abstraction tracker: what can be tracked, what runs, what was found."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError

from neuronmap.config import config_error
from neuronmap.errors import NeuronMapError
from neuronmap.web.addresses import lead_to
from neuronmap.web.api.concepts import TrackRequest, track_args
from neuronmap.web.asking import problem_of
from neuronmap.web.errors import invalid_problem
from neuronmap.web.rendering import render
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.concepts.start import StartPage, TrackForm, start_page

__all__ = ["router"]

router = PageRouter()


@router.page("/concepts", "concepts/start.html", nav="concepts")
def concepts(explorer: ExplorerOf) -> StartPage:
    """Follow concepts through the layers of a model; reports of earlier runs."""
    return start_page(explorer)


@router.post("/concepts", include_in_schema=False)
async def track(request: Request, explorer: ExplorerOf) -> Response:
    """Queue the run and go to its page, or show the form with what is wrong."""
    sent = await request.form()
    lists = {name: [str(one)[:300] for one in sent.getlist(name)] for name in ("concepts", "saes")}
    texts = {name: str(sent.get(name, "")) for name in ("model", "prompts", "preset", "text", "other", "name")}
    form = TrackForm(**texts, **lists, causal="causal" in sent, replace="replace" in sent)
    try:
        job = explorer.jobs.submit("track", track_args(explorer, _request(form)))
    except (NeuronMapError, RequestValidationError) as error:
        problem = invalid_problem(error) if isinstance(error, RequestValidationError) else problem_of(error)
        page = start_page(explorer, form, problem)
        return render(request, "concepts/start.html", {"page": page, "nav": "concepts"}, status=422)
    return lead_to(request, f"/jobs/{job.id}")


def _request(form: TrackForm) -> TrackRequest:
    """The request of a form: empty fields are left to their defaults.

    Raises:
        ConfigError: names the field, the value and what is allowed.
    """
    found: dict[str, Any] = {
        "model": form.model.strip(),
        "concepts": form.concepts,
        "prompts": [line.strip() for line in form.prompts.splitlines() if line.strip()],
        "saes": form.saes,
        "preset": form.preset,
        "replace": form.replace,
    }
    if form.causal:
        found["settings"] = {"causal": True}
    for name in ("text", "other", "name"):
        if value := getattr(form, name).strip():
            found[name] = value
    try:
        return TrackRequest(**found)
    except ValidationError as error:
        raise config_error(error, TrackRequest) from None
