"""A zoo's server in this process: ada runs it, bob and eve have accounts, lab is an organisation of ada's with bob as reader."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from neuronmap.database import Database, database_url
from neuronmap.web.zoo.context import ZooContext
from neuronmap.web.zoo.server import create_zoo_app, served_zoo
from neuronmap.web.zoo.settings import ZooServerSettings
from neuronmap.zoo.database import ZOO
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import Manifest
from neuronmap.zoo.people import passwords
from neuronmap.zoo.people.principal import LOCAL, Principal
from neuronmap.zoo.tables import users

PLENTY = {f"{kind}_per_minute": 1_000_000 for kind in ("reads", "searches", "writes", "sign_ins")}


def manifest_of(
    data: bytes = b"some text", *, namespace: str = "ada", name: str = "demo", version: str = "1.0", **more: Any
) -> tuple[Manifest, bytes]:
    """A data set of one file, ``a.txt``."""
    file = {"path": "a.txt", "digest": Digest.of(data), "size": len(data), "media_type": "text/plain"}
    values = {
        "kind": "DATASET", "namespace": namespace, "name": name, "version": version, "licence": "MIT",
        "created": "2026-11-26T00:00:00Z", "files": [file], "record": {"format": "text"}, "title": "A text",
    }  # fmt: skip
    return Manifest.build({**values, **more})


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same argon2id with little memory: how long it takes is tested elsewhere."""
    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    nobody = hasher.hash("nobody has this password")
    monkeypatch.setattr(passwords, "_hasher", lambda: hasher)
    monkeypatch.setattr(passwords, "_nobodys", lambda: nobody)


class Browser(TestClient):
    """A client of the API: of one token, of a session, or of nobody."""

    def publish(self, data: bytes = b"some text", *, query: str = "", **values: Any) -> dict[str, Any]:
        """All steps of publishing :func:`manifest_of`; what the last one answers."""
        manifest, written = manifest_of(data, **values)
        begun = self.post("/api/zoo/publications", json={"namespace": manifest.namespace, "size": manifest.size})
        assert begun.status_code == 201, begun.text
        key = begun.json()["key"]
        wanted = [entry.digest for entry in manifest.files]
        missing = self.post(f"/api/zoo/publications/{key}/missing", json={"digests": wanted}).json()["missing"]
        if missing:
            file = {"digest": missing[0], "size": len(data)}
            upload = self.post(f"/api/zoo/publications/{key}/uploads", json=file).json()
            sent = self.patch(f"/api/zoo/uploads/{upload['key']}", content=data, headers={"Upload-Offset": "0"})
            assert sent.json()["received"] == len(data)
            assert self.post(f"/api/zoo/uploads/{upload['key']}/finish").json()["done"]
        done = self.put(
            f"/api/zoo/publications/{key}/manifest{query}",
            content=written,
            headers={"content-type": "application/json"},
        )
        assert done.status_code in (200, 201), done.text
        return dict(done.json())


@cache
def _empty_database() -> Path:
    """A database with its tables, to be copied: making one takes most of a second."""
    folder = Path(tempfile.mkdtemp(prefix="nm-zoo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "zoo.sqlite3"
    database = Database(ZOO, database_url(ZOO, f"sqlite:///{file}"))
    with database.read() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return file


class Served:
    """The server and what tests need of it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        shutil.copy(_empty_database(), folder / "zoo.sqlite3")
        self.settings = ZooServerSettings(folder=folder, **{**PLENTY, **settings})
        self.context: ZooContext = served_zoo(self.settings)
        self.app: FastAPI = create_zoo_app(self.settings, self.context)
        self.people = self.context.people
        self.people.accounts.create(LOCAL, "ada", is_admin=True)
        for name in ("bob", "eve"):
            self.people.accounts.create(LOCAL, name)
        ada = self.principal("ada")
        self.people.organisations.create(ada, "lab")
        self.people.organisations.set_member(ada, "lab", "bob", "reader")

    def session(self, name: str) -> str:
        """A session's secret, without a password."""
        with self.context.registry.database.write() as connection:
            number = connection.scalar(select(users.c.id).where(users.c.name == name))
            return self.people.tokens.open_session(connection, number, "test")

    def principal(self, name: str) -> Principal:
        return self.people.authenticate(self.session(name), session=True)

    def token(self, name: str, *scopes: Any, namespace: str | None = None) -> str:
        made = self.people.tokens.issue(self.principal(name), "test", scopes or ("admin", "write"), namespace=namespace)
        return made.token

    def browser(self, name: str | None = None, *scopes: Any, namespace: str | None = None, **more: Any) -> Browser:
        headers = {}
        if name is not None:
            headers["Authorization"] = f"Bearer {self.token(name, *scopes, namespace=namespace)}"
        return Browser(self.app, base_url="http://localhost", headers=headers, follow_redirects=False, **more)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Makes servers; they are closed at the end."""
    made: list[Served] = []

    def make(**settings: Any) -> Served:
        made.append(Served(tmp_path_factory.mktemp("zoo"), **settings))
        return made[-1]

    yield make
    for one in made:
        one.context.close()


@pytest.fixture(scope="module")
def zoo(serving: Callable[..., Served]) -> Served:
    """One server for a module's tests: each uses names of its own."""
    return serving()
