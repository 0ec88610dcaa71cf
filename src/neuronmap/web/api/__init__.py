"""The routes for scripts under ``/api``: the same data as the pages, and jobs."""

from __future__ import annotations

from fastapi import FastAPI

from neuronmap.web.api import (
    concepts,
    feature_examples,
    features,
    jobs,
    live,
    models,
    neuronpedia,
    overview,
    search,
    system,
)

__all__ = ["include"]


def include(app: FastAPI) -> None:
    """Add all routes."""
    for module in (concepts, feature_examples, features, jobs, live, models, neuronpedia, overview, search, system):
        app.include_router(module.router)
