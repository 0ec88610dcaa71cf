"""Accounts. An administrator makes them; the first one is made on the server's machine, or with the setup token that it printed."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from neuronmap.database import Database, now
from neuronmap.errors import AlreadyExistsError, ForbiddenError, InputError, NotInZooError, UnauthorizedError
from neuronmap.zoo.names import check_namespace
from neuronmap.zoo.people.passwords import check_password, hash_password, is_password
from neuronmap.zoo.people.principal import LOCAL, Principal
from neuronmap.zoo.people.views import UserView
from neuronmap.zoo.registry.namespaces import write_down
from neuronmap.zoo.registry.rows import time_text
from neuronmap.zoo.tables import leases, members, namespaces, tokens, users

__all__ = ["NAMES_LOCK", "Accounts", "is_taken"]

NAMES_LOCK = 1 << 45
"""Number of the database's lock on giving names; namespaces and blobs have theirs below it."""
_SETUP = "setup"
_SETUP_SECONDS = 24 * 3600.0
_EMAIL = re.compile(r"[^@\s\x00]{1,64}@[^@\s\x00]{1,255}")
_MOST_LISTED = 1000


class Accounts:
    """Part of :class:`People`.

    Args:
        database: of the zoo.
        default_quota: bytes that a new person's namespace may hold; None for no limit.
    """

    def __init__(self, database: Database, default_quota: int | None = None) -> None:
        self.database, self.default_quota = database, default_quota

    def create(
        self,
        principal: Principal,
        name: str,
        *,
        password: str | None = None,
        email: str | None = None,
        is_admin: bool = False,
        subject: str | None = None,
    ) -> UserView:
        """Make an account and its namespace.

        Args:
            principal: an administrator.
            name: of the user and of their namespace.
            password: None for somebody who signs in through an identity provider.
            email: to reach them.
            is_admin: whether they run the server.
            subject: who they are at the identity provider (``<issuer> <subject>``).

        Raises:
            InputError: a name or password that is not allowed.
            AlreadyExistsError: the name is taken.
            UnauthorizedError, ForbiddenError: no administrator.
        """
        principal.require_admin()
        check_namespace(name)
        hashed = hash_password(check_password(name, password)) if password is not None else None
        with self.database.write() as connection:
            self.insert(connection, principal, name, hashed, email, is_admin, subject)
            return _view(_row(connection, name))

    def insert(
        self,
        connection: Connection,
        principal: Principal,
        name: str,
        password_hash: str | None,
        email: str | None,
        is_admin: bool,
        subject: str | None,
    ) -> int:
        """The rows of an account, within a transaction; the name was checked. Returns the user's number."""
        self.database.lock(connection, NAMES_LOCK)
        if is_taken(connection, name):
            raise AlreadyExistsError(f"The name {name!r} is taken.", hint="Choose another one.")
        if subject is not None and connection.scalar(select(users.c.id).where(users.c.subject == subject)):
            raise AlreadyExistsError("Somebody has an account with this identity already.")
        user = connection.execute(
            insert(users)
            .values(
                name=name,
                email=_checked_email(email),
                password_hash=password_hash,
                subject=subject,
                is_admin=is_admin,
                disabled=False,
                created_at=now(),
            )
            .returning(users.c.id)
        ).scalar_one()
        namespace = connection.execute(
            insert(namespaces)
            .values(name=name, kind="person", title="", quota_bytes=self.default_quota, created_at=now())
            .returning(namespaces.c.id)
        ).scalar_one()
        connection.execute(insert(members).values(namespace_id=namespace, user_id=user, role="owner"))
        write_down(connection, principal, "user", name, is_admin=is_admin)
        return int(user)

    def list(self, principal: Principal) -> list[UserView]:
        """All accounts by name, a thousand at most. For administrators."""
        principal.require_admin()
        with self.database.read() as connection:
            rows = connection.execute(select(users).order_by(users.c.name).limit(_MOST_LISTED)).all()
        return [_view(row) for row in rows]

    def change(
        self,
        principal: Principal,
        name: str,
        *,
        email: str | None = None,
        is_admin: bool | None = None,
        disabled: bool | None = None,
        subject: str | None = None,
    ) -> UserView:
        """Change an account; what is None stays. For administrators; nobody can lock themselves out.

        Raises:
            NotInZooError: there is none.
            ForbiddenError: their own disabling, or giving up their own administration.
        """
        principal.require_admin()
        values: dict[str, Any] = {}
        if email is not None:
            values["email"] = _checked_email(email)
        if is_admin is not None:
            values["is_admin"] = is_admin
        if disabled is not None:
            values["disabled"] = disabled
        if subject is not None:
            values["subject"] = subject or None
        if not principal.is_local and name == principal.name and (disabled or is_admin is False):
            raise ForbiddenError(
                "You cannot disable yourself or give up your administration.", hint="Another administrator can."
            )
        with self.database.write() as connection:
            self.database.lock(connection, NAMES_LOCK)
            found = _row(connection, name)
            other = select(users.c.id).where(users.c.subject == values.get("subject"), users.c.id != found.id)
            if values.get("subject") and connection.scalar(other):
                raise AlreadyExistsError("Somebody has an account with this identity already.")
            if values:
                connection.execute(update(users).where(users.c.id == found.id).values(**values))
                shown = {key: value for key, value in values.items() if key != "subject"}
                write_down(connection, principal, "user", name, **shown)
            if disabled:
                _end_sessions(connection, found.id)
            return _view(_row(connection, name))

    def set_password(self, principal: Principal, name: str, password: str, *, old: str | None = None) -> None:
        """Give a new password; every session of theirs ends. Administrators for all, others with their old one for themselves.

        Raises:
            InputError: it is not allowed.
            UnauthorizedError: the old one is wrong.
        """
        check_password(name, password)
        own = not principal.is_local and principal.name == name and not principal.is_anonymous
        if not own:
            principal.require_admin()
        with self.database.read() as connection:
            found = _row(connection, name)
        if own and found.password_hash is not None and not is_password(old or "", found.password_hash)[0]:
            raise UnauthorizedError("The old password is wrong.")
        hashed = hash_password(password)
        with self.database.write() as connection:
            connection.execute(update(users).where(users.c.id == found.id).values(password_hash=hashed))
            _end_sessions(connection, found.id)
            write_down(connection, principal, "password", name)

    # --- the first one -------------------------------------------------------------------------------------------------

    def has_any(self) -> bool:
        """Whether there is an account."""
        with self.database.read() as connection:
            return bool(connection.scalar(select(func.count()).select_from(users)))

    def has_setup_token(self) -> bool:
        """Whether a setup token is good now: another server of this database, or an earlier start, has printed it."""
        with self.database.read() as connection:
            return bool(
                connection.scalar(select(leases.c.holder).where(leases.c.name == _SETUP, leases.c.until > now()))
            )

    def new_setup_token(self) -> str | None:
        """What the first administrator proves by that they can read the server's output; good once, for a day.

        Returns:
            The token; None once there is an account. A new one takes the old one's place.
        """
        token = f"nmsetup_{secrets.token_urlsafe(32)}"
        with self.database.write() as connection:
            self.database.lock(connection, NAMES_LOCK)
            connection.execute(delete(leases).where(leases.c.name == _SETUP))
            if connection.scalar(select(func.count()).select_from(users)):
                return None
            connection.execute(insert(leases).values(name=_SETUP, holder=_digest(token), until=now() + _SETUP_SECONDS))
        return token

    def set_up(self, token: str, name: str, password: str) -> UserView:
        """Make the first administrator.

        Raises:
            ForbiddenError: the token is wrong or too old, or there is an account already: the answer is the same.
        """
        check_namespace(name)
        hashed = hash_password(check_password(name, password))
        with self.database.write() as connection:
            self.database.lock(connection, NAMES_LOCK)
            held = connection.scalar(select(leases.c.holder).where(leases.c.name == _SETUP, leases.c.until > now()))
            someone = connection.scalar(select(func.count()).select_from(users))
            if held is None or someone or not hmac.compare_digest(str(held), _digest(token)):
                raise ForbiddenError(
                    "This is not the setup token, or it is used up.",
                    hint="A server prints one at its start while there is no account; of several, the last one is good.",
                )
            connection.execute(delete(leases).where(leases.c.name == _SETUP))
            self.insert(connection, LOCAL, name, hashed, None, True, None)
            return _view(_row(connection, name))


def is_taken(connection: Connection, name: str) -> bool:
    """Whether a namespace has, or had, this name."""
    return connection.scalar(select(namespaces.c.id).where(namespaces.c.name == name)) is not None


def _row(connection: Connection, name: str) -> Any:
    found = connection.execute(select(users).where(users.c.name == name)).first()
    if found is None:
        raise NotInZooError(f"There is no user {name!r} in this zoo.")
    return found


def _view(row: Any) -> UserView:
    return UserView(
        name=row.name,
        email=row.email,
        is_admin=bool(row.is_admin),
        disabled=bool(row.disabled),
        elsewhere=row.subject is not None,
        created=time_text(row.created_at),
    )


def _end_sessions(connection: Connection, user_id: int) -> None:
    connection.execute(
        update(tokens)
        .where(tokens.c.user_id == user_id, tokens.c.kind == "session", tokens.c.revoked_at.is_(None))
        .values(revoked_at=now())
    )


def _checked_email(email: str | None) -> str | None:
    if not email:
        return None
    if len(email) > 320 or not _EMAIL.fullmatch(email):
        raise InputError(f"{email[:80]!r} is no e-mail address.")
    return email


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
