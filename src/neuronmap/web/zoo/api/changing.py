"""What may change after publication: states, aliases, who may see it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from neuronmap.web.zoo import PREFIX
from neuronmap.web.zoo.access import Asker, ContextOf, ZooRoute, allowed
from neuronmap.web.zoo.api.names import Alias, Name, Namespace, Reason, VersionOf
from neuronmap.zoo.document import Document
from neuronmap.zoo.names import Reference, check_name
from neuronmap.zoo.views import ArtefactView, VersionView

__all__ = ["AliasRequest", "DeprecateRequest", "ReasonRequest", "VisibilityRequest", "router"]

router = APIRouter(prefix=PREFIX, tags=["zoo changes"], route_class=ZooRoute)

_VERSION = "/artefacts/{namespace}/{name}/versions/{version}"
_ALIAS = "/artefacts/{namespace}/{name}/aliases/{alias}"
_Version = Annotated[str, Field(max_length=300, examples=["1.0"])]
_Expected = Annotated[str | None, Field(max_length=64)]


class ReasonRequest(Document):
    """Why."""

    reason: Reason


class DeprecateRequest(Document):
    """Why it should not be used any more, and what instead."""

    reason: Reason
    successor: Annotated[str | None, Field(max_length=300, examples=["1.1"])] = None
    """Version of the same artefact to use instead: a label, an alias, or a whole reference."""


class AliasRequest(Document):
    """Where an alias shall point."""

    version: _Version
    """A label or digest."""
    expected: _Expected = None
    """Label that it must point to now, empty for none; null does not ask."""
    reason: Reason = ""


class VisibilityRequest(Document):
    """Who may see an artefact."""

    private: bool
    """Members of the namespace alone."""


def _version_of(namespace: str, name: str, text: str) -> Reference:
    """A version of an artefact: what stands after the ``@``, or a whole reference."""
    return Reference.parse(text if "/" in text else f"{namespace}/{name}@{text}")


@router.post(f"{_VERSION}/release", summary="Publish a draft", **allowed("write", 404))
def release(reference: VersionOf, context: ContextOf, asker: Asker) -> VersionView:
    """As it is; from then on it never changes."""
    return context.registry.publishing.release(asker, reference)


@router.post(f"{_VERSION}/deprecate", summary="Say that there is something better", **allowed("write", 404))
def deprecate(reference: VersionOf, body: DeprecateRequest, context: ContextOf, asker: Asker) -> VersionView:
    """It is still found and pulled, with the reason shown."""
    after = _version_of(reference.namespace, reference.name, body.successor) if body.successor else None
    return context.registry.changing.deprecate(asker, reference, body.reason, after)


@router.post(f"{_VERSION}/yank", summary="Take a version out of searches", **allowed("write", 404))
def yank(reference: VersionOf, body: ReasonRequest, context: ContextOf, asker: Asker) -> VersionView:
    """Whoever has its exact label or digest still gets it, with the reason; searches, ``latest`` and aliases do not find it."""
    return context.registry.changing.yank(asker, reference, body.reason)


@router.post(f"{_VERSION}/restore", summary="Undo a deprecation or a yank", **allowed("write", 404))
def restore(reference: VersionOf, context: ContextOf, asker: Asker) -> VersionView:
    """It is published again, as before."""
    return context.registry.changing.restore(asker, reference)


@router.delete(_VERSION, summary="Delete a version's bytes", **allowed("write", 404, 409))
def delete(
    reference: VersionOf,
    context: ContextOf,
    asker: Asker,
    reason: Annotated[str, Query(min_length=1, max_length=1000, description="Why; kept and shown.")],
) -> VersionView:
    """Owners alone, and only what nothing was made from. Its manifest stays, its label is never given again."""
    deleted = context.registry.changing.delete(asker, reference, reason)
    context.looking.forget(deleted.digest)
    return deleted


@router.put(_ALIAS, summary="Point an alias to a version", **allowed("write", 404, 409))
def set_alias(
    namespace: Namespace, name: Name, alias: Alias, body: AliasRequest, context: ContextOf, asker: Asker
) -> VersionView:
    """With ``expected`` it is moved only if nobody else has moved it meanwhile (409). Every move is logged."""
    reference = _version_of(namespace, check_name(name), body.version)
    if reference.artefact != f"{namespace}/{name}":
        reference = _version_of(namespace, name, "latest/")  # raises: an alias stays within its artefact
    return context.registry.changing.set_alias(asker, reference, alias, expected=body.expected, reason=body.reason)


@router.delete(_ALIAS, status_code=204, summary="Take an alias away", **allowed("write", 404, 409))
def remove_alias(
    namespace: Namespace,
    name: Name,
    alias: Alias,
    context: ContextOf,
    asker: Asker,
    expected: Annotated[str | None, Query(max_length=64, description="Label that it must point to now.")] = None,
    reason: Annotated[str, Query(max_length=1000, description="Kept in the log.")] = "",
) -> None:
    """The log keeps what it meant."""
    context.registry.changing.remove_alias(asker, namespace, check_name(name), alias, expected=expected, reason=reason)


@router.put("/artefacts/{namespace}/{name}/visibility", summary="Who may see an artefact", **allowed("admin", 404))
def visibility(
    namespace: Namespace, name: Name, body: VisibilityRequest, context: ContextOf, asker: Asker
) -> ArtefactView:
    """All, or members of the namespace alone. For owners."""
    context.registry.changing.set_private(asker, namespace, check_name(name), body.private)
    return context.registry.artefact(asker, namespace, name)
