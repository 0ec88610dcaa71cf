"""Concepts through the layers: what can be tracked, starting it, and the reports that come of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from neuronmap.abstraction.record import TrackingReport
from neuronmap.abstraction.settings import TrackerConfig
from neuronmap.web.api.jobs import SUBMITTED, Key, require_settings, submitted
from neuronmap.web.downloads import csv_response
from neuronmap.web.errors import faults_inside, field_fault, responses
from neuronmap.web.explorer import Explorer
from neuronmap.web.places import blocks_of
from neuronmap.web.routing import ExplorerOf
from neuronmap.web.sources import named_concept, named_model, named_text
from neuronmap.web.views.concepts.compare import compared_plot
from neuronmap.web.views.concepts.listed import ReportLine, report_lines
from neuronmap.web.views.concepts.offered import ConceptLine, offered_concepts
from neuronmap.web.views.concepts.plots import PlotDocument

__all__ = ["MOST_PROMPTS", "TrackRequest", "router", "track_args"]

router = APIRouter(prefix="/api/sae", tags=["concepts"])

MOST_PROMPTS = 16
_ERRORS = responses(404, 409, 422)
_Name = Annotated[str, Field(max_length=300)]
ReportName = Annotated[str, Path(max_length=200, description="Name of the report.")]
PlotName = Annotated[str, Path(max_length=300, description="Name of the plot; the pages of the report list them.")]
ReportNames = Annotated[
    list[Annotated[str, Field(max_length=1500)]],
    Query(
        min_length=1, max_length=12, description="Names of reports, one by one or with commas.", examples=[["first"]]
    ),
]
ConceptName = Annotated[
    str, Query(min_length=1, max_length=300, description="Name of the concept.", examples=["tense"])
]


class TrackRequest(BaseModel):
    """What to track in which model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "smollm2-135m",
                    "concepts": ["grammatical_number", "syntactic_role"],
                    "prompts": ["The keys to the cabinet probably"],
                    "preset": "quick",
                    "name": "first-look",
                }
            ]
        }
    )

    model: str = Field(max_length=300, description="Language model or encoder by name, never a path.")
    concepts: list[_Name] = Field(
        default_factory=list, max_length=100, description="Names or families; all built-in concepts when empty."
    )
    prompts: list[Annotated[str, Field(max_length=2000)]] = Field(
        default_factory=list, max_length=MOST_PROMPTS, description="Texts to follow through the layers."
    )
    preset: Literal["quick", "full"] = Field(default="full", description="How thoroughly.")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        max_length=40,
        description="Settings of TrackerConfig that differ from the preset's, by name.",
    )
    text: str | None = Field(
        default=None,
        max_length=300,
        description="Name of the text on which layers are compared; a sample when left out.",
    )
    other: str | None = Field(
        default=None, max_length=300, description="A second model by name, whose layers are compared with the first's."
    )
    saes: list[_Name] = Field(
        default_factory=list,
        max_length=32,
        description="SAEs at different layers of the model, whose features are followed; two or more.",
    )
    name: str | None = Field(default=None, max_length=120, description="Name of the report.")
    replace: bool = Field(default=False, description="Take the place of a report with the same name.")


class ConceptList(BaseModel):
    """Concepts that can be tracked by name."""

    concepts: list[ConceptLine]


class ReportList(BaseModel):
    """Reports of this machine, the newest first."""

    reports: list[ReportLine]


def track_args(explorer: Explorer, body: TrackRequest) -> dict[str, Any]:
    """Arguments of the job; names become what they stand for.

    Raises:
        RequestValidationError: a setting that is unknown or out of range, an SAE at a layer that the model does not have.
        ConfigError, NotInLibraryError: a name that may not be used, or does not exist.
    """
    require_settings(TrackerConfig, body.settings)
    with faults_inside("body", "settings"):
        TrackerConfig.preset(body.preset, **body.settings)
    args = body.model_dump(mode="json", exclude_unset=True)
    args["model"] = named_model(explorer, body.model)
    args["concepts"] = [named_concept(name) for name in body.concepts]
    entries = [explorer.entry(sae) for sae in body.saes]
    blocks = blocks_of(args["model"]) if entries else None
    for at, entry in enumerate(entries):
        if blocks is not None and entry.layer is not None and entry.layer >= blocks:
            said = f"SAE '{entry.id}' is of layer {entry.layer}; {body.model} has layers 0 to {blocks - 1}"
            raise field_fault("body", "saes", at, message=said, hint="Name SAEs of this model.")
    args["saes"] = [entry.id for entry in entries]
    if body.other:
        args["other"] = named_model(explorer, body.other)
    if body.text:
        args["text"] = named_text(explorer, body.text)
    return args


@router.post(
    "/track_abstractions",
    status_code=202,
    response_class=JSONResponse,
    responses=SUBMITTED,
    summary="Follow concepts through the layers",
)
def track_abstractions(request: Request, explorer: ExplorerOf, body: TrackRequest, key: Key = None) -> Response:
    """Queue a run of the abstraction tracker; its report is under `/api/sae/reports`, by the name in the job's result."""
    return submitted(explorer, request, "track", track_args(explorer, body), key)


@router.get("/concepts", summary="Concepts that can be tracked")
def concepts() -> ConceptList:
    """What each asks, what it must not be mistaken for, where the model is read, and some of its texts."""
    return ConceptList(concepts=offered_concepts())


@router.get("/reports", summary="Reports of the tracker")
def reports() -> ReportList:
    """Model, date, concepts and verdicts of each report."""
    return ReportList(reports=report_lines())


@router.get(
    "/reports/{report}",
    summary="One report",
    response_model=TrackingReport,
    responses=_ERRORS,
    response_class=JSONResponse,
)
def report(explorer: ExplorerOf, report: ReportName) -> Response:
    """Everything that a run found: the record that pages and plots are made from."""
    return Response(explorer.report(report).report.model_dump_json(), media_type="application/json")


@router.get(
    "/reports/{report}/plots/{plot}.csv",
    summary="Data of a plot of a report, as CSV",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}, **_ERRORS},
)
def plot_csv(explorer: ExplorerOf, report: ReportName, plot: PlotName) -> Response:
    """The numbers of the plot, one row each; an empty cell is not established or was not measured."""
    found = explorer.report(report).plot(plot)
    rows = (dict(zip(found.columns, row, strict=True)) for row in found.rows)
    return csv_response(f"{report}-{found.name}.csv", found.columns, rows)


@router.get("/reports/{report}/plots/{plot}", summary="A plot of a report", responses=_ERRORS)
def plot(explorer: ExplorerOf, report: ReportName, plot: PlotName) -> PlotDocument:
    """What it shows, its numbers, and a figure as Plotly takes it."""
    return PlotDocument.of(explorer.report(report).plot(plot))


@router.get(
    "/compare_reports.csv",
    summary="Data of the plot of several models, as CSV",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}, **_ERRORS},
)
def compare_csv(explorer: ExplorerOf, reports: ReportNames, concept: ConceptName) -> Response:
    """One concept in several reports, by relative depth."""
    found = compared_plot(explorer, reports, concept)
    rows = (dict(zip(found.columns, row, strict=True)) for row in found.rows)
    return csv_response(f"{found.name}.csv", found.columns, rows)


@router.get("/compare_reports", summary="One concept in several models", responses=_ERRORS)
def compare_reports(explorer: ExplorerOf, reports: ReportNames, concept: ConceptName) -> PlotDocument:
    """The curves of one concept in several reports in one plot, by relative depth."""
    return PlotDocument.of(compared_plot(explorer, reports, concept))
