"""Steering side by side: the model as it is, with a feature changed, and with random directions of the same length."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from neuronmap.errors import NeuronMapError
from neuronmap.web.asking import PATIENCE_S, Asked, ask, checked, problem_of
from neuronmap.web.explorer import Explorer
from neuronmap.web.live.requests import MOST_CHARACTERS, MOST_GENERATED, SteerRequest
from neuronmap.web.rendering import render
from neuronmap.web.routing import ExplorerOf, PageRouter

__all__ = ["router"]

router = PageRouter()

PROMPT = "I think that"
"""What the form begins with."""


class SteerForm(BaseModel):
    """What the form says; all of it is in the address."""

    feature: int | None = Field(default=None, ge=0, lt=2**31)
    kind: Literal["add", "clamp", "scale", "remove"] = "add"
    value: float = Field(default=1.0, ge=-1e6, le=1e6)
    unit: Literal["max", "activation"] = "max"
    prompt: str = Field(default="", max_length=MOST_CHARACTERS)
    max_tokens: int = Field(default=40, ge=1, le=MOST_GENERATED)
    temperature: float = Field(default=0.0, ge=0, le=5)
    seed: int = Field(default=0, ge=0, lt=2**31)
    controls: int = Field(default=1, ge=0, le=4)
    analysis: str | None = Field(default=None, max_length=100)


class SteerPage(BaseModel):
    """The form and what the model wrote."""

    sae: str
    form: SteerForm
    has_analysis: bool = Field(
        description="Whether largest activations are known, so that strengths may count in them."
    )
    label: str = Field(description="The feature's label.")
    largest: float | None = Field(description="The feature's largest activation on the analysed text.")
    asked: Asked


def _form(
    feature: Annotated[str, Query(max_length=10)] = "",
    kind: Annotated[Literal["add", "clamp", "scale", "remove"], Query()] = "add",
    value: Annotated[float, Query(ge=-1e6, le=1e6, allow_inf_nan=False)] = 1.0,
    unit: Annotated[Literal["max", "activation"], Query()] = "max",
    prompt: Annotated[str, Query(max_length=MOST_CHARACTERS)] = "",
    max_tokens: Annotated[int, Query(ge=1, le=MOST_GENERATED)] = 40,
    temperature: Annotated[float, Query(ge=0, le=5, allow_inf_nan=False)] = 0.0,
    seed: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    controls: Annotated[int, Query(ge=0, le=4)] = 1,
    analysis: Annotated[str | None, Query(max_length=100)] = None,
) -> SteerForm:
    number = int(feature) if feature.isdecimal() and int(feature) < 2**31 else None
    return SteerForm(
        feature=number,
        kind=kind,
        value=value,
        unit=unit,
        prompt=prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        controls=controls,
        analysis=analysis or None,
    )


async def _page(explorer: Explorer, sae: str, form: SteerForm, patience: float) -> SteerPage:
    entry = explorer.entry(sae)
    analysed = explorer.analysed(sae, form.analysis) if explorer.analyses(entry) else None
    label, largest, asked = "", None, Asked()
    if analysed is None and form.unit == "max":
        form = form.model_copy(update={"unit": "activation"})
    if form.feature is not None and analysed is not None:
        record = analysed.store.feature(form.feature)
        given = analysed.store.given([form.feature]).get(form.feature)
        label, largest = given.text if given is not None else record.label, record.row["max"]
    if form.feature is not None and form.prompt.strip():
        change: dict[str, Any] = {"feature": form.feature, "kind": form.kind, "value": form.value}
        if form.kind in ("add", "clamp"):
            change["unit"] = form.unit
        values = {
            "sae": sae,
            "analysis": form.analysis,
            "changes": (change,),
            **{name: getattr(form, name) for name in ("prompt", "max_tokens", "temperature", "seed", "controls")},
        }
        try:
            asked = await ask(explorer, checked(SteerRequest, values), patience)
        except NeuronMapError as error:
            asked = Asked(state="failed", problem=problem_of(error))
    return SteerPage(sae=sae, form=form, has_analysis=analysed is not None, label=label, largest=largest, asked=asked)


@router.page("/sae/{sae:path}/-/steer", "steer.html")
async def steer_page(explorer: ExplorerOf, sae: str, form: Annotated[SteerForm, Depends(_form)]) -> SteerPage:
    """Change a feature and compare what the model writes."""
    return await _page(explorer, sae, form, PATIENCE_S)


@router.get("/sae/{sae:path}/-/steer/result", include_in_schema=False, response_class=HTMLResponse)
async def steer_result(
    request: Request, explorer: ExplorerOf, sae: str, form: Annotated[SteerForm, Depends(_form)]
) -> HTMLResponse:
    """The part of the page that waits for the answer."""
    return render(request, "_steer_result.html", {"page": await _page(explorer, sae, form, patience=20.0)})
