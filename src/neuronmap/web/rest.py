"""Everything but the first page: a route of the server that hands on to an application which is made in the meantime.

Importing all pages takes longer than a first page may; what is asked for before that is done waits for it, and is answered by the same
routes as later.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from neuronmap.web.collecting import uncollected

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Rest"]


class Rest(BaseRoute):
    """The last route of a server: takes every address.

    Args:
        making: makes the application that answers; called once, in a thread of its own.
    """

    def __init__(self, making: Callable[[], FastAPI]) -> None:
        self._making, self._lock = making, threading.Lock()
        self._made: Future[FastAPI] | None = None

    def begin(self) -> Future[FastAPI]:
        """Have it made, if nobody has yet; for whoever waits for it."""
        with self._lock:
            if self._made is None:
                self._made = Future()
                self._made.set_running_or_notify_cancel()  # a request that is given up does not end it
                threading.Thread(target=self._make, args=(self._made,), name="rest", daemon=True).start()
            return self._made

    def _make(self, made: Future[FastAPI]) -> None:
        try:
            with uncollected():
                app = self._making()
            made.set_result(app)
        except Exception as error:  # noqa: BLE001 - every request that needs it raises this, and the log has it
            made.set_exception(error)

    @property
    def made(self) -> bool:
        """Whether it has been made, or cannot be."""
        return self._made is not None and self._made.done()

    @property
    def app(self) -> FastAPI:
        """The application, once it is made."""
        return self.begin().result()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL, {}) if scope["type"] == "http" else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        made = self.begin()
        app = made.result() if made.done() else await asyncio.wrap_future(made)
        with suppress(Exception):  # the application has answered and logged it; the server around it would do so again
            await app(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> NoReturn:
        raise NoMatchFound(name, path_params)
