"""The application behind the first page: all routes of pages and API, the shapes of errors, the OpenAPI document."""

from __future__ import annotations

from copy import copy
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import State

from neuronmap.web.api import routes as api
from neuronmap.web.api.examples import add_examples
from neuronmap.web.errors import ProblemDocument, install_handlers, responses
from neuronmap.web.pages import routes as pages

__all__ = ["whole_app"]

_ABOUT = """Everything the explorer shows, for scripts: SAEs of this machine, their features, examples and curves; jobs; texts run
through models. Errors have one shape, `{"error": {"code", "message", "hint", ...}}`. What may take longer than two seconds is answered
with 202 and an address to ask again."""
_NOWHERE = {"type": "http", "method": "GET", "path": "/-", "root_path": "", "headers": []}


def whole_app(state: State) -> FastAPI:
    """All routes. What stands before every request (hosts, tokens, limits, ETags) stands before this application.

    Args:
        state: of the server: its explorer, its zoo, its measures.
    """
    app = copy(_finished())
    app.state = state
    return app


@cache
def _finished() -> FastAPI:
    """The routes, without a server's state: they are the same for all servers of a process, and to make them takes half a second."""
    app = _Described(
        title="NeuronMap",
        version=version("neuronmap"),
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=responses(400, 401, 403, 413, 421, 422),
    )
    install_handlers(app)
    api.include(app)
    pages.include(app)
    for route in app.router.routes:  # FastAPI finishes routes when an address is first looked for among them (0.2 s)
        route.matches({**_NOWHERE, "app": app})
    return app


class _Described(FastAPI):
    """FastAPI, with the shape of errors described once and referred to by all routes, and an example of each answer."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            shape = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
            parts = {**shape.pop("$defs"), "ProblemDocument": shape}
            document.setdefault("components", {}).setdefault("schemas", {}).update(parts)
            add_examples(document)
        return self.openapi_schema or {}
