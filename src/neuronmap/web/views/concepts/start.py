"""The first page of the tracker: the form, what runs, and the reports of this machine."""

from __future__ import annotations

from itertools import groupby

from pydantic import BaseModel, Field

from neuronmap.jobs import Job
from neuronmap.paths import public_name
from neuronmap.web.errors import Problem
from neuronmap.web.explorer import Explorer
from neuronmap.web.sources import Source, model_sources, text_sources
from neuronmap.web.views.concepts.listed import ReportLine, report_lines
from neuronmap.web.views.concepts.offered import ConceptLine, offered_concepts

__all__ = ["FollowedSAE", "StartPage", "TrackForm", "start_page"]

_FIRST = ("grammatical_number", "syntactic_role")
"""Families that the form begins with: what the concepts with a surface cue and without one look like."""


class FollowedSAE(BaseModel):
    """An SAE whose features can be followed."""

    id: str
    model: str
    layer: int
    component: str


class TrackForm(BaseModel):
    """What was typed into the form."""

    model: str = ""
    concepts: list[str] = Field(default_factory=lambda: list(_FIRST))
    prompts: str = Field(default="", description="One text a line.")
    preset: str = "quick"
    causal: bool = False
    text: str = ""
    other: str = Field(default="", description="A second model, whose layers are compared with the first's.")
    saes: list[str] = Field(default_factory=list)
    name: str = ""
    replace: bool = False


class Family(BaseModel):
    """Concepts of one family."""

    name: str
    concepts: list[ConceptLine]


class StartPage(BaseModel):
    """The form, running jobs, reports."""

    form: TrackForm
    families: list[Family]
    models: list[Source]
    texts: list[Source]
    saes: list[FollowedSAE] = Field(description="SAEs whose features can be followed: their layer is known.")
    running: list[Job] = Field(description="Trackings that wait or run.")
    reports: list[ReportLine]
    problem: Problem | None = None

    @property
    def choices(self) -> list[str]:
        """Families and concepts that are ticked."""
        return self.form.concepts


def start_page(explorer: Explorer, form: TrackForm | None = None, problem: Problem | None = None) -> StartPage:
    """The page with what was typed.

    Args:
        explorer: the server's.
        form: what was typed; for None a model is chosen, so that a first tracking needs no typing.
        problem: what is wrong with it.
    """
    models = model_sources(explorer)
    lines = offered_concepts()
    jobs = [explorer.jobs.list(state=state, kind="track", limit=20) for state in ("running", "cancelling", "queued")]
    return StartPage(
        form=form or TrackForm(model=models[0].name if models else ""),
        families=[Family(name=name, concepts=list(found)) for name, found in groupby(lines, lambda one: one.family)],
        models=models,
        texts=text_sources(explorer),
        saes=_followed(explorer),
        running=[job for found in jobs for job in found],
        reports=report_lines(),
        problem=problem,
    )


def _followed(explorer: Explorer) -> list[FollowedSAE]:
    found = [
        FollowedSAE(id=one.id, model=public_name(one.model), layer=one.layer, component=str(one.component or ""))
        for one in explorer.entries()
        if one.layer is not None and one.model is not None and not one.problem
    ]
    return sorted(found, key=lambda one: (one.model, one.layer, one.id))
