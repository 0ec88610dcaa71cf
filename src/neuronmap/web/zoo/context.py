"""What the routes of a zoo work on: the registry, the people, and how it is known who asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from anyio import CapacityLimiter
from fastapi import Request

from neuronmap.errors import ForbiddenError, UnauthorizedError, WebError
from neuronmap.web.zoo import COOKIE
from neuronmap.zoo.people.principal import ANONYMOUS, LOCAL, Principal

if TYPE_CHECKING:
    from neuronmap.web.books import Books
    from neuronmap.web.measuring import Measures
    from neuronmap.web.zoo.looking import Looking
    from neuronmap.zoo.people.oidc import Provider
    from neuronmap.zoo.people.people import People
    from neuronmap.zoo.registry.registry import Registry

__all__ = ["COOKIE", "RATES", "READING_BYTES", "ZooContext"]

RATES: Mapping[str, int] = {"read": 6000, "search": 600, "write": 1200, "bytes": 6000, "sign-in": 30}
"""Requests in a minute, by kind: of one account, or of one address that is nobody's."""
READING_BYTES = 4 << 30
"""Of analyses that were fetched from an object store to be looked at; one of 65,536 features over two million tokens has about 200 MB."""
_UPLOADS = 32
_SAFE = ("GET", "HEAD", "OPTIONS")


