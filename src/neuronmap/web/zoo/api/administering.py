"""What administrators of a server do: accounts, quotas, garbage collection, verification."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from neuronmap.errors import ForbiddenError
from neuronmap.web.zoo import PREFIX
from neuronmap.web.zoo.access import Asker, ContextOf, ZooRoute, allowed
from neuronmap.web.zoo.api.names import Namespace, UserName
from neuronmap.zoo.document import Document
from neuronmap.zoo.people.passwords import MOST
from neuronmap.zoo.people.tokens import require_person
from neuronmap.zoo.people.views import NamespaceView, UserView
from neuronmap.zoo.registry.housekeeping import GRACE, Collected, Verified
from neuronmap.zoo.registry.namespaces import write_down

__all__ = ["CollectRequest", "QuotaRequest", "UserChange", "UserList", "UserRequest", "VerifyRequest", "router"]

router = APIRouter(prefix=PREFIX, tags=["zoo administration"], route_class=ZooRoute)

_Password = Annotated[str | None, Field(max_length=MOST)]
_Email = Annotated[str | None, Field(max_length=320, examples=["ada@example.org"])]
_Subject = Annotated[str | None, Field(max_length=1000, pattern=r"^[^\x00]*$")]


class UserRequest(Document):
    """A new account."""

    name: Annotated[str, Field(max_length=64, examples=["ada"])]
    """Also of their namespace; never given again."""
    password: _Password = None
    """12 characters at least; null for somebody who signs in through an identity provider."""
    email: _Email = None
    """To reach them."""
    is_admin: bool = False
    """Whether they run the server."""
    subject: _Subject = None
    """Who they are there: issuer, a space, and their subject."""


class UserChange(Document):
    """What is to change of an account; null leaves it."""

    email: _Email = None
    """To reach them."""
    is_admin: bool | None = None
    """Whether they run the server."""
    disabled: bool | None = None
    """Whether they cannot sign in; their tokens are not good meanwhile."""
    password: _Password = None
    """A new one."""
    subject: _Subject = None
    """Who they are at the identity provider: issuer, a space, and their subject; empty for nobody."""


class UserList(Document):
    """Accounts."""

    users: tuple[UserView, ...]
    """By name."""


class QuotaRequest(Document):
    """How much a namespace may hold."""

    bytes: Annotated[int | None, Field(ge=0, lt=1 << 60)]
    """Null for no limit."""


class CollectRequest(Document):
    """A garbage collection."""

    dry_run: bool = True
    """Only say what would go."""
    grace: Annotated[float, Field(ge=GRACE, le=1e9)] = GRACE
    """Seconds for which unneeded blobs are kept; two weeks at least, since publications may be under way."""


class VerifyRequest(Document):
    """A verification."""

    limit: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Blobs to hash, those first whose last verification is the oldest."""


@router.get("/users", summary="All accounts", **allowed("server"))
def users(context: ContextOf, asker: Asker) -> UserList:
    """A thousand at most."""
    return UserList(users=tuple(context.people.accounts.list(asker)))


@router.post("/users", status_code=201, summary="Make an account", **allowed("server", 409))
def new_user(body: UserRequest, context: ContextOf, asker: Asker) -> UserView:
    """With a namespace of the same name."""
    require_person(asker)
    return context.people.accounts.create(
        asker, body.name, password=body.password, email=body.email, is_admin=body.is_admin, subject=body.subject
    )


@router.patch("/users/{user}", summary="Change an account", **allowed("server", 404, 409))
def change_user(user: UserName, body: UserChange, context: ContextOf, asker: Asker) -> UserView:
    """Disable, enable, make an administrator, give a new password."""
    require_person(asker)
    if body.password is not None:
        if user == asker.name:
            raise ForbiddenError("Your own password is changed with the old one.", hint=f"PUT {PREFIX}/me/password")
        context.people.accounts.set_password(asker, user, body.password)
    return context.people.accounts.change(
        asker, user, email=body.email, is_admin=body.is_admin, disabled=body.disabled, subject=body.subject
    )


@router.put("/namespaces/{namespace}/quota", summary="Set a quota", **allowed("server", 404))
def quota(namespace: Namespace, body: QuotaRequest, context: ContextOf, asker: Asker) -> NamespaceView:
    """How much a namespace may hold; what is there already stays."""
    return context.people.organisations.set_quota(asker, namespace, body.bytes)


@router.post("/gc", summary="Collect garbage", **allowed("server", 507))
def collect(body: CollectRequest, context: ContextOf, asker: Asker) -> Collected:
    """Remove what nothing needs and is old enough; a dry run unless it is said otherwise."""
    found = context.registry.housekeeping.collect(dry_run=body.dry_run, grace=body.grace)
    if not body.dry_run:
        with context.registry.database.write() as connection:
            write_down(connection, asker, "gc", "zoo", blobs=found.blobs, bytes=found.blob_bytes)
    return found


@router.post("/verify", summary="Verify blobs", **allowed("server", 507))
def verify(body: VerifyRequest, context: ContextOf, asker: Asker) -> Verified:
    """Hash some blobs again. `neuronmap zoo admin verify` on the server's machine does all."""
    del asker
    return context.registry.housekeeping.verify(limit=body.limit)
