"""Every route under ``/api``, in the order in which an address is looked for among them."""

from __future__ import annotations

from fastapi import Depends, FastAPI

from neuronmap.web.api import (
    concepts,
    feature_examples,
    features,
    jobs,
    labels,
    leaderboard,
    live,
    models,
    neuronpedia,
    overview,
    search,
    sweeps,
    system,
)
from neuronmap.web.parameters import known_query

__all__ = ["include"]


def include(app: FastAPI) -> None:
    """Add all routes. Neuronpedia's may be sent parameters that are not read; ours may not."""
    for module in (
        concepts,
        feature_examples,
        features,
        jobs,
        labels,
        live,
        leaderboard,
        models,
        overview,
        search,
        sweeps,
        system,
    ):
        app.include_router(module.router, dependencies=[Depends(known_query)])
    app.include_router(neuronpedia.router)