class ZooContext:
    """One zoo, as it is served.

    Args:
        opening: makes the registry; called with the first request that needs it.
        embedded: the zoo of this machine, for whoever gets at it: everything is allowed, there are no accounts.
        anonymous_read: whether nobody in particular may read what is public.
        name: what it calls itself.
        address: under which people reach it; its scheme says whether cookies travel over https only.
        rates: requests in a minute by kind; none in an embedded zoo.
        default_quota: bytes that a new namespace may hold; None for no limit.
        most_organisations: that one account may own.
        proxies: addresses whose X-Forwarded-For is believed.
        reading: folder for files of analyses that are looked at; in the cache of this machine when left out.
        reading_bytes: of what is fetched there from an object store.
    """

    def __init__(
        self,
        opening: Callable[[], Registry],
        *,
        embedded: bool,
        anonymous_read: bool = False,
        name: str = "NeuronMap zoo",
        address: str | None = None,
        rates: Mapping[str, int] = RATES,
        default_quota: int | None = None,
        most_organisations: int = 10,
        proxies: tuple[str, ...] = (),
        reading: Path | None = None,
        reading_bytes: int = READING_BYTES,
    ) -> None:
        self._opening = opening
        self.embedded, self.anonymous_read, self.name, self.address = embedded, anonymous_read, name, address
        self.rates, self.default_quota, self.most_organisations = rates, default_quota, most_organisations
        self.proxies = frozenset(proxies)
        self._reading, self._reading_bytes = reading, reading_bytes
        self._lock = threading.Lock()
        self.provider: Provider | None = None
        """Identity provider through which people may sign in."""
        self.provider_makes_accounts = True
        """Whether somebody new whom it knows gets an account."""
        self.measures: Measures | None = None
        """Figures of the server."""

    @classmethod
    def of_this_machine(cls, root: Path | None = None) -> ZooContext:
        """The zoo in this machine's home, or in a folder."""

        def opened() -> Registry:
            from neuronmap.zoo.registry.registry import Registry

            return Registry.embedded(root)

        return cls(opened, embedded=True, anonymous_read=True)

    @cached_property
    def registry(self) -> Registry:
        """The registry."""
        return self._opening()

    @cached_property
    def people(self) -> People:
        """The people."""
        from neuronmap.zoo.people.people import People

        return People(
            self.registry.database, default_quota=self.default_quota, most_organisations=self.most_organisations
        )

    @cached_property
    def looking(self) -> Looking:
        """Analyses that are looked at in place."""
        from neuronmap.paths import cache_folder
        from neuronmap.web.zoo.looking import Looking
        from neuronmap.zoo.reading import ReadingFolder

        def reading() -> ReadingFolder:
            folder = self._reading or cache_folder("zoo-reading")
            return ReadingFolder(self.registry.store, folder, most_bytes=self._reading_bytes)

        with self._lock:
            made: Looking = self.__dict__.get("looking") or Looking(reading)
            self.__dict__["looking"] = made
        return made

    @cached_property
    def books(self) -> Books:
        """The book of labels of features that are looked at."""
        from neuronmap.web.books import Books

        return Books()

    @cached_property
    def uploads(self) -> CapacityLimiter:
        """Threads of their own for pieces that arrive, so that slow senders do not keep others from reading."""
        return CapacityLimiter(_UPLOADS)

    def close(self) -> None:
        """Let go of the database, and of analyses that are open."""
        if "looking" in self.__dict__:
            self.looking.close()
        if "books" in self.__dict__:
            self.books.close()
        if "registry" in self.__dict__:
            self.registry.close()

    # --- who asks ------------------------------------------------------------------------------------------------------

    def admit(self, request: Request, scope: str, rate: str) -> Principal:
        """Who asks, if they may use a route of this scope now.

        Raises:
            UnauthorizedError: they must say who they are.
            ForbiddenError: they may not, or a page of another site sends their cookie.
            WebError: too often.
        """
        if self.embedded:
            return LOCAL
        principal = self._who(request, open_route=scope == "open")
        self._count(request, principal, rate)
        if scope == "open" or (scope == "read" and principal.is_anonymous and self.anonymous_read):
            return principal
        if principal.is_anonymous:
            raise UnauthorizedError(
                "This zoo must know who asks.", hint="neuronmap zoo login, or the header Authorization: Bearer nmz_..."
            )
        needed = {"read": "read", "known": "read", "write": "write", "admin": "admin", "server": "admin"}[scope]
        if needed not in principal.scopes:
            raise ForbiddenError(
                f"The token of {principal.name} has the scopes {', '.join(sorted(principal.scopes))}; this needs {needed!r}.",
                hint="Make a token with that scope.",
            )
        if scope == "server":
            principal.require_admin()
        return principal

    def _who(self, request: Request, *, open_route: bool) -> Principal:
        given = request.headers.get("authorization", "")
        if given:
            kind, _, token = given.partition(" ")
            if kind.lower() != "bearer":
                raise UnauthorizedError("The header Authorization must be: Bearer nmz_...")
            return self.people.authenticate(token.strip())
        session = request.cookies.get(COOKIE)
        if session is None:
            if open_route and request.method not in _SAFE:
                self._require_own_page(request, always=False)
            return ANONYMOUS
        if request.method not in _SAFE:
            self._require_own_page(request, always=True)
        try:
            return self.people.authenticate(session, session=True)
        except UnauthorizedError:
            if open_route or self.anonymous_read:  # an old cookie does not keep anybody from signing in
                return ANONYMOUS
            raise

    def client_of(self, request: Request) -> str:
        """Address of who asks: of the connection, or what a proxy of ours says. What others write in the header counts for nothing."""
        found = request.client.host if request.client is not None else "unknown"
        said = [part.strip() for part in request.headers.get("x-forwarded-for", "").split(",") if part.strip()]
        while found in self.proxies and said:
            found = said.pop()
        return found[:64]

    def _require_own_page(self, request: Request, *, always: bool) -> None:
        """A cookie is sent by the browser whoever makes it ask: what changes something must come from a page of ours."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        ours = {request.headers.get("host", "").lower()} | (
            {urlsplit(self.address).netloc.lower()} if self.address else set()
        )
        own = site in (None, "same-origin", "none") and (origin is None or urlsplit(origin).netloc.lower() in ours)
        if not own or (always and site is None and origin is None):
            raise WebError(
                403,
                "cross_origin",
                "The request comes from another site, or does not say from where, so it may not change anything with your session.",
                hint="Use the zoo's own pages; scripts send a token in the header Authorization instead of the cookie.",
            )

    def _count(self, request: Request, principal: Principal, rate: str) -> None:
        from limits import RateLimitItemPerMinute

        who = (
            f"user {principal.user_id}" if not principal.is_anonymous and rate != "sign-in" else self.client_of(request)
        )
        if not self._rate.hit(RateLimitItemPerMinute(self.rates[rate]), rate, who):
            raise WebError(
                429,
                "too_many_requests",
                f"More than {self.rates[rate]} requests of the kind {rate!r} in a minute.",
                hint="Wait a moment.",
                headers={"Retry-After": "10"},
            )

    @cached_property
    def _rate(self) -> Any:
        from limits.storage import MemoryStorage
        from limits.strategies import SlidingWindowCounterRateLimiter

        return SlidingWindowCounterRateLimiter(MemoryStorage())
