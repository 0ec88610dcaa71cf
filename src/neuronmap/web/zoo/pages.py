"""Pages of the zoo: browse, a namespace, an artefact and its versions, which SAEs fit a model."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from neuronmap.errors import InputError, NotInZooError
from neuronmap.web.rendering import PageRouter
from neuronmap.web.zoo.access import ContextOf
from neuronmap.web.zoo.context import ZooContext
from neuronmap.web.zoo.views.artefact import ArtefactPage, artefact_page
from neuronmap.web.zoo.views.browse import BrowsePage, CompatiblePage, browse_page, compatible_page
from neuronmap.zoo.names import LATEST, Reference
from neuronmap.zoo.people.principal import Principal

__all__ = ["router"]

router = PageRouter()

Name = Annotated[str, Path(max_length=64, description="Name.")]
Version = Annotated[str, Path(max_length=80, description="Label, alias, latest, or sha256:...")]
_ERRORS = (401, 403, 404, 409, 422, 429)


def _reader(request: Request, context: ContextOf) -> Principal:
    """Who looks at a page."""
    return context.admit(request, "read", "read")


Reader = Annotated[Principal, Depends(_reader)]


def _about(context: ZooContext) -> str:
    if context.embedded:
        return "SAEs, analyses and explanations that were published on this machine, or pulled to it."
    return (
        f"{context.name}: SAEs, analyses and explanations, each with its versions, its files and what it was made from."
    )


@router.page("/zoo", "zoo/browse.html", nav="zoo", errors=_ERRORS)
def browse(request: Request, context: ContextOf, reader: Reader) -> BrowsePage:
    """What is published, to search and to narrow down."""
    return browse_page(context.registry, reader, dict(request.query_params), about=_about(context))


@router.page("/zoo/compatible", "zoo/compatible.html", nav="zoo", errors=_ERRORS)
def fitting(request: Request, context: ContextOf, reader: Reader) -> CompatiblePage:
    """Which SAEs fit a model and a layer."""
    return compatible_page(context.registry, reader, dict(request.query_params))


@router.page("/zoo/{namespace}", "zoo/browse.html", nav="zoo", errors=_ERRORS)
def namespace(request: Request, context: ContextOf, reader: Reader, namespace: Name) -> BrowsePage:
    """What a person or an organisation has published."""
    _reference(namespace, "any")
    return browse_page(context.registry, reader, dict(request.query_params), about=_about(context), namespace=namespace)


@router.page("/zoo/{namespace}/{name}", "zoo/artefact.html", nav="zoo", errors=_ERRORS)
def artefact(context: ContextOf, reader: Reader, namespace: Name, name: Name) -> ArtefactPage:
    """An artefact in its newest version, or in its greatest where none is published."""
    try:
        return _artefact(context, reader, _reference(namespace, name))
    except NotInZooError:
        known = context.registry.artefact(reader, namespace, name)
        return _artefact(context, reader, _reference(namespace, name, known.versions[0].label))


@router.page("/zoo/{namespace}/{name}/{version}", "zoo/artefact.html", nav="zoo", errors=_ERRORS)
def version(context: ContextOf, reader: Reader, namespace: Name, name: Name, version: Version) -> ArtefactPage:
    """One version of an artefact."""
    return _artefact(context, reader, _reference(namespace, name, version))


def _artefact(context: ZooContext, reader: Principal, reference: Reference) -> ArtefactPage:
    server = "" if context.embedded else context.address or ""
    return artefact_page(context.registry, reader, reference, server=server, embedded=context.embedded)


def _reference(namespace: str, name: str, version: str = LATEST) -> Reference:
    """What an address means; what cannot be a name is not there.

    Raises:
        NotInZooError: it cannot be one.
    """
    try:
        return Reference.parse(f"{namespace}/{name}@{version}")
    except InputError:
        raise NotInZooError(f"There is no {namespace}/{name}@{version} in this zoo.") from None
