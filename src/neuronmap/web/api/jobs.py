"""Jobs over HTTP: submit, look, stop, go on, and follow their events."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from neuronmap.features.config import AnalysisConfig
from neuronmap.jobs import Job
from neuronmap.training.config import SAEConfig
from neuronmap.web.addresses import base_path
from neuronmap.web.errors import faults_inside, field_fault, responses
from neuronmap.web.explorer import Explorer
from neuronmap.web.places import place_fault
from neuronmap.web.routing import ExplorerOf
from neuronmap.web.sources import named_model, named_text

__all__ = ["SUBMITTED", "Key", "require_settings", "router", "submitted"]

router = APIRouter(prefix="/api", tags=["jobs"])

JobId = Annotated[
    str, Path(min_length=1, max_length=40, pattern=r"^[0-9a-f]+$", description="Eight hexadecimal digits.")
]
Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=200, description="The same key and arguments again give the same job."),
]
_EVERY_S = 0.4
"""Seconds between looks at the table for new events."""
_ALIVE_S = 15.0
_MOST_EVENTS = 200


class TrainRequest(BaseModel):
    """A training: settings of ``SAEConfig`` by name, and what to do around it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "settings": {
                        "model_name": "smollm2-135m",
                        "layer": 15,
                        "corpus": "sotu",
                        "hidden_dim": 4096,
                        "k": 32,
                        "max_tokens": 200_000,
                        "name": "middle",
                    }
                }
            ]
        }
    )

    settings: dict[str, Any] = Field(
        description="Settings by name; see the reference of SAEConfig. `model_name` and `corpus` are names, never paths.",
        max_length=100,
    )
    init_from: str | None = Field(default=None, max_length=300, description="SAE whose weights to start from.")
    evaluate: bool = Field(default=True, description="Evaluate in the model afterwards.")
    replace: bool = Field(default=False, description="Take the place of an SAE with the same name.")


class AnalyzeRequest(BaseModel):
    """An analysis of all features of SAEs of one language model, in one pass."""

    saes: list[str] = Field(min_length=1, max_length=16, description="Ids of the SAEs.", examples=[["demo"]])
    text: str | None = Field(
        default=None, max_length=300, description="Name of a text; what it was trained on when left out."
    )
    tokens: int | None = Field(default=None, ge=1, le=10**12, description="Most tokens.")
    lens: bool = True
    feature_map: bool = True
    hints: bool = True
    replace: bool = Field(default=False, description="Make it anew although it is there.")
    settings: AnalysisConfig = Field(default_factory=AnalysisConfig, description="What the pass keeps of each feature.")


class EvaluateRequest(BaseModel):
    """An evaluation of an SAE in its language model."""

    sae: str = Field(max_length=300, examples=["demo"])
    text: str | None = Field(default=None, max_length=300)
    tokens: int = Field(default=16_384, ge=1, le=10**10)
    ce_tokens: int = Field(default=8_192, ge=1, le=10**10)


class CompareRequest(BaseModel):
    """A comparison of two SAEs by their decoders, and with a text by where they fire."""

    a: str = Field(max_length=300, examples=["demo"])
    b: str = Field(max_length=300, examples=["other"])
    text: str | None = Field(default=None, max_length=300)
    tokens: int = Field(default=65_536, ge=1, le=10**10)
    threshold: float | None = Field(default=None, gt=0, le=1)


class JobList(BaseModel):
    """A page of jobs, the newest first."""

    jobs: list[Job]
    next: int | None = Field(description="Cursor: give it as `before` for the next page; null on the last.")


class EventList(BaseModel):
    """A page of events, the oldest first."""

    events: list[dict[str, Any]]
    last: int = Field(description="Give it as `after` to get what came since.")


def _accepted(request: Request, job: Job) -> Response:
    return JSONResponse(
        job.model_dump(mode="json"), 202, headers={"Location": f"{base_path(request)}/api/jobs/{job.id}"}
    )


SUBMITTED: dict[int | str, dict[str, Any]] = {
    202: {"model": Job, "description": "Queued; the address of the job is in the header Location."},
    **responses(404, 409, 422, 503),
}


def submitted(explorer: Explorer, request: Request, kind: str, args: dict[str, Any], key: str | None) -> Response:
    """Queue a job and say where it is."""
    return _accepted(request, explorer.jobs.submit(kind, args, idempotency_key=key))


