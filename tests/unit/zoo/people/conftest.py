"""The people of a zoo in a SQLite file, without accounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from neuronmap.zoo.people.people import People
from neuronmap.zoo.people.principal import LOCAL, Principal
from neuronmap.zoo.registry.registry import Registry
from neuronmap.zoo.tables import users


class Crowd(People):
    """People, with short ways to make and to be somebody."""

    def person(self, name: str, *, is_admin: bool = False) -> Principal:
        """Somebody with a session; the account is made when first asked for."""
        with self.database.read() as connection:
            number = connection.scalar(select(users.c.id).where(users.c.name == name))
        if number is None:
            self.accounts.create(LOCAL, name, is_admin=is_admin)
            return self.person(name)
        with self.database.write() as connection:
            secret = self.tokens.open_session(connection, number, "test")
        return self.authenticate(secret, session=True)


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    registry = Registry.embedded(tmp_path / "zoo")
    yield Crowd(registry.database)
    registry.close()
