"""The server: what stands before every request, the first pages and static files. All else is behind :class:`Rest`.

    Measured > Guard > Compressing > Etags >  /static, /plotly.js, /          at once
                                              /sae/...  (web.early)           until the whole is there
                                              /api/zoo  (web.zoo.mount)       imported when first asked for
                                              all else  (web.whole)           imported while the first page is looked at

Nothing that this module imports may need FastAPI, numpy, pyarrow or DuckDB; a test holds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio.to_thread import current_default_thread_limiter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from neuronmap.web import plotly
from neuronmap.web.arrow import import_arrow
from neuronmap.web.caching import Etags
from neuronmap.web.early import EarlySAE, first_page
from neuronmap.web.errors import HANDLERS
from neuronmap.web.explorer import Explorer
from neuronmap.web.guard import Guard
from neuronmap.web.measuring import Measured, Measures
from neuronmap.web.rest import Rest
from neuronmap.web.settings import ServerSettings
from neuronmap.web.warming import Warming
from neuronmap.web.zoo.bodies import Compressing
from neuronmap.web.zoo.mount import embedded_zoo

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Application", "create_app"]

_THREADS = 8
"""Requests that are worked on at once. More would only wait for each other, each with tables of its own in memory."""


def create_app(settings: ServerSettings | None = None) -> Application:
    """The server as an ASGI application.

    Args:
        settings: host, limits, folders; the defaults when left out.

    Raises:
        ConfigError: settings that would let strangers in.
    """
    return Application(settings or ServerSettings())


class Application(Starlette):
    """The server.

    Args:
        settings: host, limits, folders.

    Attributes:
        rest: hands on what is neither a first page nor a static file.
        warming: makes it while nobody waits; None before the start, and where no jobs are run.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        explorer = Explorer(settings)
        measures, zoo = Measures(explorer), embedded_zoo()
        self.rest = Rest(self._whole)
        self.warming: Warming | None = None
        super().__init__(
            routes=[
                Mount("/static", _Files(directory=Path(str(files("neuronmap.web") / "static"))), name="static"),
                plotly.ROUTE,
                Route("/", first_page, name="home"),
                EarlySAE(self.rest),
                zoo,
                self.rest,
            ],
            middleware=[
                Middleware(Measured, measures=measures),
                Middleware(Guard, settings=settings),
                Middleware(Compressing, minimum_size=1024, compresslevel=5),
                Middleware(Etags),
            ],
            exception_handlers=HANDLERS,
            lifespan=_life,
        )
        self.state.explorer, self.state.measures, self.state.zoo = explorer, measures, zoo

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of all routes."""
        return self.rest.app.openapi()

    def _whole(self) -> FastAPI:
        import_arrow()
        from neuronmap.web.whole import whole_app

        return whole_app(self.state)


@asynccontextmanager
async def _life(running: Application) -> AsyncIterator[None]:
    explorer: Explorer = running.state.explorer
    current_default_thread_limiter().total_tokens = _THREADS
    if running.settings.supervise:
        running.warming = Warming(explorer, running.rest)
    try:
        yield
    finally:
        if running.warming is not None:
            await running.warming.end()
        running.state.zoo.close()
        await explorer.close()


class _Files(StaticFiles):
    """Static files; an address that carries the file's digest never changes."""

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        response = super().file_response(*arguments, **more)
        scope: dict[str, Any] = next((part for part in (*arguments, *more.values()) if isinstance(part, dict)), {})
        kept = b"v=" in scope.get("query_string", b"")
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if kept else "no-cache"
        return response
