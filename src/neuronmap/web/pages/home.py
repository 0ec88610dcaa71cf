"""The first page: SAEs of this machine, jobs, and how to begin."""

from __future__ import annotations

from pydantic import BaseModel

from neuronmap.jobs import Job
from neuronmap.web.explorer import ExplorerOf
from neuronmap.web.rendering import PageRouter
from neuronmap.web.views.saes import SAELine, sae_lines

__all__ = ["router"]

router = PageRouter()


class HomePage(BaseModel):
    """What is on this machine."""

    saes: list[SAELine]
    jobs: list[Job]


@router.page("/", "home.html", nav="home")
def home(explorer: ExplorerOf) -> HomePage:
    """SAEs of this machine and what is running."""
    return HomePage(saes=sae_lines(explorer), jobs=explorer.jobs.list(limit=5))
