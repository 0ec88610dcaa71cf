"""The first page: SAEs of this machine, jobs, and how to begin."""

from __future__ import annotations

from pydantic import BaseModel, Field

from neuronmap.jobs import Job
from neuronmap.web.explorer import ExplorerOf
from neuronmap.web.rendering import PageRouter
from neuronmap.web.views.concepts.start import ReportLine, report_lines
from neuronmap.web.views.saes import SAELine, sae_lines

__all__ = ["router"]

router = PageRouter()
_REPORTS = 4


class HomePage(BaseModel):
    """What is on this machine."""

    saes: list[SAELine]
    jobs: list[Job]
    reports: list[ReportLine] = Field(description="Newest reports of the abstraction tracker.")
    more_reports: int = Field(description="How many more there are.")


@router.page("/", "home.html", nav="home")
def home(explorer: ExplorerOf) -> HomePage:
    """SAEs of this machine and what is running."""
    reports = report_lines()
    return HomePage(
        saes=sae_lines(explorer),
        jobs=explorer.jobs.list(limit=5),
        reports=reports[:_REPORTS],
        more_reports=len(reports[_REPORTS:]),
    )
