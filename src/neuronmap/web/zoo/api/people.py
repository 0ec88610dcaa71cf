"""Signing in, tokens, namespaces and who belongs to them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from neuronmap.web.zoo import PREFIX
from neuronmap.web.zoo.access import Asker, ContextOf, ZooRoute, allowed
from neuronmap.web.zoo.api.names import Namespace, UserName
from neuronmap.web.zoo.context import COOKIE, ZooContext
from neuronmap.web.zoo.sessions import forget_session, keep_session
from neuronmap.zoo.document import Document
from neuronmap.zoo.people.auditing import MOST_LINES
from neuronmap.zoo.people.passwords import MOST
from neuronmap.zoo.people.principal import Role, Scope
from neuronmap.zoo.people.tokens import MOST_SECONDS, require_person
from neuronmap.zoo.people.views import AuditPage, MeView, NamespaceView, NewToken, TokenList, UserView

__all__ = [
    "MemberRequest",
    "NamespaceRequest",
    "PasswordRequest",
    "SetupRequest",
    "SignInRequest",
    "TokenRequest",
    "router",
]

router = APIRouter(prefix=PREFIX, tags=["zoo people"], route_class=ZooRoute)

_Name = Annotated[str, Field(max_length=64, pattern=r"^[^\x00]*$", examples=["ada"])]
_Password = Annotated[str, Field(max_length=MOST, examples=["four words that nobody guesses"])]
_Title = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]


class SignInRequest(Document):
    """Who wants to come in."""

    name: _Name
    """Of the account."""
    password: _Password
    """Theirs."""


class SetupRequest(Document):
    """The first administrator of a new zoo."""

    token: Annotated[str, Field(max_length=200)]
    """What the server printed at its start."""
    name: _Name
    """Of the account."""
    password: _Password
    """12 characters at least."""


class PasswordRequest(Document):
    """A new password."""

    old: _Password = ""
    """The one until now; an account without one (of an identity provider) has none."""
    new: _Password
    """12 characters at least."""


class TokenRequest(Document):
    """A new token."""

    title: _Title
    """What it is for."""
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=3)] = ("read",)
    """read, write (publish, change), admin (govern namespaces, make tokens)."""
    namespace: Annotated[str | None, Field(max_length=64)] = None
    """The only one that it is good for."""
    seconds: Annotated[float | None, Field(ge=60, le=MOST_SECONDS)] = 90 * 86_400.0
    """For how long; null for ever."""


class NamespaceRequest(Document):
    """A new organisation."""

    name: _Name
    """Lower case; never given again."""
    title: _Title = ""
    """For people."""


class MemberRequest(Document):
    """Somebody's role."""

    role: Role
    """reader: sees what is private; writer: publishes; owner: governs."""


# --- signing in ---------------------------------------------------------------------------------------------------------


@router.post("/sign-in", summary="Sign in", **allowed("open", 401, 403, rate="sign-in"))
def sign_in(body: SignInRequest, request: Request, response: Response, context: ContextOf) -> MeView:
    """Opens a session and sets its cookie, which scripts of a page cannot read. Programs use tokens instead."""
    _require_accounts(context)
    secret = context.people.sign_in(
        body.name, body.password, address=context.client_of(request), title=request.headers.get("user-agent", "")[:200]
    )
    keep_session(request, response, context, secret)
    return context.people.me(context.people.authenticate(secret, session=True))


@router.post("/sign-out", status_code=204, summary="Sign out", **allowed("open", 403))
def sign_out(request: Request, response: Response, context: ContextOf) -> None:
    """Ends the session, here and in the browser. Nothing happens without one."""
    session = request.cookies.get(COOKIE)
    if session is not None and not context.embedded:
        context.people.sign_out(session)
    forget_session(request, response, context)


@router.post(
    "/setup", status_code=201, summary="Make the first administrator", **allowed("open", 403, 409, rate="sign-in")
)
def setup(body: SetupRequest, context: ContextOf) -> UserView:
    """With the token that the server printed. It is good once, while there is no account."""
    _require_accounts(context)
    return context.people.accounts.set_up(body.token, body.name, body.password)


