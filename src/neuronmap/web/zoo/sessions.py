"""The cookie of a signed-in browser: scripts cannot read it, other sites' forms do not send it, and behind https it travels only there."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from neuronmap.web.addresses import base_path
from neuronmap.web.zoo.context import COOKIE, ZooContext
from neuronmap.zoo.people.tokens import SESSION_SECONDS

__all__ = ["forget_session", "is_https", "keep_session"]


def is_https(request: Request, context: ZooContext) -> bool:
    """Whether people reach the zoo over https, directly or through a proxy."""
    return request.url.scheme == "https" or (context.address or "").startswith("https:")


def keep_session(request: Request, response: Response, context: ZooContext, secret: str) -> None:
    """Set the cookie."""
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(SESSION_SECONDS),
        path=_path(request),
        httponly=True,
        samesite="lax",
        secure=is_https(request, context),
    )
    response.headers["Cache-Control"] = "no-store"


def forget_session(request: Request, response: Response, context: ZooContext) -> None:
    """Take the cookie back."""
    response.delete_cookie(
        COOKIE, path=_path(request), httponly=True, samesite="lax", secure=is_https(request, context)
    )


def _path(request: Request) -> str:
    return base_path(request) + "/"
