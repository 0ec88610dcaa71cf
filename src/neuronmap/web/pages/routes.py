"""Every page of the explorer, in the order in which an address is looked for among them."""

from __future__ import annotations

from fastapi import FastAPI

from neuronmap.web.pages import (
    analyze,
    concepts,
    examples,
    feature,
    features,
    home,
    importing,
    jobs,
    labels,
    leaderboard,
    publishing,
    reports,
    sae,
    search,
    signin,
    similarity,
    steer,
    text,
    train,
    two_saes,
)
from neuronmap.web.zoo import feature_pages as zoo_features
from neuronmap.web.zoo import pages as zoo

__all__ = ["include"]


_MODULES = (
    analyze,
    concepts,
    examples,
    feature,
    features,
    home,
    importing,
    jobs,
    labels,
    leaderboard,
    publishing,
    reports,
    search,
    signin,
    similarity,
    steer,
    text,
    train,
    two_saes,
    zoo,
    zoo_features,
    sae,
)
"""In this order: ``sae`` comes last, since ``/sae/{id}`` takes every address below it."""


def include(app: FastAPI) -> None:
    """Add all pages."""
    for module in _MODULES:
        app.include_router(module.router)
