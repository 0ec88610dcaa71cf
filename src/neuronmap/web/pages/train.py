"""The form that starts a training."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from neuronmap.errors import ConfigError, NeuronMapError
from neuronmap.paths import public_name
from neuronmap.training.config import SAEConfig
from neuronmap.web.addresses import lead_to
from neuronmap.web.asking import Asked, ask, checked, problem_of
from neuronmap.web.errors import Problem
from neuronmap.web.explorer import Explorer
from neuronmap.web.live.requests import PlanRequest
from neuronmap.web.places import place_fault
from neuronmap.web.rendering import render
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.sources import Source, model_sources, named_model, named_text, text_sources
from neuronmap.web.views.trainform import FormGroup, form_groups, form_values

__all__ = ["router"]

router = PageRouter()


class TrainPage(BaseModel):
    """The form, what may be chosen, and what is wrong with what was sent."""

    groups: list[FormGroup]
    models: list[Source]
    texts: list[Source]
    evaluate: bool = True
    replace: bool = False
    init_from: str = ""
    saes: list[str] = Field(description="SAEs that a training can start from.")
    problem: Problem | None = None


def _page(explorer: Explorer, sent: dict[str, str], problem: Problem | None = None) -> TrainPage:
    errors = {}
    if problem is not None:
        named = [
            name for name in SAEConfig.model_fields if f".{name} " in problem.message or f"'{name}'" in problem.message
        ]
        errors = dict.fromkeys(named, problem.message)
    return TrainPage(
        groups=form_groups(sent, errors),
        models=model_sources(explorer),
        texts=text_sources(explorer),
        evaluate="evaluate" in sent,
        replace="replace" in sent,
        init_from=sent.get("init_from", ""),
        saes=[entry.id for entry in explorer.entries() if not entry.problem],
        problem=problem,
    )


def _first_values(explorer: Explorer) -> dict[str, str]:
    """What the form begins with, so that a first training needs no typing: a model, a layer in its middle, a text."""
    from neuronmap.models.samples import get_sample

    found = {"evaluate": "on"}
    for name, info in SAEConfig.model_fields.items():
        if info.default is True:
            found[name] = "on"
    models, texts = model_sources(explorer), text_sources(explorer)
    if models:
        found["model_name"] = models[0].name
        sample = get_sample(models[0].name)
        used = [
            one.layer
            for one in explorer.entries()
            if one.layer is not None and public_name(one.model) == models[0].name
        ]
        layer = sample.num_layers // 2 if sample is not None else next(iter(used), None)
        if layer is not None:
            found["layer"] = str(layer)
    if texts:
        found["corpus"] = next((one.name for one in texts if one.name == "sotu"), texts[0].name)
    return found


@router.page("/train", "train.html", nav="train", any_query=True)
def train_form(request: Request, explorer: ExplorerOf) -> TrainPage:
    """Choose what to train; any setting may be given in the address."""
    given = {name: value[:2000] for name, value in request.query_params.items()}
    return _page(explorer, {**_first_values(explorer), **given})


def settings_of(explorer: Explorer, sent: dict[str, str]) -> dict[str, Any]:
    """Arguments of the job from what the form sent; names become what they stand for.

    Raises:
        ConfigError: a name that may not be used.
    """
    values = form_values(sent)
    if values.get("model_name"):
        values["model_name"] = named_model(explorer, values["model_name"])
    if values.get("corpus"):
        values["corpus"] = named_text(explorer, values["corpus"])
    if sent.get("init_from"):
        values["init_from"] = explorer.entry(sent["init_from"]).id
    return {**values, "evaluate": "evaluate" in sent, "replace": "replace" in sent}


@router.post("/train", include_in_schema=False)
async def train(request: Request, explorer: ExplorerOf) -> Response:
    """Queue the training and go to its page, or show the form with what is wrong."""
    form = await request.form()
    sent = {name: str(value)[:2000] for name, value in form.items()}
    try:
        settings = settings_of(explorer, sent)
        if (fault := place_fault(settings)) is not None:
            said = f"SAEConfig.{fault.field} = {settings.get(fault.field)!r}: {fault.message}"
            raise ConfigError(said, hint=fault.hint)
        job = explorer.jobs.submit("train", settings, idempotency_key=sent.get("key") or None)
    except NeuronMapError as error:
        page = _page(explorer, sent, problem_of(error))
        return render(request, "train.html", {"page": page, "nav": "train"}, status=422)
    return lead_to(request, f"/jobs/{job.id}")


class PlanFragment(BaseModel):
    """Derived numbers of what the form says now."""

    asked: Asked


@router.post("/train/plan", include_in_schema=False, response_class=HTMLResponse)
async def plan(request: Request, explorer: ExplorerOf) -> HTMLResponse:
    """Steps, memory and time of the settings in the form."""
    form = await request.form()
    sent = {name: str(value)[:2000] for name, value in form.items()}
    try:
        values = settings_of(explorer, sent)
        others = ("evaluate", "replace", "init_from")
        config = SAEConfig(**{name: value for name, value in values.items() if name not in others})
        settings = config.model_dump(mode="json", exclude_unset=True)
        asked = await ask(explorer, checked(PlanRequest, {"settings": settings}))
    except NeuronMapError as error:
        asked = Asked(state="failed", problem=problem_of(error))
    return render(request, "_plan.html", {"page": PlanFragment(asked=asked)})
