"""ETags: what has not changed since the browser saw it is not sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders

__all__ = ["Etags"]

Message = MutableMapping[str, Any]
_KINDS = ("text/html", "application/json", "text/csv", "image/svg+xml")


class Etags:
    """ASGI middleware: pages and documents that are sent whole carry the digest of their bytes.

    Streams (events, exports) pass through.

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
        known = Headers(scope=scope).get("if-none-match", "")
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
                tag = f'W/"{hashlib.blake2b(message.get("body", b""), digest_size=12).hexdigest()}"'
                headers["ETag"] = tag
                if tag in [part.strip() for part in known.split(",")]:
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
