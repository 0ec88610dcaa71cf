"""Pages of a zoo with accounts: sign in, and one's own account with its tokens."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Form, Path, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from neuronmap.errors import ForbiddenError, InputError, NeuronMapError, UnauthorizedError
from neuronmap.web.addresses import is_own_path, lead_to
from neuronmap.web.asking import problem_of
from neuronmap.web.errors import Problem
from neuronmap.web.rendering import render
from neuronmap.web.routing import PageRouter
from neuronmap.web.zoo.access import ContextOf
from neuronmap.web.zoo.context import COOKIE, ZooContext
from neuronmap.web.zoo.sessions import forget_session, keep_session
from neuronmap.zoo.people.principal import Principal, Scope
from neuronmap.zoo.people.views import MeView, TokenView

__all__ = ["router"]

router = PageRouter()

Short = Annotated[str, Form(max_length=300)]
_DAYS = {"7": 7, "30": 30, "90": 90, "365": 365}


class SignInPage(BaseModel):
    """The form."""

    next: str
    name: str = ""
    elsewhere: bool = Field(description="Whether people may sign in through an identity provider.")
    problem: Problem | None = None


class AccountPage(BaseModel):
    """One's own account."""

    me: MeView
    tokens: list[TokenView] = Field(description="Tokens and signed-in browsers, the newest first.")
    made: str = Field(default="", description="The secret of a token that was made just now; shown this once.")
    days: list[str] = Field(default=list(_DAYS), description="For how long a token may be good.")
    problem: Problem | None = None


def _local(address: str) -> str:
    """A path of this server; anything that leads elsewhere becomes the first page."""
    return address if is_own_path(address) else "/zoo"


@router.get("/", include_in_schema=False)
def first(request: Request) -> Response:
    """The zoo itself."""
    return lead_to(request, "/zoo")


@router.get("/sign-in", include_in_schema=False, response_class=HTMLResponse)
def sign_in(request: Request, context: ContextOf, next: Annotated[str, Query(max_length=600)] = "/zoo") -> HTMLResponse:
    """Ask for name and password."""
    page = SignInPage(next=_local(next), elsewhere=context.provider is not None)
    return render(request, "zoo/sign_in.html", {"page": page, "nav": "sign-in"})


@router.post("/sign-in", include_in_schema=False)
def signed_in(
    request: Request,
    context: ContextOf,
    name: Short = "",
    password: Annotated[str, Form(max_length=1024)] = "",
    next: Short = "/zoo",
) -> Response:
    """Open a session."""
    context.admit(request, "open", "sign-in")
    try:
        address = context.client_of(request)
        secret = context.people.sign_in(
            name.strip(), password, address=address, title=request.headers.get("user-agent", "")[:200]
        )
    except (UnauthorizedError, InputError, ForbiddenError) as error:
        page = SignInPage(
            next=_local(next), name=name, elsewhere=context.provider is not None, problem=problem_of(error)
        )
        return render(request, "zoo/sign_in.html", {"page": page, "nav": "sign-in"}, status=401)
    answer = lead_to(request, _local(next))
    keep_session(request, answer, context, secret)
    return answer


@router.post("/sign-out", include_in_schema=False)
def sign_out(request: Request, context: ContextOf) -> Response:
    """End the session."""
    context.admit(request, "open", "write")
    session = request.cookies.get(COOKIE)
    if session is not None:
        context.people.sign_out(session)
    answer = lead_to(request, "/sign-in")
    forget_session(request, answer, context)
    return answer


def _account(context: ZooContext, asker: Principal, **more: Any) -> AccountPage:
    return AccountPage(me=context.people.me(asker), tokens=context.people.tokens.list(asker), **more)


@router.get("/account", include_in_schema=False, response_class=HTMLResponse)
def account(request: Request, context: ContextOf) -> HTMLResponse:
    """Namespaces and tokens."""
    asker = context.admit(request, "known", "read")
    return render(request, "zoo/account.html", {"page": _account(context, asker), "nav": "account"})


@router.post("/account/tokens", include_in_schema=False)
def make_token(
    request: Request,
    context: ContextOf,
    title: Short = "",
    scope: Annotated[list[Scope], Form(max_length=3)] = [],  # noqa: B006 (FastAPI copies it)
    namespace: Short = "",
    days: Short = "90",
) -> Response:
    """Make a token, and show its secret once."""
    asker = context.admit(request, "admin", "write")
    try:
        if not scope or days not in _DAYS:
            raise InputError("A token needs one of the scopes read, write and admin, and a time.")
        made = context.people.tokens.issue(
            asker,
            title.strip() or "token",
            scope,
            namespace=namespace.strip() or None,
            seconds=_DAYS[days] * 86_400.0,
        )
    except NeuronMapError as error:
        page = _account(context, asker, problem=problem_of(error))
        return render(request, "zoo/account.html", {"page": page, "nav": "account"}, status=422)
    page = _account(context, asker, made=made.token)
    answer = render(request, "zoo/account.html", {"page": page, "nav": "account"})
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.post("/account/tokens/{number}/revoke", include_in_schema=False)
def revoke(request: Request, context: ContextOf, number: Annotated[int, Path(ge=1, lt=2**53)]) -> Response:
    """Make a token good for nothing."""
    context.people.tokens.revoke(context.admit(request, "admin", "write"), number)
    return lead_to(request, "/account")
