"""What need not be done again: ETags, so that what the browser has is not sent, and things worked out lately."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, MutableMapping
from typing import Any, Generic, TypeVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["Etags", "Kept", "etag", "unchanged"]

Message = MutableMapping[str, Any]
_KINDS = ("text/html", "application/json", "text/csv", "image/svg+xml")


Value = TypeVar("Value")


class Kept(Generic[Value]):
    """What was worked out lately, the last used things of it; several threads may ask.

    Args:
        most: things that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._found: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The thing of a key; made when it is not there. Two threads that ask at once may both make it."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        made = make()
        with self._lock:
            self._found[key] = made
            while len(self._found) > self._most:
                self._found.popitem(last=False)
        return made


def etag(data: bytes) -> str:
    """An ETag of what decides an answer; weak, since an answer may be compressed on its way."""
    return f'W/"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'


def unchanged(request: Request, tag: str) -> Response | None:
    """304 if the browser has what carries this tag, so that it need not be made.

    Args:
        request: may say what the browser has, in If-None-Match.
        tag: of what would be sent.
    """
    return Response(status_code=304, headers={"ETag": tag}) if _held(tag, request.headers) else None


def _held(tag: str, headers: Headers) -> bool:
    """Whether If-None-Match names a tag, compared weakly (RFC 9110, 13.1.2)."""
    known = [part.strip().removeprefix("W/") for part in headers.get("if-none-match", "").split(",")]
    return tag.removeprefix("W/") in known or known == ["*"]


class Etags:
    """ASGI middleware: pages and documents that are sent whole carry the digest of their bytes.

    Streams (events, exports) pass through: their routes know by what they change, see :func:`unchanged`.

    Args:
        app: what answers.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        held: Message | None = None

        async def sender(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _whole(message):
                held = message
                return
            if held is None:
                await send(message)
                return
            start, held = held, None
            if not message.get("more_body", False):
                headers = MutableHeaders(scope=start)
                headers["ETag"] = tag = etag(message.get("body", b""))
                if _held(tag, asked):
                    del headers["content-length"]
                    start["status"] = 304
                    message = {"type": "http.response.body", "body": b""}
            await send(start)
            await send(message)

        await self.app(scope, receive, sender)


def _whole(start: Message) -> bool:
    """Whether the answer that begins so is a document that may be kept."""
    headers = Headers(raw=start["headers"])
    kind = headers.get("content-type", "").split(";")[0]
    return start["status"] == 200 and kind in _KINDS and "content-length" in headers and "etag" not in headers