@router.get("/me", summary="Who asks", **allowed("known"))
def me(context: ContextOf, asker: Asker) -> MeView:
    """Name, what the token is good for, and the namespaces."""
    return context.people.me(asker)


@router.put("/me/password", status_code=204, summary="Change one's password", **allowed("admin", rate="sign-in"))
def password(body: PasswordRequest, context: ContextOf, asker: Asker) -> None:
    """Every session ends; sign in again."""
    require_person(asker)
    context.people.accounts.set_password(asker, asker.name, body.new, old=body.old)


def _require_accounts(context: ZooContext) -> None:
    if context.embedded:
        from neuronmap.zoo.people.principal import LOCAL

        require_person(LOCAL)  # raises: there are none


# --- tokens -------------------------------------------------------------------------------------------------------------


@router.get("/tokens", summary="One's tokens and sessions", **allowed("admin"))
def tokens(context: ContextOf, asker: Asker) -> TokenList:
    """Those that are good, the newest first, without their secrets."""
    return TokenList(tokens=tuple(context.people.tokens.list(asker)))


@router.post("/tokens", status_code=201, summary="Make a token", response_model=NewToken, **allowed("admin", 404))
def new_token(body: TokenRequest, context: ContextOf, asker: Asker) -> Response:
    """Its secret is shown this once. A token can make weaker ones only."""
    made = context.people.tokens.issue(asker, body.title, body.scopes, namespace=body.namespace, seconds=body.seconds)
    return JSONResponse(made.to_dict(), 201, headers={"Cache-Control": "no-store"})


@router.delete("/tokens/{token}", status_code=204, summary="Revoke a token", **allowed("admin", 404))
def revoke(
    token: Annotated[int, Path(ge=1, lt=1 << 63, description="Number of the token.")], context: ContextOf, asker: Asker
) -> None:
    """It is not good any more from this moment on."""
    context.people.tokens.revoke(asker, token)


# --- namespaces ---------------------------------------------------------------------------------------------------------


@router.post("/namespaces", status_code=201, summary="Make an organisation", **allowed("admin", 409))
def new_namespace(body: NamespaceRequest, context: ContextOf, asker: Asker) -> NamespaceView:
    """A namespace of several people. Whoever makes it owns it."""
    return context.people.organisations.create(asker, body.name, body.title)


@router.get("/namespaces/{namespace}", summary="A namespace", **allowed("read", 404))
def namespace_(namespace: Namespace, context: ContextOf, asker: Asker) -> NamespaceView:
    """Its members and quota are shown to those who belong to it."""
    return context.people.organisations.show(asker, namespace)


@router.put("/namespaces/{namespace}/members/{user}", summary="Give somebody a role", **allowed("admin", 404))
def set_member(
    namespace: Namespace, user: UserName, body: MemberRequest, context: ContextOf, asker: Asker
) -> NamespaceView:
    """For owners. The last owner stays one."""
    return context.people.organisations.set_member(asker, namespace, user, body.role)


@router.delete(
    "/namespaces/{namespace}/members/{user}", status_code=204, summary="Put somebody out", **allowed("admin", 404)
)
def remove_member(namespace: Namespace, user: UserName, context: ContextOf, asker: Asker) -> None:
    """Owners anybody, others themselves; the last owner stays."""
    context.people.organisations.remove_member(asker, namespace, user)


@router.get("/audit", summary="Who did what", **allowed("admin", 404))
def audit(
    context: ContextOf,
    asker: Asker,
    namespace: Annotated[
        str | None, Query(max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$", description="What concerns it.")
    ] = None,
    action: Annotated[
        str | None, Query(max_length=60, pattern=r"^[a-z-]+$", description="publish, yank, token, ...")
    ] = None,
    before: Annotated[int | None, Query(ge=1, lt=1 << 63, description="Go on before this line.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LINES, description="Lines at most.")] = 50,
) -> AuditPage:
    """Owners see what concerns their namespaces, administrators everything."""
    return context.people.auditing.lines(asker, namespace=namespace, action=action, before=before, limit=limit)
