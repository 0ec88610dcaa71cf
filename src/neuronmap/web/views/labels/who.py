"""Who says something through the browser.

On one's own machine there are no accounts: a name in a cookie, the name of the account of the operating system when there is none. Where
it is known who asks, from a zoo's account or from a proxy that signs people in, that name is taken and no other can be.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote

from starlette.requests import Request

from neuronmap.errors import ConfigError, ForbiddenError, UnauthorizedError
from neuronmap.interpretation.labels.acts import Author
from neuronmap.interpretation.labels.people import local_name, person
from neuronmap.web.settings import ServerSettings, is_loopback

__all__ = ["NAME_COOKIE", "Who", "name_cookie", "who_asks", "who_writes"]

NAME_COOKIE = "neuronmap_name"


class Who(NamedTuple):
    """Who asks.

    Attributes:
        name: theirs; empty where nothing can be said without saying it first.
        fixed: whether it is known, and cannot be chosen.
    """

    name: str
    fixed: bool


def who_asks(request: Request) -> Who:
    """Who looks at a page."""
    explorer = getattr(request.app.state, "explorer", None)
    if explorer is None:
        return Who(_account(request, "read"), True)
    settings: ServerSettings = explorer.settings
    if settings.user_header is not None:
        return Who(request.headers.get(settings.user_header, "").strip()[:200], True)
    given = _in_cookie(request)
    if given:
        return Who(given, False)
    alone = settings.token is None and is_loopback(settings.host)
    return Who(local_name() if alone else "", False)


def who_writes(request: Request, said: str | None = None) -> Author:
    """The author of something that is said.

    Args:
        request: the request.
        said: the name that it gives.

    Raises:
        UnauthorizedError: there is no name.
        ForbiddenError: another name than the one that is known.
        ConfigError: a name that cannot be one.
    """
    if getattr(request.app.state, "explorer", None) is None:
        who = Who(_account(request, "write"), True)
    else:
        who = who_asks(request)
    if said is not None and said.strip() and said.strip() != who.name:
        if who.fixed:
            raise ForbiddenError(
                f"You are {who.name or 'not signed in'} here, and can speak for nobody else.",
                hint="Leave the name out.",
            )
        return person(said)
    if not who.name:
        raise UnauthorizedError(
            "What is said of features has an author.", hint="Say your name on a feature's page, or sign in."
        )
    return person(who.name)


def name_cookie(name: str) -> str:
    """What the cookie holds.

    Raises:
        ConfigError: a name that cannot be one.
    """
    return quote(person(name).name)


def _in_cookie(request: Request) -> str:
    try:
        return person(unquote(request.cookies.get(NAME_COOKIE, "")[:1000])).name
    except ConfigError:
        return ""


def _account(request: Request, scope: str) -> str:
    """The name of a zoo's account; empty for nobody in particular."""
    from neuronmap.web.zoo.access import context_of

    principal = context_of(request.app).admit(request, scope, scope)
    return "" if principal.is_anonymous else str(principal.name)
