"""Who may use which route. Every route of the zoo says which scope it needs, how often it may be asked, and what it answers.

    open      anybody: what the server is, signing in
    read      whoever may read; nobody in particular where the zoo lets strangers read what is public
    known     whoever signed in
    write     an account, with a token that may write
    admin     an account, with a token that may govern
    server    who runs the server

It is looked at before the request's body is: a stranger cannot make the server read anything.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from neuronmap.web.errors import responses
from neuronmap.web.zoo.context import ZooContext
from neuronmap.web.zoo.mount import Zoo
from neuronmap.zoo.people.principal import Principal

__all__ = ["Asker", "ContextOf", "NeededScope", "Rate", "Rule", "ZooRoute", "allowed", "context_of", "rule_of"]

NeededScope = Literal["open", "read", "known", "write", "admin", "server"]
Rate = Literal["read", "search", "write", "bytes", "sign-in"]


class Rule(NamedTuple):
    """What a route needs.

    Attributes:
        scope: who may use it.
        rate: which of the limits it counts for.
    """

    scope: NeededScope
    rate: Rate


def allowed(scope: NeededScope, *statuses: int, rate: Rate | None = None) -> dict[str, Any]:
    """Arguments of a route: its rule, and the errors that it answers with besides those that all have.

    Args:
        scope: who may use it.
        statuses: of errors.
        rate: which limit it counts for; ``write`` for what changes something, else ``read``, when left out.
    """
    always = () if scope == "open" else (401, 403)
    chosen = rate or ("read" if scope in ("open", "read", "known") else "write")
    return {
        "openapi_extra": {"x-zoo-scope": scope, "x-zoo-rate": chosen},
        "responses": responses(*sorted({*always, *statuses})),
    }


def rule_of(route: Any) -> Rule:
    """The rule of a route.

    Raises:
        LookupError: it declares none; no such route is served.
    """
    extra = getattr(route, "openapi_extra", None) or {}
    return Rule(extra["x-zoo-scope"], extra["x-zoo-rate"])


class ZooRoute(APIRoute):
    """A route whose rule is kept before anything else happens."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.rule = rule_of(self)

    async def handle(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["method"] in (self.methods or ()):
            request = Request(scope)
            request.state.principal = await run_in_threadpool(context_of(scope["app"]).admit, request, *self.rule)
        await super().handle(scope, receive, send)


def context_of(app: Any) -> ZooContext:
    """The zoo of an application: of the API itself, or of the server around it (for pages)."""
    found: ZooContext | Zoo = app.state.zoo
    return found.context if isinstance(found, Zoo) else found


def _context(request: Request) -> ZooContext:
    return context_of(request.app)


def _asker(request: Request) -> Principal:
    found: Principal = request.state.principal
    return found


ContextOf = Annotated[ZooContext, Depends(_context)]
"""The zoo, for a route's arguments."""
Asker = Annotated[Principal, Depends(_asker)]
"""Who asks, as far as the route's rule has let them in."""
