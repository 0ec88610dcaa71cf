"""Publishing: keep room, send what is missing in pieces, then the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import anyio.from_thread
import anyio.to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from neuronmap.errors import WebError
from neuronmap.web.addresses import base_path
from neuronmap.web.zoo import PREFIX
from neuronmap.web.zoo.access import Asker, ContextOf, ZooRoute, allowed
from neuronmap.web.zoo.api.names import Key
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.document import Document
from neuronmap.zoo.manifest import MOST_FILES
from neuronmap.zoo.views import PublicationView, UploadView, VersionView

__all__ = ["BeginRequest", "Missing", "MissingRequest", "StartRequest", "router"]

router = APIRouter(prefix=PREFIX, tags=["zoo publishing"], route_class=ZooRoute)

_HOP = 1 << 20
"""Bytes that are gathered before a thread is bothered with them."""
_PATIENCE_S = 120.0
"""For the next MiB of a piece."""
_Size = Annotated[int, Field(ge=0, le=1 << 44)]


class BeginRequest(Document):
    """Room for a publication."""

    namespace: Annotated[str, Field(max_length=64, examples=["ada"])]
    """Where it will be published."""
    size: _Size
    """Bytes of the files that it brings, equal ones counted once."""


class MissingRequest(Document):
    """Which of these are to be sent?"""

    digests: Annotated[tuple[Digest, ...], Field(max_length=MOST_FILES)]
    """Of files."""


class Missing(Document):
    """What is to be sent."""

    missing: tuple[Digest, ...]
    """Digests of the files that are not here, or that the asker may not read."""


class StartRequest(Document):
    """A file that is going to be sent."""

    digest: Digest
    """SHA-256 of its bytes."""
    size: _Size
    """Its bytes."""


def _place(request: Request, *parts: str) -> dict[str, str]:
    return {"Location": "/".join([base_path(request) + PREFIX, *parts])}


def _made(request: Request, view: Document, *parts: str) -> Response:
    return JSONResponse(view.to_dict(), 201, headers=_place(request, *parts))


@router.post(
    "/publications", status_code=201, summary="Begin a publication", response_model=PublicationView,
    **allowed("write", 404, 507),
)  # fmt: skip
def begin(body: BeginRequest, request: Request, context: ContextOf, asker: Asker) -> Response:
    """Keep room in the namespace's quota. It lasts seven days from its last piece."""
    made = context.registry.uploading.begin(asker, body.namespace, body.size)
    return _made(request, made, "publications", made.key)


@router.get("/publications/{key}", summary="A publication under way", **allowed("write", 404))
def publication(key: Key, context: ContextOf, asker: Asker) -> PublicationView:
    """What was begun, with the uploads that belong to it and how far they are."""
    return context.registry.uploading.show(asker, key)


@router.delete("/publications/{key}", status_code=204, summary="Give up a publication", **allowed("write", 404))
def abandon(key: Key, context: ContextOf, asker: Asker) -> None:
    """Its unfinished uploads are thrown away."""
    context.registry.uploading.abandon(asker, key)


@router.post("/publications/{key}/missing", summary="Which files have to be sent", **allowed("write", 404))
def missing(key: Key, body: MissingRequest, context: ContextOf, asker: Asker) -> Missing:
    """Files that are here already, and that the asker may read anyway, need not be sent."""
    return Missing(missing=tuple(context.registry.uploading.missing(asker, key, body.digests)))


@router.post(
    "/publications/{key}/uploads", status_code=201, summary="Begin or go on with a file", response_model=UploadView,
    **allowed("write", 404, 409, 507),
)  # fmt: skip
def start(key: Key, body: StartRequest, request: Request, context: ContextOf, asker: Asker) -> Response:
    """Answers from which byte to go on; the same file again is the same upload."""
    made = context.registry.uploading.start(asker, key, body.digest, body.size)
    return _made(request, made, "uploads", made.key)


_APPENDING = allowed("write", 404, 408, 409, 507, rate="bytes")
_APPENDING["openapi_extra"] |= {
    "requestBody": {
        "required": True,
        "description": "The piece's bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.patch("/uploads/{key}", summary="Send a piece", **_APPENDING)
async def append(
    key: Key,
    request: Request,
    context: ContextOf,
    asker: Asker,
    offset: Annotated[
        int, Header(alias="Upload-Offset", ge=0, le=1 << 44, description="Byte at which the piece begins.")
    ],
) -> UploadView:
    """The body is the piece: 64 MiB at most, from where the last one ended. 409 says in ``error.received`` from where to go on."""

    def work() -> UploadView:
        return context.registry.uploading.append(asker, key, offset, _arriving(request))

    return await anyio.to_thread.run_sync(work, limiter=context.uploads)


def _arriving(request: Request) -> Iterator[bytes]:
    """The body as it arrives, for a thread that works on it; a MiB or so at a time, nothing more is held."""
    stream = request.stream().__aiter__()

    async def gather() -> bytes:
        held: list[bytes] = []
        length = 0
        async for chunk in stream:
            held.append(chunk)
            length += len(chunk)
            if length >= _HOP:
                break
        return b"".join(held)

    async def in_time() -> bytes:
        with anyio.fail_after(_PATIENCE_S):
            return await gather()

    while True:
        try:
            piece = anyio.from_thread.run(in_time)
        except ClientDisconnect:
            raise WebError(400, "disconnected", "The connection ended before the piece did.") from None
        except TimeoutError:
            raise WebError(
                408,
                "too_slow",
                f"Less than a MiB of the piece came in {_PATIENCE_S:g} seconds.",
                hint="Send smaller pieces.",
            ) from None
        if not piece:
            return
        yield piece


@router.post("/uploads/{key}/finish", summary="All was sent", **allowed("write", 404, 409, 507))
def finish(key: Key, context: ContextOf, asker: Asker) -> UploadView:
    """The server hashes what arrived; only what has the announced digest counts."""
    return context.registry.uploading.finish(asker, key)


_MANIFEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The manifest's bytes, kept exactly as they are; see schemas/manifest.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}
_PUBLISHING = allowed("write", 404, 409, 507)
_PUBLISHING["openapi_extra"] |= _MANIFEST_BODY
_PUBLISHING["responses"][200] = {"model": VersionView, "description": "It was there already."}


@router.put(
    "/publications/{key}/manifest",
    status_code=201,
    summary="Publish",
    response_model=VersionView,
    **_PUBLISHING,
)
async def publish(
    key: Key,
    request: Request,
    context: ContextOf,
    asker: Asker,
    draft: Annotated[bool, Query(description="Keep it from others until it is released.")] = False,
    private: Annotated[bool, Query(description="For a new artefact: for members of the namespace alone.")] = False,
) -> Response:
    """Make a version of what was sent: everything or nothing. The same manifest again is the same version."""
    data = await request.body()

    def work() -> Response:
        before = context.registry.by_digest(asker, Digest.of(data))
        made = context.registry.publishing.publish(asker, key, data, draft=draft, private=private)
        there = any(reference.artefact == f"{made.namespace}/{made.name}" for reference in before)
        address = ["artefacts", made.namespace, made.name, "versions", made.label]
        return JSONResponse(made.to_dict(), 200 if there else 201, headers=_place(request, *address))

    return await run_in_threadpool(work)
