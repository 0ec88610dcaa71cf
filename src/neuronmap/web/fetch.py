"""One request through the application without a server: ``neuronmap serve --get PATH``, and the static export."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.applications import Starlette

__all__ = ["EXPORTED", "Fetched", "fetch", "fetch_now"]

EXPORTED = "neuronmap.exported"
"""Key of a request's scope: the answer goes into files for others, so that nothing of who asks may be in it."""


@dataclass(frozen=True)
class Fetched:
    """An answer.

    Attributes:
        status: HTTP status.
        headers: by lower-case name.
        body: all of it.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """Media type, without parameters."""
        return self.headers.get("content-type", "").split(";")[0]


async def fetch(app: Starlette, address: str, accept: str = "text/html", *, exported: bool = False) -> Fetched:
    """GET an address of the application.

    Args:
        app: the application.
        address: path and query, percent-encoded.
        accept: what is wanted.
        exported: see :data:`EXPORTED`.
    """
    parts = urlsplit(address)
    host = next(iter(sorted(app.state.explorer.settings.hosts)))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "root_path": "",
        "query_string": parts.query.encode(),
        "headers": [(b"host", host.encode()), (b"accept", accept.encode())],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
        EXPORTED: exported,
    }
    token = app.state.explorer.settings.token
    if token is not None:
        scope["headers"].append((b"authorization", f"Bearer {token}".encode()))  # type: ignore[attr-defined]
    started: dict[str, Any] = {}
    body = bytearray()
    over = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if over.is_set():
            return {"type": "http.disconnect"}
        over.set()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            started.update(message)
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, send)
    headers = {name.decode().lower(): value.decode() for name, value in started["headers"]}
    return Fetched(started["status"], headers, bytes(body))


def fetch_now(app: Starlette, address: str, accept: str = "text/html") -> Fetched:
    """The same from code that is not asynchronous."""

    async def once() -> Fetched:
        try:
            return await fetch(app, address, accept)
        finally:
            await app.state.explorer.close()

    return asyncio.run(once())
