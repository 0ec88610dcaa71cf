"""Tokens and sessions: 32 random bytes, shown once, kept as SHA-256. They have as much entropy as a key, so no slow hash is needed."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, or_, select, update

from neuronmap.database import Database, now
from neuronmap.errors import ForbiddenError, InputError, NotInZooError, UnauthorizedError
from neuronmap.zoo.people.principal import Principal, Scope
from neuronmap.zoo.people.views import NewToken, TokenView
from neuronmap.zoo.registry.namespaces import namespace_row, write_down
from neuronmap.zoo.registry.rows import time_text
from neuronmap.zoo.tables import members, namespaces, tokens, users

__all__ = ["MOST_SECONDS", "SESSION_SECONDS", "Tokens", "require_person"]

SESSION_SECONDS = 14 * 24 * 3600.0
"""How long a browser stays signed in."""
MOST_SECONDS = 10 * 365 * 24 * 3600.0
_SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
_TOKEN = re.compile(r"nm[zs]_[A-Za-z0-9_-]{43}")
_MOST_TOKENS = 200
"""Good ones of a user."""
_USED_EVERY_S = 60.0


class Tokens:
    """Part of :class:`People`.

    Args:
        database: of the zoo.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def authenticate(self, token: str, *, session: bool = False) -> Principal:
        """Who holds a token, or whose browser this is.

        Args:
            token: the secret.
            session: whether a browser's session is meant; one is never good for the other.

        Raises:
            UnauthorizedError: unknown, revoked or expired, or the account is disabled: the answer is the same.
        """
        found = None
        if _TOKEN.fullmatch(token):
            with self.database.read() as connection:
                found = connection.execute(
                    _good()
                    .add_columns(users.c.name.label("user"), users.c.is_admin, now().label("moment"))
                    .join(users, users.c.id == tokens.c.user_id)
                    .where(
                        tokens.c.secret_sha256 == _digest(token),
                        tokens.c.kind == ("session" if session else "token"),
                        users.c.disabled.is_(False),
                    )
                ).first()
        if found is None:
            what = "session has ended" if session else "token is not known here, was revoked, or has expired"
            raise UnauthorizedError(f"The {what}.", hint="neuronmap zoo login, or sign in on the page.")
        if found.used_at is None or found.used_at < found.moment - _USED_EVERY_S:
            self._mark_used(found.id)
        return Principal(
            found.user_id, found.user, frozenset(found.scopes), found.namespace_id, is_admin=bool(found.is_admin)
        )

    def issue(
        self,
        principal: Principal,
        title: str,
        scopes: Collection[Scope],
        *,
        namespace: str | None = None,
        seconds: float | None = None,
    ) -> NewToken:
        """Make a token of the asker's own.

        Args:
            principal: a person; with a token they can make only weaker ones.
            title: what it is for.
            scopes: what it is good for; whoever may write may read.
            namespace: the only one that it is good for.
            seconds: for how long; None for ever.

        Raises:
            InputError: no such scope, or a time out of range.
            ForbiddenError: more than the asker may do themselves.
        """
        user = require_person(principal)
        wanted = _checked_scopes(scopes)
        if len(title) > 200 or "\0" in title:
            raise InputError(f"A token's title has 200 characters at most, this one {len(title)}.")
        if seconds is not None and not 60 <= seconds <= MOST_SECONDS:
            raise InputError(f"A token is good for a minute to ten years, not for {seconds:g} seconds.")
        if not set(wanted) <= principal.scopes:
            raise ForbiddenError(
                f"You act with the scopes {', '.join(sorted(principal.scopes))}; a token with {', '.join(wanted)} would be able to do more."
            )
        with self.database.write() as connection:
            bound = principal.namespace_id
            if namespace is not None:
                row = namespace_row(connection, namespace)
                role = connection.scalar(
                    select(members.c.role).where(members.c.namespace_id == row.id, members.c.user_id == user)
                )
                if (role is None and not principal.governs) or (bound is not None and bound != row.id):
                    raise ForbiddenError(f"You do not belong to {namespace}.")
                bound = row.id
            if len(connection.execute(_good().where(tokens.c.user_id == user)).all()) >= _MOST_TOKENS:
                raise ForbiddenError(f"You have {_MOST_TOKENS} tokens.", hint="Revoke some.")
            secret, number = self._insert(connection, user, "token", title, wanted, bound, seconds)
            write_down(connection, principal, "token", principal.name, title=title, scopes=list(wanted))
            found = connection.execute(_shown().where(tokens.c.id == number)).one()
        return NewToken(**dict(_view(found)), token=secret)

    def open_session(self, connection: Connection, user_id: int, title: str) -> str:
        """A session of somebody who has just proved who they are, within a transaction. Their old ones are cleared away."""
        connection.execute(
            delete(tokens).where(
                tokens.c.user_id == user_id, tokens.c.kind == "session", tokens.c.expires_at < now() - SESSION_SECONDS
            )
        )
        secret, _ = self._insert(connection, user_id, "session", title, _SCOPES, None, SESSION_SECONDS)
        return secret

    def end_session(self, token: str) -> None:
        """Sign a browser out. Nothing happens if it is not signed in."""
        if not _TOKEN.fullmatch(token):
            return
        with self.database.write() as connection:
            connection.execute(
                update(tokens)
                .where(
                    tokens.c.secret_sha256 == _digest(token),
                    tokens.c.kind == "session",
                    tokens.c.revoked_at.is_(None),
                )
                .values(revoked_at=now())
            )

    def list(self, principal: Principal) -> list[TokenView]:
        """The asker's own that are good, sessions as well, the newest first."""
        user = require_person(principal)
        with self.database.read() as connection:
            asked = _shown().where(
                tokens.c.user_id == user,
                tokens.c.revoked_at.is_(None),
                or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now()),
            )
            return [_view(row) for row in connection.execute(asked.order_by(tokens.c.id.desc())).all()]

    def revoke(self, principal: Principal, number: int) -> None:
        """End one of the asker's own tokens or sessions.

        Raises:
            NotInZooError: they have no such one.
        """
        user = require_person(principal)
        with self.database.write() as connection:
            done = connection.execute(
                update(tokens)
                .where(tokens.c.id == number, tokens.c.user_id == user, tokens.c.revoked_at.is_(None))
                .values(revoked_at=now())
            )
            if done.rowcount != 1:
                raise NotInZooError(f"You have no token with the number {number}.")
            write_down(connection, principal, "revoke", principal.name, token=number)

    def _insert(
        self,
        connection: Connection,
        user_id: int,
        kind: str,
        title: str,
        scopes: Collection[Scope],
        namespace_id: int | None,
        seconds: float | None,
    ) -> tuple[str, int]:
        secret = f"{'nms_' if kind == 'session' else 'nmz_'}{secrets.token_urlsafe(32)}"
        number = connection.execute(
            insert(tokens)
            .values(
                user_id=user_id,
                kind=kind,
                title=title[:200],
                secret_sha256=_digest(secret),
                shown=secret[:8],
                scopes=list(scopes),
                namespace_id=namespace_id,
                created_at=now(),
                expires_at=None if seconds is None else now() + seconds,
            )
            .returning(tokens.c.id)
        ).scalar_one()
        return secret, int(number)

    def _mark_used(self, number: int) -> None:
        with self.database.write() as connection:
            connection.execute(
                update(tokens)
                .where(tokens.c.id == number, or_(tokens.c.used_at.is_(None), tokens.c.used_at < now() - _USED_EVERY_S))
                .values(used_at=now())
            )


