"""Between the library and the zoo of this machine: publish an SAE, or take an artefact into the library."""

from __future__ import annotations

from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from neuronmap.errors import ConfigError, NeuronMapError
from neuronmap.web.addresses import lead_to
from neuronmap.web.asking import problem_of
from neuronmap.web.errors import Problem
from neuronmap.web.explorer import Explorer
from neuronmap.web.rendering import render
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.saes import SAELine, sae_line

__all__ = ["router"]

router = PageRouter()

Short = Annotated[str, Form(max_length=300)]
Long = Annotated[str, Form(max_length=5000)]
_LICENCES = ("MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0", "BSD-3-Clause", "CC-BY-NC-4.0")


class PublishPage(BaseModel):
    """The form."""

    sae: SAELine
    reference: str = Field(description="namespace/name@version.")
    licence: str = ""
    licences: list[str] = Field(default=list(_LICENCES), description="Usual ones; any SPDX expression is taken.")
    title: str = ""
    summary: str = ""
    authors: str = ""
    tags: str = ""
    analyses: list[str] = Field(description="Analyses that are ticked.")
    problem: Problem | None = None


def _page(explorer: Explorer, sae: str) -> PublishPage:
    entry = explorer.entry(sae)
    line = sae_line(explorer, entry)
    words = "".join(letter if letter.isalnum() else "-" for letter in entry.id.rsplit("/", 1)[-1].lower())
    name = "-".join(part for part in words.split("-") if part) or "sae"
    return PublishPage(sae=line, reference=f"local/{name}@1.0", analyses=[one.name for one in line.analyses[:1]])


@router.page("/sae/{sae:path}/-/publish", "publish.html")
def publish_form(explorer: ExplorerOf, sae: str) -> PublishPage:
    """As what it is published, under which licence."""
    return _page(explorer, sae)


@router.post("/sae/{sae:path}/-/publish", include_in_schema=False)
def publish(
    request: Request,
    explorer: ExplorerOf,
    sae: str,
    reference: Short = "",
    licence: Short = "",
    title: Short = "",
    summary: Long = "",
    authors: Short = "",
    tags: Short = "",
    analysis: Annotated[list[str], Form(max_length=20)] = [],  # noqa: B006 (FastAPI copies it)
) -> Response:
    """Queue it and go to its page."""
    page = _page(explorer, sae)
    given = {
        "reference": reference,
        "licence": licence,
        "title": title,
        "summary": summary,
        "authors": authors,
        "tags": tags,
    }
    try:
        if not licence.strip():
            raise ConfigError("A licence is needed: without one nobody may use what you publish.")
        args = {
            "sae": page.sae.id,
            "reference": reference.strip(),
            "licence": licence.strip(),
            "analyses": analysis,
            "title": title.strip(),
            "summary": summary.strip(),
            "authors": _parts(authors, ";"),
            "tags": _parts(tags.lower(), ","),
        }
        job = explorer.jobs.submit("publish", args)
    except NeuronMapError as error:
        page = page.model_copy(update={**given, "analyses": analysis, "problem": problem_of(error)})
        return render(request, "publish.html", {"page": page}, status=422)
    return lead_to(request, f"/jobs/{job.id}")


@router.post("/zoo/{namespace}/{name}/{version}/into-library", include_in_schema=False)
def into_library(request: Request, explorer: ExplorerOf, namespace: str, name: str, version: str) -> Response:
    """Queue the pull and go to its page."""
    job = explorer.jobs.submit("pull", {"reference": f"{namespace}/{name}@{version}"})
    return lead_to(request, f"/jobs/{job.id}")


def _parts(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]
