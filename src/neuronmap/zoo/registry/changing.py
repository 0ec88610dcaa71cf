"""What may change after publication: states and aliases, never content. Every change is logged."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from neuronmap.database import Database, now
from neuronmap.errors import AlreadyExistsError, InputError, MismatchError, NotInZooError
from neuronmap.zoo.names import Reference, check_alias
from neuronmap.zoo.people.principal import Principal, visible
from neuronmap.zoo.registry.namespaces import namespace_for_writing, namespace_row, write_down
from neuronmap.zoo.registry.rows import artefact_row, find_version, seen, time_text, version_view, versions_joined
from neuronmap.zoo.search.documents import drop_document, refresh_newest
from neuronmap.zoo.tables import alias_log, aliases, artefacts, edges, files, users, versions
from neuronmap.zoo.views import AliasMove, VersionView

__all__ = ["Changing"]

_MOST_REASON = 1000


class Changing:
    """Part of the registry.

    Args:
        database: of the zoo.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def deprecate(
        self, principal: Principal, reference: Reference, reason: str, successor: Reference | None = None
    ) -> VersionView:
        """Say that there is something better. It is still found and pulled, with the reason shown.

        Args:
            principal: needs the scope ``write``.
            reference: the version, by label or digest.
            reason: why.
            successor: version of the same artefact to use instead.

        Raises:
            NotInZooError, InputError, UnauthorizedError, ForbiddenError.
        """
        return self._set_state(principal, reference, "deprecated", reason, ("published", "deprecated"), successor)

    def yank(self, principal: Principal, reference: Reference, reason: str) -> VersionView:
        """Take it out of searches, ``latest`` and aliases. Whoever has its exact label or digest still gets it (PEP 592)."""
        return self._set_state(principal, reference, "yanked", reason, ("published", "deprecated", "yanked"), None)

    def restore(self, principal: Principal, reference: Reference) -> VersionView:
        """Undo a deprecation or a yank."""
        return self._set_state(principal, reference, "published", "", ("published", "deprecated", "yanked"), None)

    def delete(self, principal: Principal, reference: Reference, reason: str) -> VersionView:
        """Delete a version's bytes. Its manifest stays as a tombstone, its label is never given again.

        Needs the scope ``admin`` in the namespace; a draft its writers delete. The bytes go with the next garbage collection, unless other
        versions have them. Again with the same reason is the same; the reason that a tombstone carries is never replaced.

        Raises:
            NotInZooError: there is no such version, or it was deleted for another reason.
            AlreadyExistsError: other versions were made from it, or are about it.
        """
        reason = _checked_reason(reason)
        with self.database.write() as connection:
            found = find_version(connection, principal, _exact(reference))
            owner = namespace_row(connection, reference.namespace)
            self.database.lock(connection, owner.id)
            if found.state == "draft":
                principal.require(connection, "write", owner)
            else:
                principal.require(connection, "admin", owner)
            if found.state == "deleted":
                if found.reason == reason:
                    return self._view(connection, principal, found.id)
                raise NotInZooError(f"{reference.artefact}@{found.label} was deleted already: {found.reason}.")
            require_not_in_use(connection, principal, found)
            drop_document(connection, found.id)
            for row in connection.execute(select(aliases).where(aliases.c.version_id == found.id)).all():
                self._move(connection, principal, found.artefact_id, row.alias, row.version_id, None, reason)
            connection.execute(delete(files).where(files.c.version_id == found.id))
            connection.execute(
                update(versions)
                .where(versions.c.id == found.id)
                .values(state="deleted", reason=reason, successor_id=None, changed_at=now())
            )
            refresh_newest(connection, found.artefact_id)
            write_down(connection, principal, "delete", f"{reference.artefact}@{found.label}", reason=reason)
            return self._view(connection, principal, found.id)

    def set_private(self, principal: Principal, namespace: str, name: str, private: bool) -> None:
        """Show an artefact to all, or to members of the namespace alone. Needs the scope ``admin`` in the namespace."""
        with self.database.write() as connection:
            found = artefact_row(connection, principal, namespace, name)
            principal.require(connection, "admin", namespace_row(connection, namespace))
            connection.execute(update(artefacts).where(artefacts.c.id == found.id).values(private=private))
            write_down(connection, principal, "private" if private else "public", f"{namespace}/{name}")

    # --- aliases -----------------------------------------------------------------------------------------------------------

    def set_alias(
        self,
        principal: Principal,
        reference: Reference,
        alias: str,
        *,
        expected: str | None = None,
        reason: str = "",
    ) -> VersionView:
        """Point an alias to a version.

        Args:
            principal: needs the scope ``write``.
            reference: the version.
            alias: the word.
            expected: label that the alias must point to now (empty: to none); None does not ask.
            reason: kept in the log.

        Raises:
            MismatchError: somebody else has moved it meanwhile.
        """
        check_alias(alias)
        if len(reason) > _MOST_REASON:
            raise InputError(f"The reason has {len(reason)} characters; {_MOST_REASON} at most.")
        with self.database.write() as connection:
            found = find_version(connection, principal, reference)
            owner = namespace_for_writing(connection, principal, reference.namespace)
            self.database.lock(connection, owner.id)
            if found.state not in ("published", "deprecated"):
                raise InputError(f"{reference} is {found.state}; an alias points to a published version.")
            before = self._pointed(connection, found.artefact_id, alias, expected)
            if before != found.id:
                self._move(connection, principal, found.artefact_id, alias, before, found.id, reason)
                write_down(connection, principal, "alias", f"{reference.artefact}@{alias}", to=found.label)
            return self._view(connection, principal, found.id)

    def remove_alias(
        self,
        principal: Principal,
        namespace: str,
        name: str,
        alias: str,
        *,
        expected: str | None = None,
        reason: str = "",
    ) -> None:
        """Take an alias away; the log keeps what it meant.

        Raises:
            NotInZooError: there is no such alias.
            MismatchError: somebody else has moved it meanwhile.
        """
        with self.database.write() as connection:
            found = artefact_row(connection, principal, namespace, name)
            owner = namespace_for_writing(connection, principal, namespace)
            self.database.lock(connection, owner.id)
            before = self._pointed(connection, found.id, alias, expected)
            if before is None:
                raise NotInZooError(f"{namespace}/{name} has no alias {alias!r}.")
            self._move(connection, principal, found.id, alias, before, None, reason)
            write_down(connection, principal, "alias", f"{namespace}/{name}@{alias}", to=None)

    def alias_log(self, principal: Principal, namespace: str, name: str) -> list[AliasMove]:
        """Every move of every alias of an artefact, the newest first."""
        before, after = versions.alias("before"), versions.alias("after")
        with self.database.read() as connection:
            found = artefact_row(connection, principal, namespace, name)
            rows = connection.execute(
                select(
                    alias_log.c.alias,
                    alias_log.c.at,
                    alias_log.c.reason,
                    before.c.label.label("before"),
                    after.c.label.label("after"),
                    users.c.name.label("who"),
                )
                .outerjoin(before, before.c.id == alias_log.c.from_id)
                .outerjoin(after, after.c.id == alias_log.c.to_id)
                .outerjoin(users, users.c.id == alias_log.c.user_id)
                .where(alias_log.c.artefact_id == found.id)
                .order_by(alias_log.c.id.desc())
                .limit(1000)
            ).all()
        return [
            AliasMove(
                alias=row.alias,
                before=row.before,
                after=row.after,
                who=row.who,
                at=time_text(row.at),
                reason=row.reason,
            )
            for row in rows
        ]

    # --- steps -------------------------------------------------------------------------------------------------------------

    def _pointed(self, connection: Connection, artefact_id: int, alias: str, expected: str | None) -> int | None:
        row = connection.execute(
            select(aliases.c.version_id, versions.c.label)
            .join(versions, versions.c.id == aliases.c.version_id)
            .where(aliases.c.artefact_id == artefact_id, aliases.c.alias == alias)
        ).first()
        label = row.label if row is not None else ""
        if expected is not None and expected != label:
            raise MismatchError(
                f"The alias {alias!r} points to {label or 'nothing'} now, not to {expected or 'nothing'}: somebody has moved it.",
                hint="Look at it again, then move it.",
            )
        return row.version_id if row is not None else None

    def _move(
        self,
        connection: Connection,
        principal: Principal,
        artefact_id: int,
        alias: str,
        before: int | None,
        after: int | None,
        reason: str,
    ) -> None:
        where = (aliases.c.artefact_id == artefact_id, aliases.c.alias == alias)
        if after is None:
            connection.execute(delete(aliases).where(*where))
        elif before is None:
            connection.execute(
                insert(aliases).values(artefact_id=artefact_id, alias=alias, version_id=after, changed_at=now())
            )
        else:
            connection.execute(update(aliases).where(*where).values(version_id=after, changed_at=now()))
        connection.execute(
            insert(alias_log).values(
                artefact_id=artefact_id,
                alias=alias,
                from_id=before,
                to_id=after,
                user_id=principal.user_id,
                at=now(),
                reason=reason,
            )
        )

    def _set_state(
        self,
        principal: Principal,
        reference: Reference,
        state: str,
        reason: str,
        allowed: tuple[str, ...],
        successor: Reference | None,
    ) -> VersionView:
        if state != "published":
            reason = _checked_reason(reason)
        with self.database.write() as connection:
            found = find_version(connection, principal, _exact(reference))
            owner = namespace_for_writing(connection, principal, reference.namespace)
            self.database.lock(connection, owner.id)
            if found.state not in allowed:
                raise InputError(
                    f"{reference} is {found.state}; only {', '.join(allowed)} versions can become {state}."
                )
            after = None
            if successor is not None:
                if successor.artefact != reference.artefact:
                    raise InputError(f"The successor {successor} is no version of {reference.artefact}.")
                after = find_version(connection, principal, successor)
                if after.id == found.id:
                    raise InputError(f"{successor} cannot be its own successor.")
                if after.state not in ("published", "deprecated"):
                    raise InputError(f"The successor {successor} is {after.state}.")
            connection.execute(
                update(versions)
                .where(versions.c.id == found.id)
                .values(
                    state=state, reason=reason, successor_id=after.id if after is not None else None, changed_at=now()
                )
            )
            refresh_newest(connection, found.artefact_id)
            write_down(connection, principal, state, f"{reference.artefact}@{found.label}", reason=reason)
            return self._view(connection, principal, found.id)

    def _view(self, connection: Connection, principal: Principal, version_id: int) -> VersionView:
        row = connection.execute(
            versions_joined().where(versions.c.id == version_id, visible(principal, connection))
        ).one()
        return version_view(connection, principal, row)


