"""Jobs: what runs, what waits and why, and one job watched closely."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup
from pydantic import BaseModel, Field, StringConstraints

from neuronmap.errors import InputError
from neuronmap.jobs import Job
from neuronmap.training.watching import watch_run
from neuronmap.web.addresses import lead_to
from neuronmap.web.downloads import csv_response
from neuronmap.web.explorer import Explorer
from neuronmap.web.rendering import render
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.monitor import Monitor, monitor
from neuronmap.web.views.plots import overlaid
from neuronmap.web.views.sweep import SweepMember, sweep_table

__all__ = ["router"]

router = PageRouter()
_ON_PAGE = 50
_COMPARED = 6
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,150}")


class JobsPage(BaseModel):
    """Jobs, the newest first."""

    jobs: list[Job]
    state: str | None
    kind: str | None
    before: int | None = Field(description="Number of the last one, to go on from; null on the last page.")


@router.page("/jobs", "jobs.html", nav="jobs")
def jobs(
    explorer: ExplorerOf,
    state: Annotated[str | None, Query(max_length=20)] = None,
    kind: Annotated[str | None, Query(max_length=20)] = None,
    before: Annotated[int | None, Query(ge=1, lt=2**53)] = None,
) -> JobsPage:
    """All jobs."""
    found = explorer.jobs.list(state=state or None, kind=kind or None, limit=_ON_PAGE, before=before)
    return JobsPage(jobs=found, state=state, kind=kind, before=found[-1].number if len(found) == _ON_PAGE else None)


class JobPage(BaseModel):
    """One job, and for a training or a sweep what can be watched of it."""

    job: Job
    monitor: Monitor | None
    sweep: list[SweepMember] = Field(description="The SAEs of a sweep; empty for other jobs, and before it has begun.")
    at: int | None = Field(description="Step whose density histogram is shown.")
    active: bool
    runs: list[str] = Field(description="Other runs that it can be compared with.")


def _job_page(explorer: Explorer, job: str, at: int | None) -> JobPage:
    found = explorer.jobs.get(job)
    watched, members = None, list[SweepMember]()
    if found.run is not None and found.kind == "sweep":
        members = sweep_table(found.run)
    elif found.run is not None:
        try:
            watched = monitor(found.run, at)
        except InputError:  # it has not begun, or its run was removed
            watched = None
    others = [one.run for one in explorer.jobs.list(kind="train", limit=20) if one.run and one.run != found.run]
    return JobPage(
        job=found,
        monitor=watched,
        sweep=members,
        at=at,
        active=found.state in ("queued", "running", "cancelling"),
        runs=[run for run in others if run],
    )


@router.page("/jobs/{job}", "job.html", nav="jobs")
def job_page(explorer: ExplorerOf, job: str, at: Annotated[int | None, Query(ge=0, lt=2**53)] = None) -> JobPage:
    """One job."""
    return _job_page(explorer, job, at)


@router.get("/jobs/{job}/live", include_in_schema=False, response_class=HTMLResponse)
def job_live(
    request: Request, explorer: ExplorerOf, job: str, at: Annotated[int | None, Query(ge=0, lt=2**53)] = None
) -> HTMLResponse:
    """The part of a job's page that moves."""
    return render(request, "_job_live.html", {"page": _job_page(explorer, job, at)})


@router.post("/jobs/{job}/{action}", include_in_schema=False)
def job_action(request: Request, explorer: ExplorerOf, job: str, action: str) -> Response:
    """Cancel or resume a job; then back to its page."""
    if action == "cancel":
        explorer.jobs.cancel(job)
    elif action == "resume":
        explorer.jobs.resume(job)
    else:
        raise InputError(f"A job cannot be told to {action!r}; it takes cancel and resume.")
    return lead_to(request, f"/jobs/{job}")


@router.get("/runs/{run}/history.csv", include_in_schema=False)
def history_csv(run: str) -> Response:
    """All rows of a run's history."""
    rows = watch_run(_plain(run)).history
    names = list(dict.fromkeys(name for row in rows for name in row))
    return csv_response(f"{run}-history.csv", names, rows)


@router.get("/runs/{run}/density.csv", include_in_schema=False)
def density_csv(run: str) -> Response:
    """The density histogram of every look at a run: one row a bin, and one for features that never fired."""
    rows: list[dict[str, object]] = []
    for look in watch_run(_plain(run)).snapshots:
        moment, edges = {"step": look["step"], "rows": look["rows"]}, look["edges"]
        rows.append({**moment, "features": look["never"]})
        rows += [
            {**moment, "log10_low": edges[at], "log10_high": edges[at + 1], "features": count}
            for at, count in enumerate(look["counts"])
        ]
    return csv_response(f"{run}-density.csv", ["step", "rows", "log10_low", "log10_high", "features"], rows)


def _plain(run: str) -> str:
    """A run's name: one part, no path."""
    if not _NAME.fullmatch(run):
        raise InputError(f"{run!r} is not the name of a run.")
    return run


class RunsPage(BaseModel):
    """Runs side by side."""

    runs: list[Monitor]
    chosen: list[str]
    known: list[str] = Field(description="Runs that can be chosen.")

    def overlaid(self, name: str) -> Markup:
        """A curve of all of them in one plot."""
        return overlaid([(one.run, one.curves) for one in self.runs], name)


@router.page("/runs", "runs.html", nav="jobs")
def runs(
    explorer: ExplorerOf,
    run: Annotated[list[Annotated[str, StringConstraints(max_length=200)]], Query(max_length=_COMPARED)] = [],  # noqa: B006 (FastAPI copies it)
) -> RunsPage:
    """Training curves of several runs, one over the other."""
    known = [job.run for job in explorer.jobs.list(kind="train", limit=100) if job.run]
    chosen = [name for name in dict.fromkeys(run) if name in known]
    return RunsPage(runs=[monitor(name) for name in chosen], chosen=chosen, known=known)
