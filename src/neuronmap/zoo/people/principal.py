"""Who asks, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, or_, select, true

from neuronmap.errors import ForbiddenError, UnauthorizedError
from neuronmap.zoo.tables import artefacts, members, namespaces

__all__ = ["ANONYMOUS", "LOCAL", "Principal", "Role", "Scope", "visible"]

Scope = Literal["read", "write", "admin"]
Role = Literal["reader", "writer", "owner"]

_ENOUGH: dict[Scope, tuple[Role, ...]] = {
    "read": ("reader", "writer", "owner"),
    "write": ("writer", "owner"),
    "admin": ("owner",),
}
_WHO: dict[Scope, str] = {"read": "its members", "write": "its writers and owners", "admin": "its owners"}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes:
        user_id: row of the user; None for the embedded zoo's one user, and for nobody.
        name: of the user.
        scopes: what their token is good for.
        namespace_id: the only namespace that the token is good for; None for all of the user's.
        is_admin: whether they run the server; it counts only with the scope ``admin`` (see :attr:`governs`).
        is_local: the one user of an embedded zoo, who may do everything.
    """

    user_id: int | None
    name: str
    scopes: frozenset[Scope] = frozenset({"read"})
    namespace_id: int | None = None
    is_admin: bool = False
    is_local: bool = False

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody signed in."""
        return self.user_id is None and not self.is_local

    @property
    def governs(self) -> bool:
        """Whether they act as somebody who runs the server: a token without the scope ``admin``, or for one namespace, does not."""
        return self.is_local or (self.is_admin and "admin" in self.scopes and self.namespace_id is None)

    def roles(self, connection: Connection) -> dict[int, Role]:
        """Their role by namespace, as far as the token reaches."""
        if self.user_id is None:
            return {}
        asked = select(members.c.namespace_id, members.c.role).where(members.c.user_id == self.user_id)
        if self.namespace_id is not None:
            asked = asked.where(members.c.namespace_id == self.namespace_id)
        return {row.namespace_id: row.role for row in connection.execute(asked)}

    def may(self, connection: Connection, scope: Scope, namespace_id: int) -> bool:
        """Whether they may read (what is private), write or govern in a namespace."""
        if self.is_local:
            return True
        if scope not in self.scopes or (self.namespace_id is not None and namespace_id != self.namespace_id):
            return False
        return self.governs or self.roles(connection).get(namespace_id) in _ENOUGH[scope]

    def require(self, connection: Connection, scope: Scope, namespace: Any) -> None:
        """Refuse unless they may; ``namespace`` is a row of the table.

        Raises:
            UnauthorizedError: nobody signed in.
            ForbiddenError: they may not.
        """
        if self.is_anonymous:
            raise UnauthorizedError("This needs an account.", hint="neuronmap zoo login, or sign in on the page.")
        if self.may(connection, scope, namespace.id):
            return
        if scope not in self.scopes:
            raise ForbiddenError(
                f"The token of {self.name} has the scopes {', '.join(sorted(self.scopes))}; this needs {scope!r}.",
                hint="Make a token with that scope.",
            )
        if self.namespace_id is not None and self.namespace_id != namespace.id:
            raise ForbiddenError(
                f"The token of {self.name} is for one namespace alone, which is not {namespace.name}.",
                hint="Use a token for all of your namespaces, or for this one.",
            )
        raise ForbiddenError(
            f"{self.name} may not {'change' if scope == 'write' else 'govern' if scope == 'admin' else 'read'} "
            f"what belongs to {namespace.name}.",
            hint="Being an administrator counts only with a token that has the scope admin and is for no single namespace."
            if self.is_admin
            else f"Ask an owner of {namespace.name}: this is for {_WHO[scope]}.",
        )

    def require_admin(self) -> None:
        """Refuse all but those who run the server.

        Raises:
            UnauthorizedError, ForbiddenError.
        """
        if self.governs:
            return
        if self.is_anonymous:
            raise UnauthorizedError("This needs an administrator's account.")
        raise ForbiddenError("Only an administrator of this zoo may do that.")


LOCAL = Principal(None, "local", frozenset({"read", "write", "admin"}), is_admin=True, is_local=True)
"""Of an embedded zoo: whoever can write its folder."""
ANONYMOUS = Principal(None, "anonymous")
"""Nobody in particular."""


def visible(principal: Principal, connection: Connection) -> Any:
    """A condition on ``artefacts`` joined with ``namespaces``: what the asker may know of."""
    if principal.governs:
        return true()
    own = [number for number in principal.roles(connection) if "read" in principal.scopes]
    return or_(artefacts.c.private.is_(False), namespaces.c.id.in_(own)) if own else artefacts.c.private.is_(False)
