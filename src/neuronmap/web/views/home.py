"""The first page: SAEs of this machine, jobs, and how to begin. It is answered before the other pages are imported."""

from __future__ import annotations

from pydantic import BaseModel, Field

from neuronmap.jobs import Job
from neuronmap.web.explorer import Explorer
from neuronmap.web.views.concepts.listed import ReportLine, report_lines
from neuronmap.web.views.saes import SAELine, sae_lines

__all__ = ["HomePage", "home_page"]

_REPORTS = 4


class HomePage(BaseModel):
    """What is on this machine."""

    saes: list[SAELine]
    jobs: list[Job]
    reports: list[ReportLine] = Field(description="Newest reports of the abstraction tracker.")
    more_reports: int = Field(description="How many more there are.")


def home_page(explorer: Explorer) -> HomePage:
    """What the first page shows now."""
    reports = report_lines()
    return HomePage(
        saes=sae_lines(explorer),
        jobs=explorer.jobs.list(limit=5),
        reports=reports[:_REPORTS],
        more_reports=len(reports[_REPORTS:]),
    )
