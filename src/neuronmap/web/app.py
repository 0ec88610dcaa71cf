"""The application: routers, middleware, start and end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from neuronmap.jobs import Supervisor
from neuronmap.web import api, pages
from neuronmap.web.api.examples import add_examples
from neuronmap.web.caching import Etags
from neuronmap.web.errors import ProblemDocument, install_handlers, responses
from neuronmap.web.explorer import Explorer
from neuronmap.web.guard import Guard
from neuronmap.web.measuring import Measured, Measures
from neuronmap.web.settings import ServerSettings
from neuronmap.web.warming import Warming
from neuronmap.web.zoo.bodies import Compressing
from neuronmap.web.zoo.mount import embedded_zoo

__all__ = ["create_app"]

_THREADS = 8
"""Requests that are worked on at once. More would only wait for each other, each with tables of its own in memory."""
_ABOUT = """Everything the explorer shows, for scripts: SAEs of this machine, their features, examples and curves; jobs; texts run
through models. Errors have one shape, `{"error": {"code", "message", "hint", ...}}`. What may take longer than two seconds is answered
with 202 and an address to ask again."""


def create_app(settings: ServerSettings | None = None) -> FastAPI:
    """The server as an ASGI application.

    Args:
        settings: host, limits, folders; the defaults when left out.

    Raises:
        ConfigError: settings that would let strangers in.
    """
    settings = settings or ServerSettings()
    explorer = Explorer(settings)

    @asynccontextmanager
    async def life(running: FastAPI) -> AsyncIterator[None]:
        explorer: Explorer = running.state.explorer
        current_default_thread_limiter().total_tokens = _THREADS
        supervisor = Supervisor(explorer.jobs) if settings.supervise else None
        if supervisor is not None:
            supervisor.start()
        warming = Warming(running, settings.library) if settings.supervise else None
        try:
            yield
        finally:
            if warming is not None:
                warming.cancel()
            if supervisor is not None:
                await run_in_threadpool(supervisor.stop, leave_running=settings.keep_jobs)
            app.state.zoo.close()
            await explorer.close()

    app = _Application(
        title="NeuronMap",
        version=version("neuronmap"),
        description=_ABOUT,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=responses(400, 401, 403, 413, 421, 422),
    )
    app.state.explorer, app.state.measures = explorer, Measures(explorer)
    install_handlers(app)
    app.mount("/static", _Files(directory=Path(str(files("neuronmap.web") / "static"))), name="static")
    api.include(app)
    app.state.zoo = embedded_zoo()
    app.router.routes.append(app.state.zoo)
    pages.include(app)
    app.add_middleware(Etags)
    app.add_middleware(Compressing, minimum_size=1024, compresslevel=5)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Measured, measures=app.state.measures)
    return app


class _Application(FastAPI):
    """FastAPI, with the shape of errors described once and referred to by all routes, and an example of each answer."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            shape = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
            parts = {**shape.pop("$defs"), "ProblemDocument": shape}
            document.setdefault("components", {}).setdefault("schemas", {}).update(parts)
            add_examples(document)
        return self.openapi_schema or {}


class _Files(StaticFiles):
    """Static files; an address that carries the file's digest never changes."""

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        response = super().file_response(*arguments, **more)
        scope: dict[str, Any] = next((part for part in (*arguments, *more.values()) if isinstance(part, dict)), {})
        kept = b"v=" in scope.get("query_string", b"")
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if kept else "no-cache"
        return response
