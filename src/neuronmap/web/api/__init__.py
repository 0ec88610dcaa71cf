"""The routes for scripts under ``/api``: the same data as the pages, and jobs."""

from __future__ import annotations

from fastapi import Depends, FastAPI

from neuronmap.web.api import (
    concepts,
    feature_examples,
    features,
    jobs,
    leaderboard,
    live,
    models,
    neuronpedia,
    overview,
    search,
    system,
)
from neuronmap.web.parameters import known_query

__all__ = ["include"]


def include(app: FastAPI) -> None:
    """Add all routes. Neuronpedia's may be sent parameters that are not read; ours may not."""
    for module in (concepts, feature_examples, features, jobs, live, leaderboard, models, overview, search, system):
        app.include_router(module.router, dependencies=[Depends(known_query)])
    app.include_router(neuronpedia.router)
