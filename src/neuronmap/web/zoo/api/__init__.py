"""The zoo's API: an application of its own, which a server hands everything under ``/api/zoo`` to."""

from __future__ import annotations

from copy import copy
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from starlette.datastructures import State

from neuronmap.web.api.examples import add_examples
from neuronmap.web.errors import ProblemDocument, install_handlers, responses
from neuronmap.web.parameters import known_query
from neuronmap.web.zoo import PREFIX
from neuronmap.web.zoo.api import (
    administering,
    changing,
    community,
    elsewhere,
    files,
    health,
    people,
    publishing,
    reading,
    searching,
)
from neuronmap.web.zoo.context import COOKIE, ZooContext
from neuronmap.web.zoo.faults import install_zoo_handlers

__all__ = ["create_zoo_api"]

_ABOUT = """Artefacts that people publish, find, check and build on. Versions never change; each is named by the SHA-256 of its manifest.
Errors have one shape, `{"error": {"code", "message", "hint", ...}}`."""


def create_zoo_api(context: ZooContext) -> FastAPI:
    """The API of one zoo.

    Args:
        context: the zoo.
    """
    app = copy(_finished(context.embedded))
    app.state = State({"zoo": context})
    return app


@cache
def _finished(embedded: bool) -> FastAPI:
    """The routes, without a server's zoo: they are the same for all servers of a process, and to make them takes half a second."""
    app = _ZooAPI(
        title="NeuronMap zoo",
        version=version("neuronmap"),
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        redirect_slashes=False,
        responses=responses(400, 413, 421, 422, 429, 503),
    )
    install_handlers(app)
    install_zoo_handlers(app)
    for module in (reading, searching, files, publishing, changing, people, community, administering):
        app.include_router(module.router, dependencies=[Depends(known_query)])
    if not embedded:
        app.include_router(health.router)
        app.include_router(elsewhere.router)  # providers add parameters of their own
    return app


class _ZooAPI(FastAPI):
    """FastAPI, with the shape of errors described once, and an example of each answer (``examples.json`` beside this file)."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            shape = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
            parts = {**shape.pop("$defs"), "ProblemDocument": shape}
            document.setdefault("components", {}).setdefault("schemas", {}).update(parts)
            add_examples(document, "neuronmap.web.zoo.api")
            _add_security(document)
        return self.openapi_schema or {}


def _add_security(document: dict[str, Any]) -> None:
    """Say how it is known who asks, and of which routes."""
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "A token, nmz_...; see POST /api/zoo/tokens."},
        "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "Of a signed-in browser."},
    }
    for methods in document["paths"].values():
        for route in methods.values():
            route["security"] = [] if route["x-zoo-scope"] == "open" else [{"token": []}, {"session": []}]