def require_person(principal: Principal) -> int:
    """Number of the asker's account.

    Raises:
        UnauthorizedError: nobody signed in.
        ForbiddenError: an embedded zoo, which has no accounts.
    """
    if principal.is_local:
        raise ForbiddenError(
            "The zoo of this machine has no accounts: whoever can write its folder may do everything.",
            hint="neuronmap zoo serve is a zoo for several people.",
        )
    if principal.user_id is None:
        raise UnauthorizedError("This needs an account.", hint="neuronmap zoo login, or sign in on the page.")
    return principal.user_id


def _good() -> Select[Any]:
    return select(tokens).where(
        tokens.c.revoked_at.is_(None), or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now())
    )


def _shown() -> Select[Any]:
    return select(tokens, namespaces.c.name.label("namespace")).outerjoin(
        namespaces, namespaces.c.id == tokens.c.namespace_id
    )


def _view(row: Any) -> TokenView:
    return TokenView(
        id=row.id,
        kind=row.kind,
        title=row.title,
        shown=row.shown,
        scopes=tuple(row.scopes),
        namespace=row.namespace,
        created=time_text(row.created_at),
        expires=time_text(row.expires_at) if row.expires_at is not None else None,
        used=time_text(row.used_at) if row.used_at is not None else None,
    )


def _checked_scopes(scopes: Collection[Scope]) -> tuple[Scope, ...]:
    unknown = sorted(set(scopes) - set(_SCOPES))
    if unknown or not scopes:
        raise InputError(f"The scopes {', '.join(unknown) or '(none)'} cannot be given: {', '.join(_SCOPES)} can.")
    greatest = max(_SCOPES.index(scope) for scope in scopes)
    return tuple(scope for scope in _SCOPES if scope in scopes or (scope == "read" and greatest > 0))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
