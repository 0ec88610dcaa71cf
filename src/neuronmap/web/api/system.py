"""Health and metrics of the server."""

from __future__ import annotations

from importlib.metadata import version

import prometheus_client
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from neuronmap.web.routing import ExplorerOf

__all__ = ["router"]

router = APIRouter(tags=["server"])


class Health(BaseModel):
    """Whether the server can do its work."""

    status: str = Field(description="ok, or degraded with the reasons.")
    version: str
    saes: int = Field(description="SAEs in the library.")
    reasons: list[str] = Field(description="What does not work.")


@router.get("/api/health", summary="Whether the server works")
def health(explorer: ExplorerOf) -> Health:
    """Look at library and queue; answered without a token."""
    reasons, saes = [], 0
    try:
        saes = len(explorer.hub.list())
    except OSError as error:
        reasons.append(f"library: {error.strerror}")
    try:
        explorer.jobs.counts()
    except Exception as error:  # noqa: BLE001 (whatever the database says, health must answer)
        reasons.append(f"jobs: {type(error).__name__}")
    return Health(status="degraded" if reasons else "ok", version=version("neuronmap"), saes=saes, reasons=reasons)


@router.get(
    "/api/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
def metrics(request: Request) -> Response:
    """Requests by route and status, their time, jobs by state, the process that runs models."""
    registry = request.app.state.measures.registry
    return Response(prometheus_client.generate_latest(registry), media_type=prometheus_client.CONTENT_TYPE_LATEST)
