"""Collections: artefacts that somebody put together, in order, each with a note."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from neuronmap.database import Database, now
from neuronmap.errors import AlreadyExistsError, InputError, NotInZooError
from neuronmap.safe_html import safe_html
from neuronmap.zoo.names import check_name
from neuronmap.zoo.people.principal import Principal, visible
from neuronmap.zoo.people.views import CollectionItem, CollectionSummary, CollectionView
from neuronmap.zoo.registry.namespaces import namespace_for_writing, write_down
from neuronmap.zoo.registry.rows import artefact_row, time_text
from neuronmap.zoo.tables import artefacts, collection_items, collections, namespaces

__all__ = ["MOST_ITEMS", "Collections"]

MOST_ITEMS = 500
_MOST_DESCRIPTION = 20_000
_MOST_LISTED = 500


class Collections:
    """Part of :class:`People`.

    Args:
        database: of the zoo.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def list(self, principal: Principal, namespace: str | None = None) -> list[CollectionSummary]:
        """Collections, of one namespace or of all, the newest first, 500 at most."""
        with self.database.read() as connection:
            seen = (
                select(collection_items.c.collection_id, func.count().label("seen"))
                .join(artefacts, artefacts.c.id == collection_items.c.artefact_id)
                .join(namespaces, namespaces.c.id == artefacts.c.namespace_id)
                .where(visible(principal, connection))
                .group_by(collection_items.c.collection_id)
                .subquery()
            )
            asked = (
                select(collections, namespaces.c.name.label("namespace"), seen.c.seen)
                .join(namespaces, namespaces.c.id == collections.c.namespace_id)
                .outerjoin(seen, seen.c.collection_id == collections.c.id)
            )
            if namespace is not None:
                asked = asked.where(namespaces.c.name == namespace)
            rows = connection.execute(asked.order_by(collections.c.id.desc()).limit(_MOST_LISTED)).all()
        return [
            CollectionSummary(
                namespace=row.namespace,
                name=row.name,
                title=row.title,
                items=row.seen or 0,
                created=time_text(row.created_at),
            )
            for row in rows
        ]

    def show(self, principal: Principal, namespace: str, name: str) -> CollectionView:
        """A collection, without what the asker may not see.

        Raises:
            NotInZooError: there is none.
        """
        with self.database.read() as connection:
            return _view(connection, principal, _row(connection, namespace, name))

    def create(
        self,
        principal: Principal,
        namespace: str,
        name: str,
        *,
        title: str = "",
        description: str = "",
        items: Sequence[CollectionItem] = (),
    ) -> CollectionView:
        """Make a collection. Needs the scope ``write`` in the namespace.

        Raises:
            InputError: too much, or an artefact twice.
            AlreadyExistsError: there is one of that name.
            NotInZooError: no such namespace or artefact, or not for them.
        """
        check_name(name)
        with self.database.write() as connection:
            owner = namespace_for_writing(connection, principal, namespace)
            self.database.lock(connection, owner.id)
            where = (collections.c.namespace_id == owner.id, collections.c.name == name)
            if connection.scalar(select(collections.c.id).where(*where)) is not None:
                raise AlreadyExistsError(f"{namespace} has a collection {name!r} already.")
            number = connection.execute(
                insert(collections)
                .values(namespace_id=owner.id, name=name, created_at=now())
                .returning(collections.c.id)
            ).scalar_one()
            self._fill(connection, principal, number, title, description, items)
            write_down(connection, principal, "collection", f"{namespace}/{name}")
            return _view(connection, principal, _row(connection, namespace, name))

    def replace(
        self,
        principal: Principal,
        namespace: str,
        name: str,
        *,
        title: str,
        description: str,
        items: Sequence[CollectionItem],
    ) -> CollectionView:
        """Give a collection other words and items. Needs the scope ``write`` in the namespace."""
        with self.database.write() as connection:
            owner = namespace_for_writing(connection, principal, namespace)
            self.database.lock(connection, owner.id)
            found = _row(connection, namespace, name)
            self._fill(connection, principal, found.id, title, description, items)
            write_down(connection, principal, "collection", f"{namespace}/{name}")
            return _view(connection, principal, found)

    def remove(self, principal: Principal, namespace: str, name: str) -> None:
        """Delete a collection; its artefacts stay."""
        with self.database.write() as connection:
            namespace_for_writing(connection, principal, namespace)
            found = _row(connection, namespace, name)
            connection.execute(delete(collection_items).where(collection_items.c.collection_id == found.id))
            connection.execute(delete(collections).where(collections.c.id == found.id))
            write_down(connection, principal, "uncollection", f"{namespace}/{name}")

    def _fill(
        self,
        connection: Connection,
        principal: Principal,
        number: int,
        title: str,
        description: str,
        items: Sequence[CollectionItem],
    ) -> None:
        if len(title) > 200 or len(description) > _MOST_DESCRIPTION or "\0" in title + description:
            raise InputError(f"A title has 200 characters at most, a description {_MOST_DESCRIPTION:,}.")
        if len(items) > MOST_ITEMS or len({item.artefact for item in items}) != len(items):
            raise InputError(f"A collection holds {MOST_ITEMS} artefacts at most, each once.")
        rows = []
        for position, item in enumerate(items):
            namespace, _, name = item.artefact.partition("/")
            found = artefact_row(connection, principal, namespace, name)
            rows.append({"collection_id": number, "artefact_id": found.id, "position": position, "note": item.note})
        connection.execute(
            update(collections).where(collections.c.id == number).values(title=title, description=description)
        )
        connection.execute(delete(collection_items).where(collection_items.c.collection_id == number))
        if rows:
            connection.execute(insert(collection_items), rows)


def _row(connection: Connection, namespace: str, name: str) -> Any:
    found = connection.execute(
        select(collections, namespaces.c.name.label("namespace"))
        .join(namespaces, namespaces.c.id == collections.c.namespace_id)
        .where(namespaces.c.name == namespace, collections.c.name == name)
    ).first()
    if found is None:
        raise NotInZooError(f"There is no collection {namespace}/{name}.")
    return found


def _view(connection: Connection, principal: Principal, row: Any) -> CollectionView:
    items = connection.execute(
        select(namespaces.c.name.label("namespace"), artefacts.c.name, collection_items.c.note)
        .join(artefacts, artefacts.c.id == collection_items.c.artefact_id)
        .join(namespaces, namespaces.c.id == artefacts.c.namespace_id)
        .where(collection_items.c.collection_id == row.id, visible(principal, connection))
        .order_by(collection_items.c.position)
    ).all()
    title, description = connection.execute(
        select(collections.c.title, collections.c.description).where(collections.c.id == row.id)
    ).one()
    return CollectionView(
        namespace=row.namespace,
        name=row.name,
        title=title,
        description=description,
        html=safe_html(description, deeper=3),
        created=time_text(row.created_at),
        items=tuple(CollectionItem(artefact=f"{one.namespace}/{one.name}", note=one.note) for one in items),
    )
