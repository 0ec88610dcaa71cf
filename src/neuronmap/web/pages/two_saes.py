"""Two SAEs against each other."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.two_saes import TwoSAEs, two_saes

__all__ = ["router"]

router = PageRouter()


@router.page("/compare", "two_saes.html")
def compare_saes(
    explorer: ExplorerOf,
    a: Annotated[str, Query(max_length=600, description="Id of the first SAE.")] = "",
    b: Annotated[str, Query(max_length=600, description="Id of the second.")] = "",
) -> TwoSAEs:
    """What two SAEs share: the finished comparison, or a glance at their decoders."""
    return two_saes(explorer, a, b)
