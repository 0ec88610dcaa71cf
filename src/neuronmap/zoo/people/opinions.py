"""Stars and comments."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from neuronmap.database import Database, now
from neuronmap.errors import ForbiddenError, InputError, NotInZooError
from neuronmap.safe_html import safe_html
from neuronmap.zoo.names import check_label
from neuronmap.zoo.people.organisations import require_reach
from neuronmap.zoo.people.principal import Principal, visible
from neuronmap.zoo.people.tokens import require_person
from neuronmap.zoo.people.views import CommentPage, CommentView, StarView
from neuronmap.zoo.registry.namespaces import write_down
from neuronmap.zoo.registry.rows import artefact_row, time_text
from neuronmap.zoo.tables import artefacts, comments, namespaces, stars, users, versions

__all__ = ["MOST_CHARACTERS", "MOST_COMMENTS", "Opinions"]

MOST_CHARACTERS = 10_000
"""Of a comment."""
MOST_COMMENTS = 100
"""Of a page."""


class Opinions:
    """Part of :class:`People`.

    Args:
        database: of the zoo.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    # --- stars ---------------------------------------------------------------------------------------------------------

    def stars(self, principal: Principal, namespace: str, name: str) -> StarView:
        """Stars of an artefact, and whether one is the asker's."""
        with self.database.read() as connection:
            return _stars(connection, principal, artefact_row(connection, principal, namespace, name).id)

    def star(self, principal: Principal, namespace: str, name: str, *, on: bool = True) -> StarView:
        """Give a star, or take it back. Twice is once.

        Raises:
            NotInZooError: no such artefact, or not for them.
            UnauthorizedError, ForbiddenError.
        """
        user = require_person(principal)
        with self.database.write() as connection:
            found = artefact_row(connection, principal, namespace, name)
            require_reach(principal, found.namespace_id)
            self.database.lock(connection, found.namespace_id)
            where = (stars.c.artefact_id == found.id, stars.c.user_id == user)
            held = connection.scalar(select(func.count()).select_from(stars).where(*where))
            if on and not held:
                connection.execute(insert(stars).values(artefact_id=found.id, user_id=user, created_at=now()))
            elif not on:
                connection.execute(delete(stars).where(*where))
            count = select(func.count()).select_from(stars).where(stars.c.artefact_id == found.id).scalar_subquery()
            connection.execute(update(artefacts).where(artefacts.c.id == found.id).values(stars=count))
            return _stars(connection, principal, found.id)

    # --- comments ------------------------------------------------------------------------------------------------------

    def comment(
        self, principal: Principal, namespace: str, name: str, text: str, version: str | None = None
    ) -> CommentView:
        """Write a comment. Whoever sees an artefact may.

        Args:
            principal: who writes; an embedded zoo's one user as well.
            namespace, name: of the artefact.
            text: Markdown, 10,000 characters at most.
            version: label of the version that it is about.

        Raises:
            InputError: nothing, or too much.
            NotInZooError: no such artefact or version, or not for them.
        """
        text = text.strip()
        if not text or len(text) > MOST_CHARACTERS or "\0" in text:
            raise InputError(f"A comment has 1 to {MOST_CHARACTERS:,} characters, this one {len(text):,}.")
        with self.database.write() as connection:
            found = artefact_row(connection, principal, namespace, name)
            require_reach(principal, found.namespace_id)
            about = None
            if version is not None:
                about = connection.scalar(
                    select(versions.c.id).where(
                        versions.c.artefact_id == found.id,
                        versions.c.label == check_label(version),
                        versions.c.state != "draft",
                    )
                )
                if about is None:
                    raise NotInZooError(f"{namespace}/{name} has no version {version}.")
            number = connection.execute(
                insert(comments)
                .values(artefact_id=found.id, version_id=about, user_id=principal.user_id, text=text, created_at=now())
                .returning(comments.c.id)
            ).scalar_one()
            write_down(connection, principal, "comment", f"{namespace}/{name}", comment=number)
            row = connection.execute(_comments().where(comments.c.id == number)).one()
            return _comment(connection, principal, row)

    def comments(
        self, principal: Principal, namespace: str, name: str, *, before: int | None = None, limit: int = 50
    ) -> CommentPage:
        """Comments on an artefact, the newest first."""
        limit = min(limit, MOST_COMMENTS)
        with self.database.read() as connection:
            found = artefact_row(connection, principal, namespace, name)
            asked = _comments().where(comments.c.artefact_id == found.id, comments.c.deleted_at.is_(None))
            if before is not None:
                asked = asked.where(comments.c.id < before)
            rows = connection.execute(asked.order_by(comments.c.id.desc()).limit(limit + 1)).all()
            shown = [_comment(connection, principal, row) for row in rows[:limit]]
        return CommentPage(comments=tuple(shown), next=shown[-1].id if len(rows) > limit else None)

    def remove_comment(self, principal: Principal, number: int) -> None:
        """Delete a comment and its text: its author may, and whoever owns the namespace.

        Raises:
            NotInZooError: there is none, or not for them.
            UnauthorizedError, ForbiddenError.
        """
        with self.database.write() as connection:
            row = connection.execute(
                _comments().where(
                    comments.c.id == number, comments.c.deleted_at.is_(None), visible(principal, connection)
                )
            ).first()
            if row is None:
                raise NotInZooError(f"There is no comment {number}.")
            require_reach(principal, row.namespace_id)
            if not _removable(connection, principal, row):
                raise ForbiddenError("Only its author and owners of the namespace may delete a comment.")
            connection.execute(update(comments).where(comments.c.id == number).values(text="", deleted_at=now()))
            write_down(connection, principal, "uncomment", f"{row.namespace}/{row.name}", comment=number)


def _stars(connection: Connection, principal: Principal, artefact_id: int) -> StarView:
    count = connection.scalar(select(artefacts.c.stars).where(artefacts.c.id == artefact_id))
    own = connection.scalar(
        select(func.count())
        .select_from(stars)
        .where(stars.c.artefact_id == artefact_id, stars.c.user_id == principal.user_id)
    )
    return StarView(stars=count or 0, starred=bool(own))


def _comments() -> Any:
    return (
        select(
            comments,
            users.c.name.label("author"),
            versions.c.label.label("version"),
            artefacts.c.namespace_id,
            artefacts.c.name,
            namespaces.c.name.label("namespace"),
        )
        .join(artefacts, artefacts.c.id == comments.c.artefact_id)
        .join(namespaces, namespaces.c.id == artefacts.c.namespace_id)
        .outerjoin(users, users.c.id == comments.c.user_id)
        .outerjoin(versions, versions.c.id == comments.c.version_id)
    )


def _removable(connection: Connection, principal: Principal, row: Any) -> bool:
    own = principal.user_id is not None and row.user_id == principal.user_id and "write" in principal.scopes
    return own or (not principal.is_anonymous and principal.may(connection, "admin", row.namespace_id))


def _comment(connection: Connection, principal: Principal, row: Any) -> CommentView:
    return CommentView(
        id=row.id,
        author=row.author,
        version=row.version,
        text=row.text,
        html=safe_html(row.text, deeper=3),
        created=time_text(row.created_at),
        removable=_removable(connection, principal, row),
    )
