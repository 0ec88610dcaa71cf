"""``/api/sae/list_models``: SAEs of this machine."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StringConstraints

from neuronmap.web.errors import responses
from neuronmap.web.routing import ExplorerOf
from neuronmap.web.views.saes import SAELine, sae_line

__all__ = ["router"]

router = APIRouter(prefix="/api/sae", tags=["SAEs"])


class ModelList(BaseModel):
    """SAEs that meet the conditions."""

    models: list[SAELine]
    total: int = Field(description="How many meet the conditions, on all pages.")
    next: str | None = Field(description="Cursor of the next page; null on the last.")


@router.get("/list_models", summary="SAEs of this machine", responses=responses(422))
def list_models(
    explorer: ExplorerOf,
    model: Annotated[str | None, Query(description="Language model; * and ? as in file names.", max_length=300)] = None,
    layer: Annotated[int | None, Query(ge=0, le=10_000, description="Block, counted from 0.")] = None,
    component: Annotated[str | None, Query(description="residual, mlp, attention, ...", max_length=300)] = None,
    architecture: Annotated[str | None, Query(description="topk, batchtopk, ...", max_length=100)] = None,
    tag: Annotated[str | None, Query(max_length=60)] = None,
    where: Annotated[
        list[Annotated[str, StringConstraints(max_length=200)]],
        Query(description="Conditions on metrics, such as `explained_variance>=0.7`.", max_length=20),
    ] = [],  # noqa: B006 (FastAPI copies it)
    sort: Annotated[
        str, Query(description="Field or metric; `-created` puts the newest first.", max_length=100)
    ] = "-created",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(description="Cursor: the `next` of the page before.", max_length=300)] = None,
) -> ModelList:
    """List the SAEs in the library, with their metrics and analyses."""
    found = explorer.hub.search(
        model=model, layer=layer, component=component, architecture=architecture, tag=tag or (), where=where, sort=sort
    )
    ids = [entry.id for entry in found]
    start = ids.index(after) + 1 if after in ids else 0
    page = found[start : start + limit]
    more = page[-1].id if page and start + limit < len(found) else None
    return ModelList(models=[sae_line(explorer, entry) for entry in page], total=len(found), next=more)
