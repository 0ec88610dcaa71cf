"""Namespaces of several people, and who belongs to which."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from neuronmap.database import Database, now
from neuronmap.errors import AlreadyExistsError, ForbiddenError, InputError, NotInZooError, UnauthorizedError
from neuronmap.zoo.names import check_namespace
from neuronmap.zoo.people.accounts import NAMES_LOCK, is_taken
from neuronmap.zoo.people.principal import Principal, Role, visible
from neuronmap.zoo.people.tokens import require_person
from neuronmap.zoo.people.views import MemberView, NamespaceView
from neuronmap.zoo.registry.namespaces import namespace_row, write_down
from neuronmap.zoo.registry.rows import time_text
from neuronmap.zoo.registry.uploading import used_bytes
from neuronmap.zoo.tables import artefacts, members, namespaces, users, versions

__all__ = ["Organisations", "require_reach"]


class Organisations:
    """Part of :class:`People`.

    Args:
        database: of the zoo.
        default_quota: bytes that a new organisation may hold; None for no limit.
        most_owned: organisations that one account may own; each has a quota of its own.
    """

    def __init__(self, database: Database, default_quota: int | None = None, most_owned: int = 10) -> None:
        self.database, self.default_quota, self.most_owned = database, default_quota, most_owned

    def create(self, principal: Principal, name: str, title: str = "") -> NamespaceView:
        """Make an organisation; its maker is its owner.

        Raises:
            InputError: a name that is not allowed.
            AlreadyExistsError: the name is, or was, taken.
            ForbiddenError: the token is for one namespace only.
        """
        check_namespace(name)
        if len(title) > 200 or "\0" in title:
            raise InputError(f"A title has 200 characters at most, this one {len(title)}.")
        user = None if principal.is_local else require_person(principal)
        if principal.namespace_id is not None:
            raise ForbiddenError("A token for one namespace cannot make others.")
        with self.database.write() as connection:
            self.database.lock(connection, NAMES_LOCK)
            if is_taken(connection, name):
                raise AlreadyExistsError(f"The name {name!r} is taken.", hint="Choose another one.")
            owned = connection.scalar(
                select(func.count())
                .select_from(members)
                .join(namespaces, namespaces.c.id == members.c.namespace_id)
                .where(members.c.user_id == user, members.c.role == "owner", namespaces.c.kind == "organisation")
            )
            if (owned or 0) >= self.most_owned and not principal.governs:
                raise ForbiddenError(f"You own {owned} organisations; more are made by administrators.")
            made = connection.execute(
                insert(namespaces)
                .values(name=name, kind="organisation", title=title, quota_bytes=self.default_quota, created_at=now())
                .returning(namespaces.c.id)
            ).scalar_one()
            if user is not None:
                connection.execute(insert(members).values(namespace_id=made, user_id=user, role="owner"))
            write_down(connection, principal, "namespace", name)
            return _view(connection, principal, namespace_row(connection, name))

    def show(self, principal: Principal, name: str) -> NamespaceView:
        """A namespace; its members and quota only for those who belong to it.

        Raises:
            NotInZooError: there is none.
        """
        with self.database.read() as connection:
            return _view(connection, principal, namespace_row(connection, name))

    def set_member(self, principal: Principal, name: str, user: str, role: Role) -> NamespaceView:
        """Let somebody in, or give them another role. For owners.

        Raises:
            NotInZooError: there is no such namespace or user.
            ForbiddenError: the last owner, or a person in their own namespace.
        """
        with self.database.write() as connection:
            owner = namespace_row(connection, name)
            self.database.lock(connection, owner.id)
            principal.require(connection, "admin", owner)
            person = _user(connection, user)
            if role != "owner":
                _require_not_last(connection, owner, person)
            where = (members.c.namespace_id == owner.id, members.c.user_id == person.id)
            changed = connection.execute(update(members).where(*where).values(role=role))
            if changed.rowcount == 0:
                connection.execute(insert(members).values(namespace_id=owner.id, user_id=person.id, role=role))
            write_down(connection, principal, "member", name, user=user, role=role)
            return _view(connection, principal, owner)

    def remove_member(self, principal: Principal, name: str, user: str) -> None:
        """Put somebody out: owners anybody, others themselves.

        Raises:
            NotInZooError: they do not belong to it.
            ForbiddenError: the last owner, or a person in their own namespace.
        """
        with self.database.write() as connection:
            owner = namespace_row(connection, name)
            self.database.lock(connection, owner.id)
            person = _user(connection, user)
            leaving = person.id == principal.user_id and principal.namespace_id in (None, owner.id)
            if not leaving:
                principal.require(connection, "admin", owner)
            _require_not_last(connection, owner, person)
            gone = connection.execute(
                delete(members).where(members.c.namespace_id == owner.id, members.c.user_id == person.id)
            )
            if gone.rowcount != 1:
                raise NotInZooError(f"{user} does not belong to {name}.")
            write_down(connection, principal, "member", name, user=user, role=None)

    def set_quota(self, principal: Principal, name: str, quota_bytes: int | None) -> NamespaceView:
        """How much a namespace may hold; None for no limit. For administrators."""
        principal.require_admin()
        if quota_bytes is not None and not 0 <= quota_bytes < 1 << 60:
            raise InputError(f"A quota is 0 bytes or more, not {quota_bytes}.")
        with self.database.write() as connection:
            found = namespace_row(connection, name)
            connection.execute(update(namespaces).where(namespaces.c.id == found.id).values(quota_bytes=quota_bytes))
            write_down(connection, principal, "quota", name, bytes=quota_bytes)
            return _view(connection, principal, namespace_row(connection, name))


def _user(connection: Connection, name: str) -> Any:
    found = connection.execute(select(users).where(users.c.name == name)).first()
    if found is None:
        raise NotInZooError(f"There is no user {name!r} in this zoo.")
    return found


def _require_not_last(connection: Connection, owner: Any, person: Any) -> None:
    """Refuse to take an owner away who is the last one."""
    if owner.kind == "person" and owner.name == person.name:
        raise ForbiddenError(f"{person.name} always owns their own namespace.")
    roles = {
        row.user_id: row.role
        for row in connection.execute(select(members).where(members.c.namespace_id == owner.id)).all()
    }
    if roles.get(person.id) == "owner" and list(roles.values()).count("owner") == 1:
        raise ForbiddenError(
            f"{person.name} is the last owner of {owner.name}.", hint="Make somebody else an owner first."
        )


def _view(connection: Connection, principal: Principal, row: Any) -> NamespaceView:
    role = principal.roles(connection).get(row.id)
    inside = "read" in principal.scopes and (role is not None or principal.governs)
    seen = connection.scalar(
        select(func.count(func.distinct(artefacts.c.id)))
        .select_from(artefacts)
        .join(namespaces, namespaces.c.id == artefacts.c.namespace_id)
        .join(versions, versions.c.artefact_id == artefacts.c.id)
        .where(artefacts.c.namespace_id == row.id, versions.c.state != "draft", visible(principal, connection))
    )
    listed = connection.execute(
        select(users.c.name, members.c.role)
        .join(members, members.c.user_id == users.c.id)
        .where(members.c.namespace_id == row.id)
        .order_by(users.c.name)
    ).all()
    return NamespaceView(
        name=row.name,
        kind=row.kind,
        title=row.title,
        created=time_text(row.created_at),
        artefacts=seen or 0,
        role=role,
        members=tuple(MemberView(user=one.name, role=one.role) for one in listed) if inside else None,
        used_bytes=used_bytes(connection, row.id) if inside else None,
        quota_bytes=row.quota_bytes if inside else None,
    )


def require_reach(principal: Principal, namespace_id: int) -> None:
    """Refuse a token that is for another namespace.

    Raises:
        UnauthorizedError, ForbiddenError.
    """
    if principal.is_anonymous:
        raise UnauthorizedError("This needs an account.", hint="neuronmap zoo login, or sign in on the page.")
    if "write" not in principal.scopes or principal.namespace_id not in (None, namespace_id):
        raise ForbiddenError(
            "Your token is for reading, or for another namespace.", hint="Make a token with the scope write."
        )
