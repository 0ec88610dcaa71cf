"""Signing in through an identity provider (OpenID Connect)."""

from __future__ import annotations

import base64
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from neuronmap.errors import ForbiddenError, InputError, NotInZooError
from neuronmap.web.addresses import base_path, is_own_path
from neuronmap.web.zoo import PREFIX
from neuronmap.web.zoo.access import ContextOf, ZooRoute, allowed
from neuronmap.web.zoo.context import ZooContext
from neuronmap.web.zoo.sessions import is_https, keep_session
from neuronmap.zoo.people.oidc import Provider

__all__ = ["router"]

router = APIRouter(prefix=PREFIX, tags=["zoo people"], route_class=ZooRoute)

_COOKIE = "neuronmap_zoo_oidc"
_SECONDS = 600
_MOST = 2000


def _provider(context: ZooContext) -> Provider:
    if context.provider is None:
        raise NotInZooError("This zoo has no identity provider.", hint="Sign in with name and password.")
    return context.provider


def _place(request: Request) -> str:
    return f"{base_path(request)}{PREFIX}/oidc"


def _redirect_uri(context: ZooContext) -> str:
    return f"{(context.address or '').rstrip('/')}{PREFIX}/oidc/callback"


@router.get(
    "/oidc/start", status_code=303, summary="Sign in elsewhere", response_class=RedirectResponse,
    **allowed("open", 404, rate="sign-in"),
)  # fmt: skip
def start(
    request: Request,
    context: ContextOf,
    next_: Annotated[
        str, Query(alias="next", max_length=501, description="Path of this zoo to which to come back.")
    ] = "/",
) -> Response:
    """Leads to the identity provider. What belongs to this attempt is kept in a cookie of ten minutes."""
    if not is_own_path(next_):
        raise InputError("next must be a path of this zoo.")
    begun = _provider(context).begin(_redirect_uri(context))
    answer = RedirectResponse(begun.url, 303, headers={"Cache-Control": "no-store"})
    kept = f"{begun.secret}.{base64.urlsafe_b64encode(next_.encode()).decode().rstrip('=')}"
    answer.set_cookie(
        _COOKIE,
        kept,
        max_age=_SECONDS,
        path=_place(request),
        httponly=True,
        samesite="lax",
        secure=is_https(request, context),
    )
    return answer


@router.get(
    "/oidc/callback", status_code=303, summary="Come back from there", response_class=RedirectResponse,
    **allowed("open", 401, 403, 404, rate="sign-in"),
)  # fmt: skip
def callback(
    request: Request,
    context: ContextOf,
    code: Annotated[str, Query(max_length=_MOST, description="Of the provider.")] = "",
    state: Annotated[str, Query(max_length=200, description="As it was sent there.")] = "",
    iss: Annotated[str | None, Query(max_length=300, description="The provider, by RFC 9207.")] = None,
    error: Annotated[str, Query(max_length=200, description="Why there is no code.")] = "",
) -> Response:
    """The provider leads the browser here. Opens a session for whom it has vouched, and leads on."""
    provider = _provider(context)
    secret, _, after = request.cookies.get(_COOKIE, "").partition(".")
    if error:
        raise ForbiddenError(f"The identity provider did not let you in ({error!r}).", hint="Try again.")
    identity = provider.finish(secret, _redirect_uri(context), code=code, state=state, issuer=iss)
    session = context.people.sign_in_as(
        identity.subject,
        name=identity.name,
        email=identity.email,
        may_create=context.provider_makes_accounts,
        title=request.headers.get("user-agent", "")[:200],
    )
    answer = RedirectResponse(_after(request, after), 303)
    keep_session(request, answer, context, session)
    answer.delete_cookie(
        _COOKIE, path=_place(request), httponly=True, samesite="lax", secure=is_https(request, context)
    )
    return answer


def _after(request: Request, kept: str) -> str:
    """Where to lead on: what was asked for at the start, checked again; the cookie may be anybody's."""
    try:
        path = base64.urlsafe_b64decode(kept + "=" * (-len(kept) % 4)).decode()
    except ValueError:
        path = "/"
    return base_path(request) + (path if is_own_path(path) else "/")
