"""Forms that start an analysis of an SAE, its evaluation, or a comparison of two."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Form, Request
from fastapi.responses import Response
from pydantic import BaseModel

from neuronmap.errors import ConfigError, NeuronMapError
from neuronmap.paths import public_name
from neuronmap.web.addresses import lead_to
from neuronmap.web.asking import problem_of
from neuronmap.web.errors import Problem
from neuronmap.web.explorer import Explorer
from neuronmap.web.rendering import render
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.sources import Source, named_text, text_sources
from neuronmap.web.views.saes import SAELine, sae_line

__all__ = ["router"]

router = PageRouter()

Short = Annotated[str, Form(max_length=300)]


class AnalyzePage(BaseModel):
    """What will be analysed, and on what."""

    sae: SAELine
    texts: list[Source]
    own_text: str
    text: str = ""
    tokens: str = ""
    parts: list[str] = ["lens", "map", "hints"]
    problem: Problem | None = None


def _page(explorer: Explorer, sae: str) -> AnalyzePage:
    entry = explorer.entry(sae)
    own = public_name((entry.training or {}).get("corpus"))
    return AnalyzePage(sae=sae_line(explorer, entry), texts=text_sources(explorer), own_text=own)


@router.page("/sae/{sae:path}/-/analyze", "analyze.html")
def analyze_form(explorer: ExplorerOf, sae: str) -> AnalyzePage:
    """Choose a text and how much of it."""
    return _page(explorer, sae)


@router.post("/sae/{sae:path}/-/analyze", include_in_schema=False)
def analyze(
    request: Request,
    explorer: ExplorerOf,
    sae: str,
    text: Short = "",
    tokens: Short = "",
    part: Annotated[list[str], Form(max_length=3)] = [],  # noqa: B006 (FastAPI copies it)
) -> Response:
    """Queue the analysis and go to its page."""
    page = _page(explorer, sae)
    try:
        args: dict[str, Any] = {"saes": [page.sae.id], "lens": "lens" in part, "feature_map": "map" in part}
        args["hints"] = "hints" in part
        if text.strip():
            args["text"] = named_text(explorer, text.strip())
        if tokens.strip():
            args["tokens"] = _whole("tokens", tokens)
        job = explorer.jobs.submit("analyze", args)
    except NeuronMapError as error:
        page = page.model_copy(
            update={"problem": problem_of(error), "text": text, "tokens": tokens, "parts": part or []}
        )
        return render(request, "analyze.html", {"page": page}, status=422)
    return lead_to(request, f"/jobs/{job.id}")


@router.post("/sae/{sae:path}/-/evaluate", include_in_schema=False)
def evaluate(request: Request, explorer: ExplorerOf, sae: str) -> Response:
    """Queue an evaluation on held-out text and go to its page."""
    job = explorer.jobs.submit("evaluate", {"sae": explorer.entry(sae).id})
    return lead_to(request, f"/jobs/{job.id}")


@router.post("/compare", include_in_schema=False)
def compare(
    request: Request, explorer: ExplorerOf, a: Short, b: Short, text: Short = "", tokens: Short = ""
) -> Response:
    """Queue a comparison of two SAEs and go to its page."""
    args: dict[str, Any] = {"a": explorer.entry(a).id, "b": explorer.entry(b).id}
    if text.strip():
        args["text"] = named_text(explorer, text.strip())
        if tokens.strip():
            args["tokens"] = _whole("tokens", tokens)
    return lead_to(request, f"/jobs/{explorer.jobs.submit('compare', args).id}")


def _whole(name: str, text: str) -> int:
    digits = text.replace(",", "").replace("_", "").replace(" ", "")
    if not digits.isdecimal() or len(digits) > 15:
        raise ConfigError(f"{name} = {text!r} is not a whole number.")
    return int(digits)
