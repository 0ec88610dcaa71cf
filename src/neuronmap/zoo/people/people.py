"""Everything about people, for one asker at a time; beside :class:`neuronmap.zoo.registry.registry.Registry`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from sqlalchemy import select, update

from neuronmap.database import Database
from neuronmap.errors import ForbiddenError, TooOftenError, UnauthorizedError
from neuronmap.zoo.names import check_namespace
from neuronmap.zoo.people.accounts import NAMES_LOCK, Accounts, is_taken
from neuronmap.zoo.people.auditing import Auditing
from neuronmap.zoo.people.collections import Collections
from neuronmap.zoo.people.opinions import Opinions
from neuronmap.zoo.people.organisations import Organisations
from neuronmap.zoo.people.passwords import is_password
from neuronmap.zoo.people.principal import LOCAL, Principal
from neuronmap.zoo.people.tokens import Tokens
from neuronmap.zoo.people.views import Membership, MeView
from neuronmap.zoo.registry.namespaces import write_down
from neuronmap.zoo.tables import members, namespaces, users

__all__ = ["People"]


class People:
    """The people of a zoo and what they add.

    Args:
        database: of the zoo.
        default_quota: bytes that a new namespace may hold; None for no limit.
        most_organisations: that one account may own.

    Attributes:
        accounts, tokens, organisations, opinions, collections, auditing: what can be done, by subject.
    """

    def __init__(self, database: Database, *, default_quota: int | None = None, most_organisations: int = 10) -> None:
        self.database = database
        self.accounts = Accounts(database, default_quota)
        self.tokens = Tokens(database)
        self.organisations = Organisations(database, default_quota, most_organisations)
        self.opinions = Opinions(database)
        self.collections = Collections(database)
        self.auditing = Auditing(database)

    def authenticate(self, token: str, *, session: bool = False) -> Principal:
        """Who holds a token, or whose browser this is; see :meth:`Tokens.authenticate`."""
        return self.tokens.authenticate(token, session=session)

    def me(self, principal: Principal) -> MeView:
        """Who asks, and what they may do."""
        with self.database.read() as connection:
            rows = connection.execute(
                select(namespaces.c.id, namespaces.c.name, namespaces.c.kind, members.c.role)
                .join(members, members.c.namespace_id == namespaces.c.id)
                .where(members.c.user_id == principal.user_id, namespaces.c.deleted_at.is_(None))
                .order_by(namespaces.c.name)
            ).all()
            only = connection.scalar(select(namespaces.c.name).where(namespaces.c.id == principal.namespace_id))
        return MeView(
            name=principal.name,
            is_admin=principal.is_admin,
            is_local=principal.is_local,
            scopes=tuple(sorted(principal.scopes)),
            only_namespace=only,
            namespaces=tuple(
                Membership(namespace=row.name, kind=row.kind, role=row.role)
                for row in rows
                if principal.namespace_id in (None, row.id)
            ),
        )

    # --- signing in ----------------------------------------------------------------------------------------------------

    def sign_in(self, name: str, password: str, *, address: str = "", title: str = "") -> str:
        """Open a session for whoever knows the password.

        Args:
            name: of the account.
            password: what was typed.
            address: of who asks; wrong passwords are counted by it.
            title: of the browser, to tell the session from others.

        Returns:
            The session's secret, for a cookie.

        Raises:
            UnauthorizedError: no such account, a wrong password, or disabled: the answer and its time are the same.
            TooOftenError: too many wrong passwords; the right one is not looked at any more.
        """
        self._require_patience(name, address)
        with self.database.read() as connection:
            found = connection.execute(select(users).where(users.c.name == name)).first()
        good, renewed = is_password(password, found.password_hash if found is not None else None)
        if found is None or not good or found.disabled:
            self._count_failure(name, address)
            raise UnauthorizedError(
                "The name or the password is wrong.", hint="An administrator can set a new password."
            )
        with self.database.write() as connection:
            if renewed is not None:
                connection.execute(update(users).where(users.c.id == found.id).values(password_hash=renewed))
            write_down(connection, Principal(found.id, found.name), "sign-in", found.name)
            return self.tokens.open_session(connection, found.id, title)

    def sign_in_as(
        self, subject: str, *, name: str, email: str | None = None, may_create: bool = True, title: str = ""
    ) -> str:
        """Open a session for somebody whom an identity provider knows. They are found by ``subject`` alone, never by name or e-mail.

        Args:
            subject: ``<issuer> <subject>``.
            name: what they would like to be called, for a new account.
            email: to reach them, for a new account.
            may_create: whether somebody new gets an account.
            title: of the browser.

        Returns:
            The session's secret, for a cookie.

        Raises:
            ForbiddenError: disabled, or new and none is made.
        """
        with self.database.write() as connection:
            self.database.lock(connection, NAMES_LOCK)  # two first sign-ins at once make one account
            found = connection.execute(select(users).where(users.c.subject == subject)).first()
            if found is None:
                if not may_create:
                    raise ForbiddenError(
                        "You have no account in this zoo.", hint="An administrator can make one for you."
                    )
                chosen = self._free_name(connection, name)
                self.accounts.insert(connection, LOCAL, chosen, None, email, False, subject)
                found = connection.execute(select(users).where(users.c.subject == subject)).one()
            if found.disabled:
                raise ForbiddenError("This account is disabled.")
            write_down(connection, Principal(found.id, found.name), "sign-in", found.name, elsewhere=True)
            return self.tokens.open_session(connection, found.id, title)

    def sign_out(self, session: str) -> None:
        """End a session."""
        self.tokens.end_session(session)

    def _free_name(self, connection: Any, wanted: str) -> str:
        """A free name like the one wanted: ``ada``, else ``ada-2``, ``ada-3``, ..."""
        plain = "".join(one if one.isascii() and one.isalnum() else "-" for one in wanted.split("@")[0].lower())
        base = "-".join(part for part in plain.split("-") if part)[:50] or "user"
        if len(base) < 2:
            base = f"user-{base}"
        for number in range(1, 10_000):
            name = base if number == 1 else f"{base}-{number}"
            try:
                check_namespace(name)
            except ValueError:  # reserved
                continue
            if not is_taken(connection, name):
                return name
        raise ForbiddenError("No free name was found for a new account.")

    # --- wrong passwords -----------------------------------------------------------------------------------------------

    def _limits(self, name: str, address: str) -> list[tuple[Any, tuple[str, ...]]]:
        """Limits and what they count: guesses of one address at one account, and of all addresses at it."""
        from limits import RateLimitItemPerHour, RateLimitItemPerMinute

        return [
            (RateLimitItemPerMinute(10, 5), ("one", name[:64], address)),
            (RateLimitItemPerHour(200), ("all", name[:64])),
        ]

    def _require_patience(self, name: str, address: str) -> None:
        if not all(self._failures.test(limit, *what) for limit, what in self._limits(name, address)):
            raise TooOftenError("Too many wrong passwords.", hint="Wait some minutes.")

    def _count_failure(self, name: str, address: str) -> None:
        for limit, what in self._limits(name, address):
            self._failures.hit(limit, *what)

    @cached_property
    def _failures(self) -> Any:
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        return MovingWindowRateLimiter(MemoryStorage())
