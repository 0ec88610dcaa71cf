"""The zoo on both ways to run it: SQLite with a folder, and PostgreSQL with an object store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text

from neuronmap.database import Database, database_url, now
from neuronmap.zoo.blobs import BlobStore, blob_store
from neuronmap.zoo.database import ZOO
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import Manifest, media_type
from neuronmap.zoo.people.principal import LOCAL, Principal
from neuronmap.zoo.registry.registry import Registry
from neuronmap.zoo.tables import members, metadata, namespaces, users
from neuronmap.zoo.views import VersionView

SAE = {
    "format": "other",
    "model": {"name": "openai-community/gpt2"},
    "hook": {"name": "layers.8.residual", "layer": 8, "component": "residual"},
    "architecture": "topk",
    "d_in": 768,
    "d_sae": 4096,
}


@dataclass
class Given:
    """A zoo, and what tests do with it.

    Attributes:
        url, location: of its database and its blobs; any process can open it by these.
    """

    url: str
    location: str
    registry: Registry = field(init=False)
    store: BlobStore = field(init=False)

    def __post_init__(self) -> None:
        self.registry = self.again()
        self.store = self.registry.store

    def again(self) -> Registry:
        """The same zoo, opened once more."""
        return Registry(Database(ZOO, database_url(ZOO, self.url)), blob_store(self.location))

    def person(self, name: str, *, admin: bool = False, quota: int | None = None) -> Principal:
        """A user with a namespace of their own."""
        with self.registry.database.write() as connection:
            user = connection.execute(
                insert(users).values(name=name, is_admin=admin, created_at=now()).returning(users.c.id)
            ).scalar_one()
            space = connection.execute(
                insert(namespaces)
                .values(name=name, kind="person", quota_bytes=quota, created_at=now())
                .returning(namespaces.c.id)
            ).scalar_one()
            connection.execute(insert(members).values(namespace_id=space, user_id=user, role="owner"))
        return Principal(user, name, frozenset({"read", "write", "admin"}), is_admin=admin)

    def join(self, principal: Principal, namespace: str, role: str) -> None:
        """Make somebody a member of another's namespace."""
        with self.registry.database.write() as connection:
            space = connection.execute(namespaces.select().where(namespaces.c.name == namespace)).one()
            connection.execute(insert(members).values(namespace_id=space.id, user_id=principal.user_id, role=role))

    @staticmethod
    def manifest(contents: dict[str, bytes], /, **more: Any) -> tuple[Manifest, bytes]:
        """A manifest over some files; a data set unless told otherwise."""
        values: dict[str, Any] = {
            "kind": "DATASET",
            "namespace": "ada",
            "name": "demo",
            "version": "1.0",
            "licence": "MIT",
            "created": "2026-11-26T00:00:00Z",
            "files": [
                {"path": path, "digest": Digest.of(data), "size": len(data), "media_type": media_type(path)}
                for path, data in contents.items()
            ],
        }
        if "record" not in more:
            values["record"] = SAE if more.get("kind") == "SAE_MODEL" else {"format": "text"}
        return Manifest.build({**values, **more})

    def send(self, principal: Principal, publication: str, data: bytes, piece: int = 4) -> Digest:
        """Upload a blob in pieces of some bytes."""
        uploading = self.registry.uploading
        digest = Digest.of(data)
        upload = uploading.start(principal, publication, digest, len(data))
        while upload.received < len(data):
            part = data[upload.received : upload.received + max(piece, len(data) // 4)]
            upload = uploading.append(principal, upload.key, upload.received, [part])
        assert uploading.finish(principal, upload.key).done
        return digest

    def publish(
        self,
        data: bytes | dict[str, bytes] = b"hello",
        *,
        by: Principal = LOCAL,
        draft: bool = False,
        private: bool = False,
        **more: Any,
    ) -> VersionView:
        """Publish, from the beginning to the end; a person publishes in their own namespace unless told otherwise."""
        if not by.is_local:
            more.setdefault("namespace", by.name)
        manifest, written = self.manifest({"a.txt": data} if isinstance(data, bytes) else data, **more)
        uploading = self.registry.uploading
        key = uploading.begin(by, manifest.namespace, manifest.size).key
        contents = [data] if isinstance(data, bytes) else list(data.values())
        missing = uploading.missing(by, key, [entry.digest for entry in manifest.files])
        for one in {Digest.of(content): content for content in contents}.values():
            if Digest.of(one) in missing:
                self.send(by, key, one)
        return self.registry.publishing.publish(by, key, written, draft=draft, private=private)


@pytest.fixture(scope="session")
def new_zoo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Given]]:
    """Makes an empty zoo of a kind: ``sqlite`` with a folder, or ``postgresql`` with an object store. Its tables are copied."""
    templates: dict[str, str] = {}
    made: list[Given] = []

    def database(kind: str) -> str:
        if kind == "sqlite":
            file = tmp_path_factory.mktemp("zoo") / "zoo.sqlite3"
            if kind in templates:
                shutil.copy(templates[kind], file)
            return f"sqlite:///{file}"
        url: str = request.getfixturevalue("new_database")(templates.get(kind))
        return url

    def make(kind: str) -> Given:
        if kind not in templates:
            url = database(kind)
            first = Database(ZOO, database_url(ZOO, url))
            if kind == "sqlite":
                with first.read() as connection:
                    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            first.close()
            templates[kind] = url.removeprefix("sqlite:///")
        url = database(kind)
        location = str(tmp_path_factory.mktemp("blobs")) if kind == "sqlite" else request.getfixturevalue("s3")()
        made.append(Given(url, location))
        return made[-1]

    yield make
    for zoo in made:
        zoo.registry.close()


@pytest.fixture(scope="session")
def emptied() -> Iterator[list[Given]]:
    """Zoos on PostgreSQL whose tests are over: emptied and used again, since a database takes a while to make."""
    zoos: list[Given] = []
    yield zoos
    for zoo in zoos:
        zoo.registry.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def given(request: pytest.FixtureRequest, new_zoo: Callable[[str], Given], emptied: list[Given]) -> Iterator[Given]:
    """A zoo without anything in it."""
    if request.param == "sqlite":
        yield new_zoo("sqlite")
        return
    zoo = emptied.pop() if emptied else new_zoo("postgresql")
    location = request.getfixturevalue("s3")()
    yield zoo
    with zoo.registry.database.write() as connection:
        names = ", ".join(table.name for table in metadata.sorted_tables)
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
    zoo.registry.close()
    emptied.append(Given(zoo.url, location))


@pytest.fixture(scope="session")
def process_server(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process that starts others, having loaded all they need."""
    del request
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("process.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret"},
    ) as server:
        yield server
        server.stdin.close()  # type: ignore[union-attr]
        server.wait(30)


@pytest.fixture
def processes(process_server: subprocess.Popen[str]) -> Callable[..., list[dict[str, Any]]]:
    """Carries out orders on a zoo, all at once, each in a process of its own; see ``process.py``."""

    def run(zoo: Given, orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
        whole = [{"url": zoo.url, "location": zoo.location, **order} for order in orders]
        process_server.stdin.write(json.dumps(whole) + "\n")  # type: ignore[union-attr]
        process_server.stdin.flush()  # type: ignore[union-attr]
        answers: list[dict[str, Any]] = json.loads(process_server.stdout.readline())  # type: ignore[union-attr]
        return answers

    return run
