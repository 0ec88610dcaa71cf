"""Sending bytes that are named by their digest: the ETag is the digest, a part may be asked for, nothing is held in memory.

By RFC 9110: If-Match and If-None-Match compare ETags, a Range is served alone (206), and with If-Range only if the file is still the same
one. Several ranges at once, and units other than bytes, are not served: the whole file is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from neuronmap.errors import WebError
from neuronmap.zoo.digests import Digest

__all__ = ["file_response", "is_head", "not_modified", "tag_of"]

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


def tag_of(digest: Digest) -> str:
    """The ETag of what has this digest."""
    return f'"{digest}"'


def is_head(request: Request) -> bool:
    """Whether the guard has made this a GET out of a HEAD: nothing is read for an answer whose body is thrown away."""
    return bool(request.scope.get("neuronmap.head"))


def not_modified(request: Request, headers: dict[str, str]) -> Response | None:
    """304 if the asker has what carries this ETag.

    Raises:
        WebError: 412, if they want another one only.
    """
    tag = headers["ETag"]
    wanted = request.headers.get("if-match")
    if wanted is not None and wanted.strip() != "*" and tag not in _tags(wanted):
        raise WebError(412, "changed", f"What is here has the ETag {tag}, not the one in If-Match.")
    held = request.headers.get("if-none-match")
    if held is None or (held.strip() != "*" and tag not in [one.removeprefix("W/") for one in _tags(held)]):
        return None
    return Response(status_code=304, headers=headers)


def file_response(
    request: Request,
    digest: Digest,
    size: int,
    media_type: str,
    name: str,
    opening: Callable[[int, int], Iterator[bytes]],
) -> Response:
    """A file, or the part that was asked for.

    It is sent as an attachment, never to be shown in place, and without permissions: it is a stranger's.

    Args:
        request: may have Range, If-Range, If-Match, If-None-Match.
        digest: of the file.
        size: its bytes.
        media_type: its type.
        name: what it is saved as.
        opening: gives its bytes from one offset to another; called only if some are sent.

    Raises:
        WebError: 412 or 416.
    """
    headers = {
        "ETag": tag_of(digest),
        "Zoo-Digest": digest,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    same = not_modified(request, headers)
    if same is not None:
        return same
    start, end, status = 0, size, 200
    part = None if is_head(request) else _part(request, headers["ETag"], size)
    if part is not None:
        (start, end), status = part, 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    if is_head(request) or end == start:
        return Response(status_code=status, media_type=media_type, headers=headers)
    return StreamingResponse(opening(start, end), status, media_type=media_type, headers=headers)


def _part(request: Request, tag: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last that were asked for; None for all."""
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if found is None or request.headers.get("if-range", tag) != tag:
        return None
    first, last, tail = found.groups()
    if tail is not None:
        start, end = max(0, size - int(tail)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None  # no valid range: as if it were not there
    if start >= size or end <= start:
        raise WebError(
            416,
            "range",
            f"The file has {size} bytes; the range {request.headers['range'][:60]!r} has none of them.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


def _tags(header: str) -> list[str]:
    return [part.strip() for part in header.split(",")]
