"""What stands before every request to a zoo's server: from where it comes, how large it is, what a browser may do with the answer.

Who asks is known by the routes (:mod:`neuronmap.web.zoo.access`), each of which says what it needs.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from neuronmap.web.errors import Problem, problem_response
from neuronmap.web.guard import POLICY, host_of, too_large, without_body
from neuronmap.web.zoo.bodies import most_body_bytes
from neuronmap.web.zoo.settings import ZooServerSettings

__all__ = ["ZooGuard"]


class ZooGuard:
    """ASGI middleware.

    Args:
        app: what is guarded.
        settings: hosts and limits.
    """

    def __init__(self, app: ASGIApp, settings: ZooServerSettings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        fault = self._refusal(scope, headers)
        sender = self._with_headers(send)
        if fault is not None:
            await problem_response(Request(scope), fault)(scope, receive, sender)
            return
        bounded = self._bounded(scope, receive)
        if scope["method"] != "HEAD":
            await self.app(scope, bounded, sender)
            return
        as_get: Scope = {
            **scope,
            "method": "GET",
            "neuronmap.head": True,
        }  # the server itself goes on to know that it was a HEAD
        await self.app(as_get, bounded, without_body(sender))
        scope["route"] = as_get.get("route")  # for what counts requests by route

    def _refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        if host_of(headers.get("host", "")) not in self.settings.hosts:
            return Problem(
                code="host",
                message=f"This server does not answer for the host {headers.get('host', '')!r}.",
                hint="Give its name with --allowed-host, or its whole address with --address.",
                status=421,
            )
        if "\0" in scope["path"] or b"%00" in scope.get("query_string", b""):
            return Problem(code="bad_request", message="The address holds a zero byte.", status=400)
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return Problem(code="bad_request", message=f"Content-Length {length!r} is no number.", status=400)
        most = most_body_bytes(scope, self.settings.max_body_bytes)
        if len(length) > 18 or int(length) > most:
            return Problem(code="too_large", message=too_large(most), status=413)
        return None

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """A body without a stated length is refused where it becomes too large."""
        seen, most = 0, most_body_bytes(scope, self.settings.max_body_bytes)

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise HTTPException(413, too_large(most))
            return message

        return bounded

    def _with_headers(self, send: Send) -> Send:
        https = (self.settings.address or "").startswith("https:")

        async def sender(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", POLICY.format(ancestors="'none'"))
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "same-origin")
                headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
                headers.setdefault("X-Frame-Options", "DENY")
                headers.setdefault("Cache-Control", "private, no-cache")
                if https:
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        return sender
