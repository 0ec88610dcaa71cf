"""The server of a zoo that people share: accounts, and nothing of this machine's library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from neuronmap.web.caching import Etags
from neuronmap.web.errors import install_handlers
from neuronmap.web.measuring import Measured, Measures
from neuronmap.web.zoo import account_pages, feature_pages, pages
from neuronmap.web.zoo.bodies import Compressing
from neuronmap.web.zoo.context import ZooContext
from neuronmap.web.zoo.guard import ZooGuard
from neuronmap.web.zoo.mount import Zoo
from neuronmap.web.zoo.settings import ZooServerSettings
from neuronmap.zoo.blobs import probe
from neuronmap.zoo.people.oidc import Provider

__all__ = ["create_zoo_app", "served_zoo"]

_THREADS = 24
"""Requests that are worked on at once; a download needs one only while a MiB is read."""


def served_zoo(settings: ZooServerSettings) -> ZooContext:
    """What the routes of a server work on; database and store are tried at once, so that wrong ones are known at the start.

    Raises:
        ConfigError, MissingDependencyError, ResourceError, DamagedError, MismatchError, UnwritablePathError: database or store cannot be
            used.
    """
    registry = settings.open_registry()
    try:
        probe(registry.store, write=True)
    except BaseException:
        registry.close()
        raise
    made = ZooContext(
        lambda: registry,
        embedded=False,
        anonymous_read=settings.anonymous_read,
        name=settings.name,
        address=settings.address,
        rates=settings.rates,
        default_quota=settings.default_quota,
        most_organisations=settings.most_organisations,
        proxies=settings.proxies,
        reading=settings.reading,
        reading_bytes=settings.reading_bytes,
    )
    made.measures = Measures()
    if settings.oidc_issuer is not None and settings.oidc_client_id is not None:
        made.provider = Provider(settings.oidc_issuer, settings.oidc_client_id, settings.oidc_secret)
        made.provider_makes_accounts = settings.oidc_sign_up
    return made


def create_zoo_app(settings: ZooServerSettings | None = None, context: ZooContext | None = None) -> FastAPI:
    """The server as an ASGI application.

    Args:
        settings: the defaults when left out.
        context: what it serves; made from the settings when left out.
    """
    settings = settings or ZooServerSettings()
    zoo = context or served_zoo(settings)

    @asynccontextmanager
    async def life(running: FastAPI) -> AsyncIterator[None]:
        del running
        current_default_thread_limiter().total_tokens = _THREADS
        try:
            yield
        finally:
            zoo.close()

    app = FastAPI(
        title="NeuronMap zoo", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.state.zoo = Zoo(lambda: zoo, also=("/health", "/metrics"))
    install_handlers(app)
    app.router.routes.append(app.state.zoo)
    app.mount("/static", StaticFiles(directory=Path(str(files("neuronmap.web") / "static"))), name="static")
    app.include_router(account_pages.router)
    app.include_router(pages.router)
    app.include_router(feature_pages.router)
    app.add_middleware(Etags)
    app.add_middleware(Compressing, minimum_size=1024, compresslevel=5)
    app.add_middleware(ZooGuard, settings=settings)
    if zoo.measures is not None:
        app.add_middleware(Measured, measures=zoo.measures)
    return app
