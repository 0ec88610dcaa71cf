"""Pages of the zoo: browse, a namespace, an artefact and its versions with what people say of it, which SAEs fit a model."""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import Form, Path, Request
from fastapi.responses import Response

from neuronmap.errors import NotInZooError
from neuronmap.web.addresses import lead_to
from neuronmap.web.routing import PageRouter
from neuronmap.web.zoo.access import ContextOf
from neuronmap.web.zoo.asked import Name, Reader, Version, reference_of
from neuronmap.web.zoo.context import ZooContext
from neuronmap.web.zoo.views.artefact import ArtefactPage, artefact_page
from neuronmap.web.zoo.views.browse import BrowsePage, CompatiblePage, browse_page, compatible_page
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import Principal

__all__ = ["router"]

router = PageRouter()

Short = Annotated[str, Form(max_length=300)]

_ERRORS = (401, 403, 404, 409, 422, 429)


def _about(context: ZooContext) -> str:
    if context.embedded:
        here = "The zoo of this machine: SAEs, analyses and explanations that were published here, or mirrored."
        other = os.environ.get("NEURONMAP_ZOO", "")
        if not other:
            return here
        return f"{here} The zoo that NEURONMAP_ZOO names ({other}) is another one; neuronmap zoo mirror brings its artefacts here."
    return (
        f"{context.name}: SAEs, analyses and explanations, each with its versions, its files and what it was made from."
    )


@router.page("/zoo", "zoo/browse.html", nav="zoo", errors=_ERRORS, any_query=True)
def browse(request: Request, context: ContextOf, reader: Reader) -> BrowsePage:
    """What is published, to search and to narrow down."""
    return browse_page(
        context.registry, reader, dict(request.query_params), about=_about(context), server=_server(request, context)
    )


@router.page("/zoo/compatible", "zoo/compatible.html", nav="zoo", errors=_ERRORS, any_query=True)
def fitting(request: Request, context: ContextOf, reader: Reader) -> CompatiblePage:
    """Which SAEs fit a model and a layer."""
    return compatible_page(context.registry, reader, dict(request.query_params))


@router.page("/zoo/{namespace}", "zoo/browse.html", nav="zoo", errors=_ERRORS, any_query=True)
def namespace(request: Request, context: ContextOf, reader: Reader, namespace: Name) -> BrowsePage:
    """What a person or an organisation has published."""
    reference_of(namespace, "any")
    return browse_page(
        context.registry,
        reader,
        dict(request.query_params),
        about=_about(context),
        namespace=namespace,
        server=_server(request, context),
    )


@router.page("/zoo/{namespace}/{name}", "zoo/artefact.html", nav="zoo", errors=_ERRORS)
def artefact(request: Request, context: ContextOf, reader: Reader, namespace: Name, name: Name) -> ArtefactPage:
    """An artefact in its newest version, or in its greatest where none is published."""
    try:
        return _artefact(request, context, reader, reference_of(namespace, name))
    except NotInZooError:
        known = context.registry.artefact(reader, namespace, name)
        return _artefact(request, context, reader, reference_of(namespace, name, known.versions[0].label))


@router.page("/zoo/{namespace}/{name}/{version}", "zoo/artefact.html", nav="zoo", errors=_ERRORS)
def version(
    request: Request, context: ContextOf, reader: Reader, namespace: Name, name: Name, version: Version
) -> ArtefactPage:
    """One version of an artefact."""
    return _artefact(request, context, reader, reference_of(namespace, name, version))


# --- what people add ---------------------------------------------------------------------------------------------------


@router.post("/zoo/{namespace}/{name}/star", include_in_schema=False)
def star(request: Request, context: ContextOf, namespace: Name, name: Name, on: Short = "true") -> Response:
    """Give a star, or take it back."""
    asker = context.admit(request, "write", "write")
    context.people.opinions.star(asker, namespace, name, on=on == "true")
    return lead_to(request, f"/zoo/{namespace}/{name}")


@router.post("/zoo/{namespace}/{name}/comments", include_in_schema=False)
def comment(
    request: Request,
    context: ContextOf,
    namespace: Name,
    name: Name,
    text: Annotated[str, Form(max_length=10_000)] = "",
) -> Response:
    """Say something about an artefact."""
    asker = context.admit(request, "write", "write")
    context.people.opinions.comment(asker, namespace, name, text)
    return lead_to(request, f"/zoo/{namespace}/{name}#comments")


@router.post("/zoo/{namespace}/{name}/comments/{number}/remove", include_in_schema=False)
def remove_comment(
    request: Request, context: ContextOf, namespace: Name, name: Name, number: Annotated[int, Path(ge=1, lt=2**53)]
) -> Response:
    """Take a comment away: one's own, or as an owner of the namespace."""
    context.people.opinions.remove_comment(context.admit(request, "write", "write"), number)
    return lead_to(request, f"/zoo/{namespace}/{name}#comments")


def _server(request: Request, context: ZooContext) -> str:
    """Address of the zoo for others to type; empty for the one of this machine."""
    return "" if context.embedded else (context.address or str(request.base_url)).rstrip("/")


def _artefact(request: Request, context: ZooContext, reader: Principal, reference: Reference) -> ArtefactPage:
    server = _server(request, context)
    page = artefact_page(context.registry, reader, reference, server=server, embedded=context.embedded)
    said = context.people.opinions.comments(reader, page.version.namespace, page.version.name)
    starred = None
    if reader.user_id is not None:
        starred = context.people.opinions.stars(reader, page.version.namespace, page.version.name).starred
    writes = context.embedded or ("write" in reader.scopes and reader.user_id is not None)
    return page.model_copy(update={"comments": list(said.comments), "starred": starred, "writes": writes})
