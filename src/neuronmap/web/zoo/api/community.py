"""Stars, comments, collections."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from neuronmap.web.zoo import PREFIX
from neuronmap.web.zoo.access import Asker, ContextOf, ZooRoute, allowed
from neuronmap.web.zoo.api.names import Name, Namespace
from neuronmap.zoo.document import Document
from neuronmap.zoo.people.collections import MOST_ITEMS
from neuronmap.zoo.people.opinions import MOST_CHARACTERS, MOST_COMMENTS
from neuronmap.zoo.people.views import (
    CollectionItem,
    CollectionList,
    CollectionView,
    CommentPage,
    CommentView,
    StarView,
)

__all__ = ["CollectionRequest", "CommentRequest", "NewCollectionRequest", "router"]

router = APIRouter(prefix=PREFIX, tags=["zoo community"], route_class=ZooRoute)

_ARTEFACT = "/artefacts/{namespace}/{name}"
_COLLECTION = "/collections/{namespace}/{name}"
_TEXT = r"^[^\x00]*$"


class CommentRequest(Document):
    """A comment."""

    text: Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS, pattern=_TEXT)]
    """Markdown."""
    version: Annotated[str | None, Field(max_length=64)] = None
    """Label of the version that it is about; null for the artefact."""


class CollectionRequest(Document):
    """What a collection holds."""

    title: Annotated[str, Field(max_length=200, pattern=_TEXT)] = ""
    """One line."""
    description: Annotated[str, Field(max_length=20_000, pattern=_TEXT)] = ""
    """Markdown."""
    items: Annotated[tuple[CollectionItem, ...], Field(max_length=MOST_ITEMS)] = ()
    """In order."""


class NewCollectionRequest(CollectionRequest):
    """A new collection."""

    namespace: Annotated[str, Field(max_length=64, examples=["ada"])]
    """Whose."""
    name: Annotated[str, Field(max_length=64, examples=["favourites"])]
    """Within the namespace."""


@router.get(f"{_ARTEFACT}/star", summary="Stars of an artefact", **allowed("read", 404))
def stars(namespace: Namespace, name: Name, context: ContextOf, asker: Asker) -> StarView:
    """How many, and whether one is the asker's."""
    return context.people.opinions.stars(asker, namespace, name)


@router.put(f"{_ARTEFACT}/star", summary="Give a star", **allowed("write", 404))
def star(namespace: Namespace, name: Name, context: ContextOf, asker: Asker) -> StarView:
    """Twice is once."""
    return context.people.opinions.star(asker, namespace, name)


@router.delete(f"{_ARTEFACT}/star", summary="Take a star back", **allowed("write", 404))
def unstar(namespace: Namespace, name: Name, context: ContextOf, asker: Asker) -> StarView:
    """Nothing happens without one."""
    return context.people.opinions.star(asker, namespace, name, on=False)


@router.get(f"{_ARTEFACT}/comments", summary="Comments on an artefact", **allowed("read", 404))
def comments(
    namespace: Namespace,
    name: Name,
    context: ContextOf,
    asker: Asker,
    before: Annotated[int | None, Query(ge=1, lt=1 << 63, description="Go on before this comment.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_COMMENTS, description="Comments at most.")] = 50,
) -> CommentPage:
    """The newest first; ``html`` may stand in a page as it is."""
    return context.people.opinions.comments(asker, namespace, name, before=before, limit=limit)


@router.post(f"{_ARTEFACT}/comments", status_code=201, summary="Write a comment", **allowed("write", 404))
def comment(namespace: Namespace, name: Name, body: CommentRequest, context: ContextOf, asker: Asker) -> CommentView:
    """Whoever sees an artefact may."""
    return context.people.opinions.comment(asker, namespace, name, body.text, body.version)


@router.delete("/comments/{comment}", status_code=204, summary="Delete a comment", **allowed("write", 404))
def remove_comment(
    comment: Annotated[int, Path(ge=1, lt=1 << 63, description="Number of the comment.")],
    context: ContextOf,
    asker: Asker,
) -> None:
    """Its author may, and owners of the artefact's namespace."""
    context.people.opinions.remove_comment(asker, comment)


@router.get("/collections", summary="Collections", **allowed("read"))
def collections(
    context: ContextOf,
    asker: Asker,
    namespace: Annotated[
        str | None, Query(max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$", description="Of one namespace.")
    ] = None,
) -> CollectionList:
    """The newest first, 500 at most."""
    return CollectionList(collections=tuple(context.people.collections.list(asker, namespace)))


@router.post("/collections", status_code=201, summary="Make a collection", **allowed("write", 404, 409))
def new_collection(body: NewCollectionRequest, context: ContextOf, asker: Asker) -> CollectionView:
    """In a namespace in which one may write; of any artefacts that one may see."""
    return context.people.collections.create(
        asker, body.namespace, body.name, title=body.title, description=body.description, items=body.items
    )


@router.get(_COLLECTION, summary="A collection", **allowed("read", 404))
def collection(namespace: Namespace, name: Name, context: ContextOf, asker: Asker) -> CollectionView:
    """Its artefacts in order; what the asker may not see is left out."""
    return context.people.collections.show(asker, namespace, name)


@router.put(_COLLECTION, summary="Change a collection", **allowed("write", 404))
def change_collection(
    namespace: Namespace, name: Name, body: CollectionRequest, context: ContextOf, asker: Asker
) -> CollectionView:
    """Title, description and items are replaced."""
    return context.people.collections.replace(
        asker, namespace, name, title=body.title, description=body.description, items=body.items
    )


@router.delete(_COLLECTION, status_code=204, summary="Delete a collection", **allowed("write", 404))
def remove_collection(namespace: Namespace, name: Name, context: ContextOf, asker: Asker) -> None:
    """Its artefacts stay."""
    context.people.collections.remove(asker, namespace, name)
