"""Signing in with the server's token, for browsers: a cookie holds a digest of it."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Form, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel

from neuronmap.web.addresses import base_path, is_own_path, lead_to
from neuronmap.web.guard import COOKIE, cookie_of
from neuronmap.web.rendering import render
from neuronmap.web.routing import ExplorerOf, PageRouter

__all__ = ["router"]

router = PageRouter()
_DAYS = 30


class SignInPage(BaseModel):
    """The form."""

    next: str
    wrong: bool = False
    needed: bool = True


@router.get("/sign-in", include_in_schema=False, response_class=HTMLResponse)
def sign_in(request: Request, explorer: ExplorerOf, next: Annotated[str, Query(max_length=2000)] = "/") -> HTMLResponse:
    """Ask for the token."""
    page = SignInPage(next=_local(next), needed=explorer.settings.token is not None)
    return render(request, "sign_in.html", {"page": page})


@router.post("/sign-in", include_in_schema=False)
def signed_in(
    request: Request,
    explorer: ExplorerOf,
    token: Annotated[str, Form(max_length=500)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Check the token."""
    known = explorer.settings.token
    if known is None or not hmac.compare_digest(token.encode(), known.encode()):
        page = SignInPage(next=_local(next), wrong=True, needed=known is not None)
        return render(request, "sign_in.html", {"page": page}, status=401)
    answer = lead_to(request, _local(next))
    answer.set_cookie(
        COOKIE,
        cookie_of(known),
        max_age=_DAYS * 86_400,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path=base_path(request) or "/",
    )
    return answer


@router.post("/sign-out", include_in_schema=False)
def sign_out(request: Request) -> Response:
    """Forget the token in this browser."""
    answer = lead_to(request, "/sign-in")
    answer.delete_cookie(COOKIE, path=base_path(request) or "/")
    return answer


def _local(address: str) -> str:
    """A path of this server; anything that leads elsewhere becomes the first page."""
    return address if is_own_path(address) else "/"
