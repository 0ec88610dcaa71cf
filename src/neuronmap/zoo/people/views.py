"""What is answered about people and what they add."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from neuronmap.zoo.document import Document
from neuronmap.zoo.people.principal import Role, Scope
from neuronmap.zoo.views import Time

__all__ = [
    "AuditLine",
    "AuditPage",
    "CollectionItem",
    "CollectionList",
    "CollectionSummary",
    "CollectionView",
    "CommentPage",
    "CommentView",
    "MeView",
    "MemberView",
    "Membership",
    "NamespaceView",
    "NewToken",
    "StarView",
    "TokenList",
    "TokenView",
    "UserView",
]


class UserView(Document):
    """An account."""

    name: str
    """Also of their own namespace."""
    email: str | None = None
    """To reach them; shown to administrators and themselves."""
    is_admin: bool
    """Whether they run the server."""
    disabled: bool
    """Whether they cannot sign in."""
    elsewhere: bool
    """Whether they sign in through an identity provider."""
    created: Time
    """When."""


class Membership(Document):
    """A namespace that somebody belongs to."""

    namespace: str
    """Its name."""
    kind: Literal["person", "organisation"]
    """A person's own, or several people's."""
    role: Role
    """reader, writer or owner."""


class MeView(Document):
    """Who asks."""

    name: str
    """Of the account; ``local`` in an embedded zoo."""
    is_admin: bool
    """Whether they run the server."""
    is_local: bool
    """Whether it is an embedded zoo, which has no accounts."""
    scopes: tuple[Scope, ...]
    """What their token or session is good for."""
    only_namespace: str | None = None
    """The only namespace that the token is good for."""
    namespaces: tuple[Membership, ...]
    """To which they belong."""


class TokenView(Document):
    """A token, without its secret."""

    id: int
    """Number."""
    kind: Literal["token", "session"]
    """Made by hand, or a signed-in browser's."""
    title: str
    """What it is for."""
    shown: str
    """Its first characters."""
    scopes: tuple[Scope, ...]
    """read, write, admin."""
    namespace: str | None
    """The only one that it is good for; null for all of its owner's."""
    created: Time
    """When."""
    expires: Time | None
    """Until when it is good; null for ever."""
    used: Time | None
    """When it was last used, to the minute."""


class NewToken(TokenView):
    """A new token. Its secret is shown this once."""

    token: str
    """The secret."""


class TokenList(Document):
    """Tokens and sessions that are good."""

    tokens: tuple[TokenView, ...]
    """The newest first."""


class MemberView(Document):
    """Somebody in a namespace."""

    user: str
    """Name."""
    role: Role
    """reader: sees what is private; writer: publishes; owner: governs."""


class NamespaceView(Document):
    """A namespace."""

    name: str
    """Its name."""
    kind: Literal["person", "organisation"]
    """A person's own, or several people's."""
    title: str
    """For people."""
    created: Time
    """When."""
    artefacts: int
    """How many the asker may see."""
    role: Role | None = None
    """The asker's own."""
    members: tuple[MemberView, ...] | None = None
    """Shown to members."""
    used_bytes: int | None = None
    """Bytes of its versions' files; shown to members."""
    quota_bytes: int | None = None
    """Bytes that it may hold, null for no limit; shown to members."""


class AuditLine(Document):
    """Something that was done."""

    id: int
    """Number."""
    at: Time
    """When."""
    who: str | None
    """Name; null for the server's machine itself."""
    action: str
    """publish, yank, member, token, ..."""
    target: str
    """To what."""
    details: dict[str, Any]
    """More of it."""


class AuditPage(Document):
    """Lines of the audit log."""

    lines: tuple[AuditLine, ...]
    """The newest first."""
    next: int | None
    """Give it as ``before`` for the next page; null on the last."""


class StarView(Document):
    """Stars of an artefact."""

    stars: int
    """How many."""
    starred: bool
    """Whether one is the asker's."""


class CommentView(Document):
    """A comment."""

    id: int
    """Number."""
    author: str | None
    """Name; null in an embedded zoo."""
    version: str | None
    """Label of the version that it is about; null for the artefact."""
    text: str
    """As written, Markdown."""
    html: str
    """To be shown: no scripts, no images, no styles."""
    created: Time
    """When."""
    removable: bool
    """Whether the asker may delete it."""


class CommentPage(Document):
    """Comments on an artefact."""

    comments: tuple[CommentView, ...]
    """The newest first."""
    next: int | None
    """Give it as ``before`` for the next page; null on the last."""


class CollectionItem(Document):
    """An artefact in a collection."""

    artefact: Annotated[str, Field(max_length=200, pattern=r"^[a-z0-9._-]+/[a-z0-9._-]+$", examples=["ada/demo"])]
    """``namespace/name``."""
    note: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")] = ""
    """Why it is in it."""


class CollectionSummary(Document):
    """A collection in a list."""

    namespace: str
    """Whose."""
    name: str
    """Within the namespace."""
    title: str
    """One line."""
    items: int
    """How many artefacts the asker may see in it."""
    created: Time
    """When."""


class CollectionList(Document):
    """Collections."""

    collections: tuple[CollectionSummary, ...]
    """The newest first."""


class CollectionView(Document):
    """A collection."""

    namespace: str
    """Whose."""
    name: str
    """Within the namespace."""
    title: str
    """One line."""
    description: str
    """As written, Markdown."""
    html: str
    """To be shown."""
    created: Time
    """When."""
    items: tuple[CollectionItem, ...]
    """In order; what the asker may not see is left out."""
