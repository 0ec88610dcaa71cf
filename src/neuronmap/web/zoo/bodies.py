"""How large a request to the zoo may be, and which answers are sent as they are."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Receive, Scope, Send

from neuronmap.web.zoo import PREFIX

__all__ = ["Compressing", "most_body_bytes"]

_PIECE = re.compile(rf"{PREFIX}/uploads/[0-9a-f]{{32}}$")
_MANIFEST = re.compile(rf"{PREFIX}/publications/[0-9a-f]{{32}}/manifest$")
_FILE = re.compile(rf"{PREFIX}/artefacts/[^/]+/[^/]+/versions/[^/]+/files/")


def most_body_bytes(scope: MutableMapping[str, Any], otherwise: int) -> int:
    """Largest body of a request: pieces of uploads and manifests are larger than what people type.

    Args:
        scope: of the request.
        otherwise: largest of all others.
    """
    path = str(scope["path"])
    if scope["method"] == "PATCH" and _PIECE.search(path):
        from neuronmap.zoo.registry.uploading import MOST_PIECE_BYTES

        return max(otherwise, MOST_PIECE_BYTES)
    if scope["method"] == "PUT" and _MANIFEST.search(path):
        from neuronmap.zoo.manifest import MOST_BYTES

        return max(otherwise, MOST_BYTES + 1)  # one more, so that a manifest that is too large is told so
    return otherwise


class Compressing(GZipMiddleware):
    """gzip for what is text; files of artefacts are sent as they are, so that a part of one is a part of its bytes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _FILE.search(scope["path"]):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
