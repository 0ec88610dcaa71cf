"""What stands before every request: who asks, from where, how much, and what the browser may do with the answer.

Against DNS rebinding the Host header must be one of ours; against forged requests every method that changes something must come from
our own pages (Origin, Sec-Fetch-Site) or carry a token; no page runs a script that is not one of our files.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request

from neuronmap.web.errors import Problem, problem_response
from neuronmap.web.settings import ServerSettings
from neuronmap.web.zoo.bodies import most_body_bytes

__all__ = ["COOKIE", "POLICY", "Guard", "cookie_of", "host_of", "is_embedded", "too_large", "without_body"]

COOKIE = "neuronmap_session"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors {ancestors}; manifest-src 'self'"
)
"""No inline script or style, nothing from elsewhere. ``ancestors`` is 'self', and * for pages that are made to be embedded."""

_SAFE = ("GET", "HEAD", "OPTIONS")
_OPEN = ("/static/", "/sign-in", "/api/health")
"""What is answered without a token: nothing of the library."""
_INFERENCE = re.compile(
    r"/api/(sae/(text|top_features|steer|effects|search)$|neuronpedia-compatible/)|/text(/result|\.json)?$|/search(\.json)?$"
    r"|/sae/.+/-/(text-strip|feature/\d+/effects|steer(/result|\.json)?)$"
)
"""Routes that run a model; how often one address may ask is limited."""
_ASKS = re.compile(rb"(^|&)((text|prompt|kept)=[^&]|by=meaning)")
"""In the query of a page that runs a model, if it does."""

_FRAMED = re.compile(r"^/sae/.+/-/feature/\d{1,10}$")
_SIGN_INS_PER_MINUTE = 20
"""Tokens that one address may try."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def cookie_of(token: str) -> str:
    """What a signed-in browser holds: a digest, so that the token itself is not stored there."""
    return hashlib.sha256(b"neuronmap session " + token.encode()).hexdigest()


