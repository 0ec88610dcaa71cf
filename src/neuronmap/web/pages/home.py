"""The first page: SAEs of this machine, jobs, and how to begin."""

from __future__ import annotations

from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.home import HomePage, home_page

__all__ = ["router"]

router = PageRouter()


@router.page("/", "home.html", nav="home")
def home(explorer: ExplorerOf) -> HomePage:
    """SAEs of this machine and what is running."""
    return home_page(explorer)
