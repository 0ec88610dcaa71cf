"""A report of the abstraction tracker: as a whole, each concept, prompts, layers, features, complexity; and several beside each other."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from pydantic import BaseModel, Field

from neuronmap.web.reports import OpenReport
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.concepts.basis import ReportBasis
from neuronmap.web.views.concepts.compare import ComparePage, compare_page
from neuronmap.web.views.concepts.complexity import ComplexityPage, Sort, complexity_page
from neuronmap.web.views.concepts.concept import ConceptPage, concept_page
from neuronmap.web.views.concepts.flow import FlowPage, flow_page
from neuronmap.web.views.concepts.layers import LayersPage, Measure, layers_page
from neuronmap.web.views.concepts.prompt import PromptPage, prompt_page
from neuronmap.web.views.concepts.report import ReportPage, report_page

__all__ = ["router"]

router = PageRouter()

Report = Annotated[str, Path(max_length=200, description="Name of the report.")]
ConceptName = Annotated[str, Path(max_length=300, description="Name of the concept.")]
First = Annotated[int, Query(ge=0, lt=2**31, alias="from", description="The first one that is listed.")]


class NotMeasured(BaseModel):
    """What a report does not have."""

    basis: ReportBasis
    missing: str = Field(description="What is missing, and how to have it.")


def _missing(found: OpenReport, said: str) -> NotMeasured:
    return NotMeasured(basis=ReportBasis.of(found), missing=said)


@router.page("/concepts/compare", "concepts/compare.html", nav="concepts")
def compare(
    explorer: ExplorerOf,
    reports: Annotated[
        list[Annotated[str, Field(max_length=1500)]],
        Query(max_length=12, description="Names of reports, one by one or with commas."),
    ] = [],  # noqa: B006 (FastAPI copies it)
    concept: Annotated[str, Query(max_length=300, description="Name of the concept.")] = "",
) -> ComparePage:
    """One concept in several models, by relative depth."""
    return compare_page(explorer, reports, concept)


@router.page("/concepts/{report}", "concepts/report.html", nav="concepts")
def report(explorer: ExplorerOf, report: Report) -> ReportPage:
    """What was found of each concept, in order of complexity for the model."""
    return report_page(explorer.report(report))


@router.page("/concepts/{report}/concept/{name}", "concepts/concept.html", nav="concepts")
def concept(explorer: ExplorerOf, report: Report, name: ConceptName) -> ConceptPage:
    """One concept: curves with bands and nulls, conditions left out, transfer, rotation, examples, controls."""
    return concept_page(explorer.report(report), name)


@router.page("/concepts/{report}/prompt/{number}", "concepts/prompt.html", nav="concepts")
def prompt(
    explorer: ExplorerOf,
    report: Report,
    number: Annotated[int, Path(ge=0, lt=2**31, description="Number of the prompt, from 0.")],
    concept: Annotated[str, Query(max_length=300, description="Name of the concept; the first when empty.")] = "",
    token: Annotated[int | None, Query(ge=0, lt=2**31, description="Token whose whole logit lens is listed.")] = None,
    first: First = 0,
) -> PromptPage:
    """A prompt through the layers: a concept at every token and layer, and the logit lens."""
    return prompt_page(explorer.report(report), number, concept, first, token)


@router.page("/concepts/{report}/layers", "concepts/layers.html", nav="concepts")
def layers(
    explorer: ExplorerOf,
    report: Report,
    measure: Annotated[Measure, Query(description="Which comparison is shown.")] = "cka-standardized",
    beside: Annotated[bool, Query(description="Compare with the layers of the second model.")] = False,
) -> LayersPage | NotMeasured:
    """How similar the layers are, by several measures, and what each is like by itself."""
    found = explorer.report(report)
    return layers_page(found, measure, beside) or _missing(
        found, "Layers were not compared in this run: it had no text for it, or its settings left it out."
    )


@router.page("/concepts/{report}/flow", "concepts/flow.html", nav="concepts")
def flow(
    explorer: ExplorerOf,
    report: Report,
    kind: Annotated[str, Query(max_length=40, description="Only edges of this kind.")] = "",
    pair: Annotated[int | None, Query(ge=0, lt=2**31, description="Only edges of this pair of SAEs, from 0.")] = None,
    first: First = 0,
) -> FlowPage | NotMeasured:
    """Which features belong together from layer to layer."""
    found = explorer.report(report)
    ids = {entry.id for entry in explorer.entries()}
    return flow_page(found, ids, kind, pair, first) or _missing(
        found,
        "No features were followed in this run. Choose SAEs at two layers or more of the model when you start one.",
    )


@router.page("/concepts/{report}/complexity", "concepts/complexity.html", nav="concepts")
def complexity(
    explorer: ExplorerOf,
    report: Report,
    sort: Annotated[Sort, Query(description="By which component; the smallest first.")] = "rank",
) -> ComplexityPage:
    """Concepts in order of complexity for the model, with every component."""
    return complexity_page(explorer.report(report), sort)
