"""Parameters that many routes take, each with its limits and its words in one place."""

from __future__ import annotations

import difflib
from typing import Annotated

from fastapi import Path, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from neuronmap.web.errors import field_fault

__all__ = ["Analysis", "Depth", "Least", "Number", "SAEInPath", "SAEInQuery", "known_query", "unknown_query"]

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


async def known_query(request: Request) -> None:
    """For routes of scripts: a parameter that the route does not have is an error, not ignored. A misspelt limit is no limit.

    Raises:
        RequestValidationError: names the parameter, and near ones that there are.
    """
    for name in unknown_query(request):
        names = _names(request.scope["route"].dependant)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        known = f"Parameters: {', '.join(names)}." if names else "It has none."
        hint = f"Did you mean {' or '.join(near)}?" if near else known
        raise field_fault("query", name[:100], message="this address has no such parameter", hint=hint)


def unknown_query(request: Request) -> list[str]:
    """Names in the query of a request that its route does not take, in their order."""
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute):
        return []
    names = _names(route.dependant)
    return [name for name in request.query_params if name not in names]


def _names(dependant: Dependant) -> list[str]:
    """Names of the parameters in the query that a route or what it depends on takes; a model of parameters has several."""
    names: list[str] = []
    for parameter in dependant.query_params:
        kind = parameter.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += [field.alias or name for name, field in kind.model_fields.items()]
        else:
            names.append(parameter.alias)
    return names + [name for part in dependant.dependencies for name in _names(part)]
