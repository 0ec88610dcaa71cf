"""Namespaces: a person's or an organisation's, and who writes in them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from neuronmap.database import now
from neuronmap.errors import NotInZooError
from neuronmap.zoo.names import check_namespace
from neuronmap.zoo.people.principal import Principal
from neuronmap.zoo.tables import audit, namespaces

__all__ = ["namespace_for_writing", "namespace_row", "write_down"]


def namespace_row(connection: Connection, name: str) -> Any:
    """Row of a namespace that was not deleted.

    Raises:
        NotInZooError: there is none.
    """
    found = connection.execute(
        select(namespaces).where(namespaces.c.name == name, namespaces.c.deleted_at.is_(None))
    ).first()
    if found is None:
        raise NotInZooError(f"There is no namespace {name!r} in this zoo.")
    return found


def namespace_for_writing(connection: Connection, principal: Principal, name: str) -> Any:
    """Row of a namespace in which the asker may write. In an embedded zoo it is made when first used.

    Raises:
        InputError: no name for a namespace.
        NotInZooError, UnauthorizedError, ForbiddenError.
    """
    check_namespace(name)
    if principal.is_local:
        found = connection.execute(select(namespaces).where(namespaces.c.name == name)).first()
        if found is None:
            dialect = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
            made = dialect(namespaces).values(name=name, kind="person", created_at=now())
            connection.execute(made.on_conflict_do_nothing())  # another process may be first
    found = namespace_row(connection, name)
    principal.require(connection, "write", found)
    return found


def write_down(connection: Connection, principal: Principal, action: str, target: str, **details: Any) -> None:
    """A line of the audit log, in the transaction of what it is about."""
    connection.execute(
        insert(audit).values(
            at=now(), user_id=principal.user_id, action=action, target=target[:300], details=details or None
        )
    )