def require_settings(config: type[BaseModel], settings: dict[str, Any]) -> None:
    """Refuse settings that a configuration does not have.

    Raises:
        RequestValidationError: names the first one, and near ones that there are.
    """
    for name in settings:
        if name not in config.model_fields:
            near = difflib.get_close_matches(name, config.model_fields, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Settings: {', '.join(config.model_fields)}."
            raise field_fault(
                "body", "settings", name[:100], message=f"{config.__name__} has no such setting", hint=hint
            )


@router.post("/sae/train", status_code=202, response_class=JSONResponse, responses=SUBMITTED, summary="Train an SAE")
def train(request: Request, explorer: ExplorerOf, body: TrainRequest, key: Key = None) -> Response:
    """Queue a training; the SAE lands in the library, evaluated."""
    settings = dict(body.settings)
    require_settings(SAEConfig, settings)
    if isinstance(settings.get("model_name"), str):
        settings["model_name"] = named_model(explorer, settings["model_name"])
    if isinstance(settings.get("corpus"), str):
        settings["corpus"] = named_text(explorer, settings["corpus"])
    if (fault := place_fault(settings)) is not None:
        raise field_fault("body", "settings", fault.field, message=fault.message, hint=fault.hint)
    args = {**settings, "evaluate": body.evaluate, "replace": body.replace}
    if body.init_from:
        args["init_from"] = explorer.entry(body.init_from).id
    with faults_inside("body", "settings"):
        return submitted(explorer, request, "train", args, key)


@router.post(
    "/sae/analyze_features",
    status_code=202,
    response_class=JSONResponse,
    responses=SUBMITTED,
    summary="Analyse all features",
)
def analyze_features(request: Request, explorer: ExplorerOf, body: AnalyzeRequest, key: Key = None) -> Response:
    """Queue an analysis of every feature: examples, statistics, labels, neighbours."""
    args = body.model_dump(mode="json", exclude_unset=True)
    args["saes"] = [explorer.entry(sae).id for sae in body.saes]
    if body.text:
        args["text"] = named_text(explorer, body.text)
    return submitted(explorer, request, "analyze", args, key)


@router.post(
    "/sae/evaluate", status_code=202, response_class=JSONResponse, responses=SUBMITTED, summary="Evaluate an SAE"
)
def evaluate(request: Request, explorer: ExplorerOf, body: EvaluateRequest, key: Key = None) -> Response:
    """Queue an evaluation in the language model."""
    args = body.model_dump(mode="json", exclude_unset=True)
    args["sae"] = explorer.entry(body.sae).id
    if body.text:
        args["text"] = named_text(explorer, body.text)
    return submitted(explorer, request, "evaluate", args, key)


@router.post(
    "/sae/compare", status_code=202, response_class=JSONResponse, responses=SUBMITTED, summary="Compare two SAEs"
)
def compare(request: Request, explorer: ExplorerOf, body: CompareRequest, key: Key = None) -> Response:
    """Queue a comparison of two SAEs."""
    args = body.model_dump(mode="json", exclude_unset=True)
    args["a"], args["b"] = explorer.entry(body.a).id, explorer.entry(body.b).id
    if body.text:
        args["text"] = named_text(explorer, body.text)
    return submitted(explorer, request, "compare", args, key)


@router.get("/jobs", responses=responses(422), summary="Jobs")
def list_jobs(
    explorer: ExplorerOf,
    state: Annotated[str | None, Query(max_length=20, pattern=r"^[a-z]+$")] = None,
    kind: Annotated[str | None, Query(max_length=20, pattern=r"^[a-z]+$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[int | None, Query(ge=1, lt=2**53, description="Cursor: the `next` of the page before.")] = None,
) -> JobList:
    """Jobs, the newest first."""
    found = explorer.jobs.list(state=state, kind=kind, limit=limit, before=before)
    return JobList(jobs=found, next=found[-1].number if len(found) == limit else None)


@router.get("/jobs/{job}", responses=responses(404, 422), summary="One job")
def get_job(explorer: ExplorerOf, job: JobId) -> Job:
    """A job as it stands."""
    return explorer.jobs.get(job)


@router.post("/jobs/{job}/cancel", responses=responses(404, 409, 422), summary="Stop a job")
def cancel_job(explorer: ExplorerOf, job: JobId) -> Job:
    """Tell a job to stop; a training keeps a checkpoint."""
    return explorer.jobs.cancel(job)


@router.post("/jobs/{job}/resume", responses=responses(404, 409, 422), summary="Let a job go on")
def resume_job(explorer: ExplorerOf, job: JobId) -> Job:
    """Queue a stopped job again; it goes on where it was."""
    return explorer.jobs.resume(job)


@router.get("/jobs/{job}/events.json", responses=responses(404, 422), summary="Events of a job, as a list")
def list_events(
    explorer: ExplorerOf,
    job: JobId,
    after: Annotated[int, Query(ge=0, lt=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST_EVENTS)] = 200,
) -> EventList:
    """Events after a number, for those who ask again rather than listen."""
    explorer.jobs.get(job)
    found = explorer.jobs.events(after=after, job=job, limit=limit)
    return EventList(events=[event.model_dump(mode="json") for event in found], last=found[-1].id if found else after)


@router.get(
    "/jobs/{job}/events",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "Events `state`, `progress` and `note`"},
        **responses(404, 422),
    },
    summary="Events of a job, as they come",
)
async def follow_events(
    explorer: ExplorerOf,
    job: JobId,
    last: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
) -> Response:
    """Server-sent events; goes on after Last-Event-ID, and ends with the job."""
    await run_in_threadpool(explorer.jobs.get, job)
    after = int(last) if last is not None and last.isdecimal() and len(last) < 16 else 0
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(explorer, job, after), media_type="text/event-stream", headers=headers)


async def _events(explorer: Explorer, job: str, after: int) -> AsyncIterator[bytes]:
    """Events from the table, whoever wrote them. (FastAPI's own stream fails loudly when a reader leaves between two events.)"""
    quiet = 0.0
    while True:
        found = await run_in_threadpool(explorer.jobs.events, after=after, job=job, limit=_MOST_EVENTS)
        for event in found:
            after = event.id
            yield format_sse_event(id=str(event.id), event=event.kind, data_str=json.dumps(event.data))
        if not found:
            quiet += _EVERY_S
            state = (await run_in_threadpool(explorer.jobs.get, job)).state
            if state not in ("queued", "running", "cancelling"):
                yield format_sse_event(event="state", data_str=json.dumps({"state": state}))
                return
            if quiet >= _ALIVE_S:
                quiet = 0.0
                yield format_sse_event(comment="alive")
        await asyncio.sleep(_EVERY_S)
