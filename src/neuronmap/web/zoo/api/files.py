"""The bytes of files."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Request
from fastapi.responses import Response

from neuronmap.web.zoo import PREFIX
from neuronmap.web.zoo.access import Asker, ContextOf, ZooRoute, allowed
from neuronmap.web.zoo.api.names import FilePath, VersionOf
from neuronmap.web.zoo.sending import file_response
from neuronmap.zoo.digests import SafePath

__all__ = ["router"]

router = APIRouter(prefix=PREFIX, tags=["zoo"], route_class=ZooRoute)


@router.get(
    "/artefacts/{namespace}/{name}/versions/{version}/files/{path:path}",
    summary="A file's bytes",
    response_class=Response,
    **allowed("read", 404, 409, 412, 416, rate="bytes"),
)
def file(reference: VersionOf, path: FilePath, request: Request, context: ContextOf, asker: Asker) -> Response:
    """The file, whole or the part that ``Range`` asks for. Its SHA-256 stands in ETag and Zoo-Digest; clients check it."""
    checked = SafePath(path)
    found = context.registry.file(asker, reference, checked)

    def opening(start: int, end: int) -> Iterator[bytes]:
        return context.registry.open_blob(found.digest, start, end)

    return file_response(request, found.digest, found.size, found.media_type, checked.rpartition("/")[2], opening)
