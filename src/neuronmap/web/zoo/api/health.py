"""Whether a zoo's server works, and figures of it."""

from __future__ import annotations

from importlib.metadata import version

import prometheus_client
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from sqlalchemy import text

from neuronmap.web.zoo.access import ContextOf, ZooRoute, allowed
from neuronmap.zoo.blobs import probe
from neuronmap.zoo.document import Document

__all__ = ["ZooHealth", "router"]

router = APIRouter(tags=["zoo server"], route_class=ZooRoute)


class ZooHealth(Document):
    """Whether the server can do its work."""

    status: str
    """ok, or degraded with the reasons."""
    version: str
    """Of NeuronMap."""
    reasons: tuple[str, ...]
    """What does not work."""


_HEALTH = allowed("open")
_HEALTH["responses"][503] = {"model": ZooHealth, "description": "Something does not work."}


@router.get("/health", summary="Whether the server works", response_model=ZooHealth, **_HEALTH)
def health(context: ContextOf) -> Response:
    """Looks at database and store; answered to everybody, with 503 if one of them does not answer."""
    reasons = []
    try:
        with context.registry.database.read() as connection:
            connection.execute(text("SELECT 1"))
    except Exception as error:  # noqa: BLE001 (whatever the database says, health must answer)
        reasons.append(f"database: {type(error).__name__}")
    try:
        probe(context.registry.store)
    except Exception as error:  # noqa: BLE001
        reasons.append(f"store: {type(error).__name__}")
    found = ZooHealth(status="degraded" if reasons else "ok", version=version("neuronmap"), reasons=tuple(reasons))
    return JSONResponse(found.to_dict(), 503 if reasons else 200)


_METRICS = allowed("known")
_METRICS["responses"][200] = {"content": {"text/plain": {}}, "description": "Prometheus' text format."}


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response, **_METRICS)
def metrics(context: ContextOf) -> Response:
    """Requests by route and status, their time, the process. For whoever has a token that may read."""
    figures = prometheus_client.generate_latest(context.measures.registry) if context.measures is not None else b""
    return Response(figures, media_type=prometheus_client.CONTENT_TYPE_LATEST)
