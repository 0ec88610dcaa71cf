"""Signing in with the server's token, for browsers: a cookie holds a digest of it."""

from __future__ import annotations

import hmac
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel

from neuronmap.web.explorer import ExplorerOf
from neuronmap.web.guard import COOKIE, cookie_of
from neuronmap.web.rendering import PageRouter, render

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
    base = request.scope.get("root_path", "").rstrip("/")
    answer = RedirectResponse(f"{base}{_local(next)}", status_code=303)
    answer.set_cookie(
        COOKIE,
        cookie_of(known),
        max_age=_DAYS * 86_400,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path=base or "/",
    )
    return answer


@router.post("/sign-out", include_in_schema=False)
def sign_out(request: Request) -> Response:
    """Forget the token in this browser."""
    base = request.scope.get("root_path", "").rstrip("/")
    answer = RedirectResponse(f"{base}/sign-in", status_code=303)
    answer.delete_cookie(COOKIE, path=base or "/")
    return answer


def _local(address: str) -> str:
    """A path of this server; anything that leads elsewhere becomes the first page."""
    parts = urlsplit(address)
    plain = not parts.scheme and not parts.netloc and address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if plain and all(character >= " " for character in address) else "/"