class Guard:
    """ASGI middleware.

    Args:
        app: what is guarded.
        settings: hosts, limits, how people sign in.
    """

    def __init__(self, app: Any, settings: ServerSettings) -> None:
        self.app, self.settings, self.token = app, settings, settings.token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        fault = self._refusal(scope, headers)
        sender = self._with_headers(scope, send)
        if fault is not None:
            more = {"WWW-Authenticate": "Bearer"} if fault.status == 401 else None
            if fault.status == 429:
                more = {"Retry-After": "10"}
            await problem_response(Request(scope), fault, more)(scope, receive, sender)
            return
        if scope["method"] == "HEAD":
            scope, sender = {**scope, "method": "GET", "neuronmap.head": True}, without_body(sender)
        await self.app(scope, self._bounded(scope, receive), sender)

    # --- who and from where ------------------------------------------------------------------------------------------

    def _refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        if host_of(headers.get("host", "")) not in self.settings.hosts:
            return Problem(
                code="host",
                message=f"This server does not answer for the host {headers.get('host', '')!r}.",
                hint="Open it by the address that `neuronmap serve` printed, or add the name with --allowed-host.",
                status=421,
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return Problem(code="bad_request", message=f"Content-Length {length!r} is no number.", status=400)
        most = self._most_bytes(scope)
        if len(length) > 18 or int(length) > most:
            return Problem(code="too_large", message=too_large(most), status=413)
        path = str(scope["path"])
        by_token = self._has_token(headers)
        if not path.startswith(_OPEN) and not by_token and not self._known(headers):
            hint = "Sign in at /sign-in, or send the header Authorization: Bearer <token>."
            return Problem(code="unauthorized", message="This server needs a token.", hint=hint, status=401)
        if scope["method"] not in _SAFE and not by_token and not self._same_origin(headers):
            return Problem(
                code="cross_origin",
                message="The request comes from another site, so it may not change anything here.",
                hint="Use the explorer's own pages; scripts send no Origin header, or a token.",
                status=403,
            )
        return self._too_often(scope)

    def _has_token(self, headers: Headers) -> bool:
        given = headers.get("authorization", "")
        if self.token is None or not given.startswith("Bearer "):
            return False
        return hmac.compare_digest(given.removeprefix("Bearer ").encode(), self.token.encode())

    def _known(self, headers: Headers) -> bool:
        if self.settings.user_header is not None and headers.get(self.settings.user_header):
            return True
        if self.token is None:
            return self.settings.user_header is None
        held = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        return held is not None and hmac.compare_digest(held.value, cookie_of(self.token))

    def _same_origin(self, headers: Headers) -> bool:
        site = headers.get("sec-fetch-site")
        if site is not None and site not in ("same-origin", "none"):
            return False
        origin = headers.get("origin")
        if origin is None:
            return True  # no browser: a script or the command line
        return urlsplit(origin).netloc.lower() in {
            headers.get("host", "").lower(),
            *(host for host in self.settings.allowed_hosts),
        }

    def _too_often(self, scope: Scope) -> Problem | None:
        if scope["path"] == "/sign-in" and scope["method"] == "POST":
            if self._within(_SIGN_INS_PER_MINUTE, "sign-in", scope):
                return None
            return Problem(
                code="too_many_requests", message="Too many tokens were tried.", hint="Wait a minute.", status=429
            )
        if not _INFERENCE.match(str(scope["path"])):
            return None
        if scope["method"] in _SAFE and not _ASKS.search(scope.get("query_string", b"")):
            return None
        if self._within(self.settings.inferences_per_minute, "model", scope):
            return None
        return Problem(
            code="too_many_requests",
            message=f"More than {self.settings.inferences_per_minute} requests to the model in a minute.",
            hint="Wait a moment.",
            status=429,
        )

    def _within(self, per_minute: int, what: str, scope: Scope) -> bool:
        """Count a request of an address, and whether it is still within its limit."""
        from limits import RateLimitItemPerMinute

        within: bool = self._rate.hit(RateLimitItemPerMinute(per_minute), what, _client(scope))
        return within

    @cached_property
    def _rate(self) -> Any:
        """Made when first needed: the package takes a tenth of a second to import."""
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        return MovingWindowRateLimiter(MemoryStorage())

    # --- how much, and what the browser may do -----------------------------------------------------------------------

    def _most_bytes(self, scope: Scope) -> int:
        """Of a request's body: files of an SAE may be large."""
        if scope["method"] == "POST" and str(scope["path"]) == "/import":
            return self.settings.max_import_bytes
        return most_body_bytes(scope, self.settings.max_body_bytes)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """A body without a stated length is refused where it becomes too large."""
        seen, most = 0, self._most_bytes(scope)

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                from fastapi import HTTPException  # of FastAPI's own kind: any other would become "cannot be read"

                raise HTTPException(413, too_large(most))
            return message

        return bounded

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        embedded = is_embedded(scope)

        async def sender(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                ancestors = "*" if embedded else "'self'"
                headers.setdefault("Content-Security-Policy", POLICY.format(ancestors=ancestors))
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "same-origin")
                headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
                if not embedded:
                    headers.setdefault("X-Frame-Options", "SAMEORIGIN")
                if not str(scope["path"]).startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        return sender


def too_large(most: int) -> str:
    """What a request that is too large is told."""
    return f"The request is larger than {most:,} bytes."


def without_body(send: Send) -> Send:
    """The same answer as to GET, its head only."""

    async def sender(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return sender


def _client(scope: Scope) -> str:
    """Address of who asks."""
    return str((scope.get("client") or ("unknown", 0))[0])


def is_embedded(scope: Scope) -> bool:
    """Whether this is a page that may stand in a frame of another site: a feature's, which has nothing to click that changes anything."""
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return query.get("embed") == ["1"] and scope["method"] in _SAFE and _FRAMED.search(str(scope["path"])) is not None


def host_of(value: str) -> str:
    """The name in a Host header, without port; empty for what is none."""
    try:
        return (urlsplit(f"//{value}").hostname or "").lower()
    except ValueError:
        return ""