def require_not_in_use(connection: Connection, principal: Principal, row: Any) -> None:
    """Refuse to delete what others were made from.

    Raises:
        AlreadyExistsError: names some of them, as far as the asker may see them.
    """
    made = (
        versions_joined()
        .join(edges, edges.c.version_id == versions.c.id)
        .where(edges.c.parent_id == row.id, versions.c.state != "deleted")
        .distinct()
    )
    count = connection.scalar(select(func.count()).select_from(made.subquery())) or 0
    if count:
        some = connection.execute(made.where(seen(principal, connection)).limit(5)).all()
        names = [f"{one.namespace}/{one.name}@{one.label}" for one in some]
        if count > len(some):
            names.append(f"{count - len(some)} more")
        raise AlreadyExistsError(
            f"{row.namespace}/{row.name}@{row.label} is in use: made from it, or about it, {'is' if count == 1 else 'are'} "
            f"{', '.join(names)}.",
            hint="Yank it instead: it is then found by its exact label or digest alone.",
        )


def _exact(reference: Reference) -> Reference:
    """A change is made to one version, by label or digest: an alias could have moved."""
    if not reference.exact:
        raise InputError(
            f"{reference} may mean another version tomorrow.",
            hint=f"Name it: {reference.artefact}@<label> or @sha256:...",
        )
    return reference


def _checked_reason(reason: str) -> str:
    reason = reason.strip()
    if not reason or len(reason) > _MOST_REASON:
        raise InputError(f"A reason of 1 to {_MOST_REASON} characters is needed; this has {len(reason)}.")
    return reason
