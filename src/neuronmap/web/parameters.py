"""Parameters that many routes take, each with its limits and its words in one place."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

__all__ = ["Analysis", "Depth", "Least", "Number", "SAEInPath", "SAEInQuery"]

_MOST = 600
"""Characters of an SAE's id."""

SAEInPath = Annotated[str, Path(max_length=_MOST, description="Id of the SAE; may have slashes in it.")]
SAEInQuery = Annotated[str, Query(min_length=1, max_length=_MOST, description="Id of the SAE.", examples=["demo"])]
Analysis = Annotated[str, Query(max_length=100, description="Name of the analysis; the newest when left out.")]
Number = Annotated[int, Query(ge=0, lt=2**31, description="Number of the feature.", examples=[7])]
Least = Annotated[
    float | None,
    Query(
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Least value of a step; about a dozen neighbours when left out.",
    ),
]
Depth = Annotated[int, Query(ge=1, le=2, description="Steps from the feature.")]
