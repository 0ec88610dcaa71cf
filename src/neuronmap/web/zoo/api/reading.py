"""Looking at artefacts and versions."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from neuronmap.web.zoo import PREFIX
from neuronmap.web.zoo.access import Asker, ContextOf, ZooRoute, allowed
from neuronmap.web.zoo.api.names import DigestInPath, Name, Namespace, VersionOf
from neuronmap.web.zoo.sending import not_modified, tag_of
from neuronmap.zoo.document import Document
from neuronmap.zoo.manifest import SCHEMA
from neuronmap.zoo.names import check_name
from neuronmap.zoo.records import list_kinds
from neuronmap.zoo.registry.lineage import MOST_DEPTH
from neuronmap.zoo.registry.uploading import MOST_PIECE_BYTES
from neuronmap.zoo.schemas import json_schema
from neuronmap.zoo.views import AliasMove, ArtefactView, LineageView, VersionView

__all__ = ["PROTOCOL", "References", "SchemaEntry", "SchemaList", "ServerView", "router"]

router = APIRouter(prefix=PREFIX, tags=["zoo"], route_class=ZooRoute)

PROTOCOL = 1
"""Of this API; a client that knows another one says so instead of guessing."""


class ServerView(Document):
    """What a zoo's server is."""

    name: str
    """What it calls itself."""
    neuronmap: str
    """Version of NeuronMap that it runs."""
    protocol: int
    """Version of this API."""
    features: tuple[str, ...]
    """What it can do beyond reading and publishing: accounts, oidc."""
    anonymous_read: bool
    """Whether what is public can be read without a token."""
    most_piece_bytes: int
    """Longest piece of an upload."""


class SchemaEntry(Document):
    """A published JSON schema."""

    name: str
    """``manifest``, or the kind whose record it describes."""
    title: str
    """For people."""
    version: str
    """Major and minor number."""


class SchemaList(Document):
    """The published JSON schemas."""

    schemas: tuple[SchemaEntry, ...]
    """The manifest's, and each kind's record."""


class References(Document):
    """What is known under a manifest's digest."""

    references: tuple[str, ...]
    """As far as the asker may see them."""


@router.get("", summary="What this server is", **allowed("open"))
def server(context: ContextOf) -> ServerView:
    """Answered to everybody: version of the API, what can be done, whether reading needs a token."""
    features = [] if context.embedded else ["accounts"]
    if context.provider is not None:
        features.append("oidc")
    return ServerView(
        name=context.name,
        neuronmap=version("neuronmap"),
        protocol=PROTOCOL,
        features=tuple(features),
        anonymous_read=context.anonymous_read,
        most_piece_bytes=MOST_PIECE_BYTES,
    )


@router.get("/schemas", summary="The JSON schemas of manifests and records", **allowed("open"))
def schemas() -> SchemaList:
    """Names and versions; each is at ``schemas/{name}``."""
    kinds = [SchemaEntry(name=kind.name, title=kind.title, version=kind.schema_version) for kind in list_kinds()]
    manifest = SchemaEntry(name="manifest", title="Manifest", version=SCHEMA.rpartition("/")[2])
    return SchemaList(schemas=(manifest, *kinds))


@router.get("/schemas/{name}", summary="A JSON schema", **allowed("open", 404))
def schema(
    name: Annotated[str, Path(max_length=60, description="manifest, or a kind.", examples=["manifest"])],
) -> dict[str, Any]:
    """The schema of the manifest, or of a kind's record, by JSON Schema 2020-12."""
    return json_schema(name)


@router.get("/artefacts/{namespace}/{name}", summary="An artefact and its versions", **allowed("read", 404))
def artefact(namespace: Namespace, name: Name, context: ContextOf, asker: Asker) -> ArtefactView:
    """Versions, the newest first: yanked and deleted ones too; drafts for those who may write there."""
    return context.registry.artefact(asker, namespace, check_name(name))


@router.get("/artefacts/{namespace}/{name}/versions/{version}", summary="A version", **allowed("read", 404))
def version_(reference: VersionOf, context: ContextOf, asker: Asker) -> VersionView:
    """A version, whole: manifest, files, what it was made from, what was said about it."""
    return context.registry.show(asker, reference)


@router.get(
    "/artefacts/{namespace}/{name}/versions/{version}/manifest",
    summary="The manifest's bytes",
    response_class=Response,
    **allowed("read", 404, 409, 412),
)
def manifest(
    reference: VersionOf,
    request: Request,
    context: ContextOf,
    asker: Asker,
    pulled: Annotated[bool, Query(description="Count it as a download.")] = False,
) -> Response:
    """Exactly the bytes that were published; their SHA-256 is the version's identity, and stands in ETag and Zoo-Digest."""
    digest, data = context.registry.manifest(asker, reference, pulled=pulled)
    headers = {"ETag": tag_of(digest), "Zoo-Digest": digest, "Cache-Control": "private, no-cache"}
    return not_modified(request, headers) or Response(data, media_type="application/json", headers=headers)


@router.get(
    "/artefacts/{namespace}/{name}/versions/{version}/lineage",
    summary="What it was made from, and what was made from it",
    **allowed("read", 404),
)
def lineage(
    reference: VersionOf,
    context: ContextOf,
    asker: Asker,
    depth: Annotated[int, Query(ge=1, le=MOST_DEPTH, description="Edges from the version, at most.")] = 3,
    up: Annotated[bool, Query(description="What it was made from.")] = True,
    down: Annotated[bool, Query(description="What was made from it, or is about it.")] = True,
) -> LineageView:
    """The graph around a version. What the asker may not see is shown by its digest alone."""
    return context.registry.lineage(asker, reference, depth=depth, up=up, down=down)


@router.get("/artefacts/{namespace}/{name}/alias-log", summary="Who moved which alias", **allowed("read", 404))
def alias_log(namespace: Namespace, name: Name, context: ContextOf, asker: Asker) -> list[AliasMove]:
    """Every move of every alias, the newest first."""
    return context.registry.changing.alias_log(asker, namespace, check_name(name))


@router.get("/manifests/{digest}", summary="What a manifest's digest is called here", **allowed("read"))
def by_digest(digest: DigestInPath, context: ContextOf, asker: Asker) -> References:
    """Every version with this digest that the asker may see; none for an unknown one."""
    found = context.registry.by_digest(asker, digest)
    return References(references=tuple(str(reference) for reference in found))
