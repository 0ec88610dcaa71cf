"""How a server hands everything under ``/api/zoo`` to the zoo. Nothing of the zoo is imported before the first request for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from neuronmap.web.arrow import import_arrow
from neuronmap.web.zoo import PREFIX

if TYPE_CHECKING:
    from fastapi import FastAPI

    from neuronmap.web.zoo.context import ZooContext

__all__ = ["Zoo", "embedded_zoo"]


class Zoo(BaseRoute):
    """A route of a server: everything under ``/api/zoo`` is the zoo's.

    Args:
        opening: makes what its routes work on; called once.
        also: further addresses that are its own.
    """

    def __init__(self, opening: Callable[[], ZooContext], also: tuple[str, ...] = ()) -> None:
        self._opening, self._also, self._lock = opening, also, threading.Lock()

    @cached_property
    def context(self) -> ZooContext:
        """What its routes work on, for pages."""
        with self._lock:
            made: ZooContext = self.__dict__.get("context") or self._opening()
            self.__dict__["context"] = made
        return made

    @cached_property
    def app(self) -> FastAPI:
        """Its API."""
        import_arrow()
        from neuronmap.web.zoo.api import create_zoo_api

        return create_zoo_api(self.context)

    def close(self) -> None:
        """Let go of the database, if it was ever opened."""
        if "context" in self.__dict__:
            self.context.close()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = str(scope.get("path", "")).removeprefix(str(scope.get("root_path", "")).rstrip("/"))
        ours = scope["type"] == "http" and (path == PREFIX or path.startswith(f"{PREFIX}/") or path in self._also)
        return (Match.FULL, {}) if ours else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(Exception):  # the API has answered and logged it; the server around it would do so again
            await self.app(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> NoReturn:
        raise NoMatchFound(name, path_params)


def embedded_zoo() -> Zoo:
    """The zoo in this machine's home, where everything is allowed; what stands before the server must let friends in only."""

    def opening() -> ZooContext:
        from neuronmap.web.zoo.context import ZooContext

        return ZooContext.of_this_machine()

    return Zoo(opening)
