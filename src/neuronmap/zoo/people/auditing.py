"""The audit log: administrators read all of it, owners what concerns their namespaces."""

from __future__ import annotations

from sqlalchemy import Connection, or_, select

from neuronmap.database import Database
from neuronmap.errors import ForbiddenError, UnauthorizedError
from neuronmap.zoo.people.principal import Principal
from neuronmap.zoo.people.views import AuditLine, AuditPage
from neuronmap.zoo.registry.namespaces import namespace_row
from neuronmap.zoo.registry.rows import time_text
from neuronmap.zoo.tables import audit, namespaces, users

__all__ = ["MOST_LINES", "Auditing"]

MOST_LINES = 200


class Auditing:
    """Part of :class:`People`.

    Args:
        database: of the zoo.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def lines(
        self,
        principal: Principal,
        *,
        namespace: str | None = None,
        action: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> AuditPage:
        """Lines of the log, the newest first.

        Args:
            principal: an administrator, or an owner.
            namespace: what concerns one namespace; None for all that the asker may read.
            action: one kind of action alone.
            before: number of a line: go on with those before it.
            limit: lines at most, 1 to 200.

        Raises:
            NotInZooError: there is no such namespace.
            UnauthorizedError, ForbiddenError.
        """
        asked = select(audit, users.c.name.label("who")).outerjoin(users, users.c.id == audit.c.user_id)
        with self.database.read() as connection:
            names = _readable(connection, principal, namespace)
            if names is not None:
                about = [
                    part
                    for name in names
                    for part in (audit.c.target == name, audit.c.target.startswith(f"{name}/", autoescape=True))
                ]
                asked = asked.where(or_(*about))
            if action is not None:
                asked = asked.where(audit.c.action == action)
            if before is not None:
                asked = asked.where(audit.c.id < before)
            rows = connection.execute(asked.order_by(audit.c.id.desc()).limit(min(limit, MOST_LINES) + 1)).all()
        shown = rows[: min(limit, MOST_LINES)]
        return AuditPage(
            lines=tuple(
                AuditLine(
                    id=row.id,
                    at=time_text(row.at),
                    who=row.who,
                    action=row.action,
                    target=row.target,
                    details=row.details or {},
                )
                for row in shown
            ),
            next=shown[-1].id if len(rows) > len(shown) else None,
        )


def _readable(connection: Connection, principal: Principal, namespace: str | None) -> list[str] | None:
    """Namespaces whose lines the asker may read, of those asked for; None for all lines.

    Raises:
        NotInZooError, UnauthorizedError, ForbiddenError.
    """
    if principal.is_anonymous:
        raise UnauthorizedError("The audit log needs an account.")
    if namespace is not None:
        principal.require(connection, "admin", namespace_row(connection, namespace))
        return [namespace]
    if principal.governs:
        return None
    may = "admin" in principal.scopes
    own = [number for number, role in principal.roles(connection).items() if role == "owner" and may]
    names = list(connection.scalars(select(namespaces.c.name).where(namespaces.c.id.in_(own))))
    if not names:
        raise ForbiddenError("Only owners and administrators may read the audit log.")
    return names
