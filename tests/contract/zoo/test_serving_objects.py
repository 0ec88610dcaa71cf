"""``neuronmap zoo serve`` with its blobs in an object store: publish, pull, parts of files, verification and collection, as people type."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from typer.testing import CliRunner

from neuronmap.cli import app
from neuronmap.web.zoo.settings import ZooServerSettings
from neuronmap.zoo.blobs import BlobStore, blob_store
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.people.people import People
from neuronmap.zoo.people.principal import LOCAL

LARGE = bytes(range(251)) * 40_000
"""More than one piece of an upload (8 MiB)."""


class Serving(NamedTuple):
    """A server's address, its store as another process sees it, and its folder."""

    address: str
    store: BlobStore
    folder: Path
    token: str


@pytest.fixture(scope="module")
def serving(s3: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A process of its own; ada runs it, with a token for everything."""
    folder, location = tmp_path_factory.mktemp("server"), s3()
    registry = ZooServerSettings(folder=folder, store=location).open_registry()
    people = People(registry.database)
    people.accounts.create(LOCAL, "ada", is_admin=True, subject="https://login.example.org ada")
    ada = people.authenticate(people.sign_in_as("https://login.example.org ada", name="ada"), session=True)
    token = people.tokens.issue(ada, "tests", ["read", "write", "admin"]).token
    registry.close()
    command = [
        sys.executable,
        "-m",
        "neuronmap",
        "zoo",
        "serve",
        "--port",
        "0",
        "--folder",
        folder,
        "--store",
        location,
    ]
    with subprocess.Popen(
        [*map(str, command), "--anonymous-read"],
        env={**os.environ, "NEURONMAP_HOME": str(folder / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        found, said = None, ""
        while found is None:
            line = process.stdout.readline()  # type: ignore[union-attr]
            said += line
            assert line, f"the server ended: {said}"
            found = re.search(r"http://localhost:(\d+)", line)
        yield Serving(f"http://127.0.0.1:{found[1]}", blob_store(location), folder, token)
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def typed(serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Types ``neuronmap zoo ... --json`` at this server, and reads what it prints."""
    monkeypatch.setenv("NEURONMAP_ZOO", serving.address)
    monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", serving.token)

    def run(*arguments: str | Path) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["zoo", *map(str, arguments), "--json"])
        return {"code": done.exit_code, **json.loads(done.stdout)}

    return run


def three_weeks_later(serving: Serving) -> None:
    """Make what is stored older, from beside the server."""
    with sqlite3.connect(serving.folder / "zoo.sqlite3", timeout=30) as database:
        database.execute("UPDATE zoo_blobs SET verified_at = verified_at - 1814400, created_at = created_at - 1814400")
    database.close()


def test_from_publishing_to_collecting(serving: Serving, typed: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large.bin").write_bytes(LARGE)
    (source / "empty.txt").write_bytes(b"")
    (tmp_path / "record.json").write_text('{"format": "bytes"}')
    about = ("--kind", "DATASET", "--record", tmp_path / "record.json", "--licence", "MIT")
    published = typed("publish", source, "--as", "ada/numbers@1.0", *about)
    assert published["code"] == 0, published
    assert typed("publish", source, "--as", "ada/numbers@1.0", *about)["versions"] == published["versions"]
    key = Digest.of(LARGE).key
    assert serving.store.size(key) == len(LARGE)
    assert not list(serving.folder.rglob("*large*")), "the bytes lie in the object store alone"
    assert [one.key for one in serving.store.list("incoming/")] == [], "no piece of an upload is left"

    pulled = typed("pull", "ada/numbers", "--to", tmp_path / "pulled")
    assert pulled["pulled"][0]["fetched_bytes"] == len(LARGE)
    assert (tmp_path / "pulled/large.bin").read_bytes() == LARGE
    assert typed("verify", "ada/numbers@1.0")["code"] == 0
    file = f"{serving.address}/api/zoo/artefacts/ada/numbers/versions/1.0/files/large.bin"
    for asked, start, end in (
        ("bytes=0-9", 0, 10),
        ("bytes=9000000-9000100", 9_000_000, 9_000_101),
        ("bytes=-7", len(LARGE) - 7, len(LARGE)),
        (f"bytes={len(LARGE) - 3}-", len(LARGE) - 3, len(LARGE)),
    ):
        part = httpx2.get(file, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, LARGE[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(LARGE)}"
    assert httpx2.get(file, headers={"Range": f"bytes={len(LARGE)}-"}).status_code == 416

    assert typed("gc", "--delete", "--grace", "0")["code"] == 2, "a server keeps two weeks, whoever asks"
    three_weeks_later(serving)
    assert typed("gc", "--delete")["collected"]["blobs"] == 0, "what is needed stays"
    assert typed("delete", "ada/numbers@1.0", "--reason", "too large", "--yes")["version"]["state"] == "deleted"
    three_weeks_later(serving)
    assert typed("gc")["collected"]["blobs"] == 2
    assert serving.store.size(key) == len(LARGE), "only said"
    assert typed("gc", "--delete")["collected"]["blobs"] == 2
    assert serving.store.size(key) is None
    assert typed("pull", "ada/numbers@1.0", "--to", tmp_path / "late")["code"] == 6


def test_an_object_that_was_changed_is_noticed(
    serving: Serving, typed: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_bytes(b"some text")
    (tmp_path / "record.json").write_text('{"format": "text"}')
    about = ("--kind", "DATASET", "--record", tmp_path / "record.json", "--licence", "MIT")
    assert typed("publish", tmp_path / "text.txt", "--as", "ada/text@1.0", *about)["code"] == 0
    serving.store.put(Digest.of(b"some text").key, [b"some test"])
    assert typed("pull", "ada/text", "--to", tmp_path / "pulled")["code"] == 5
    assert not (tmp_path / "pulled").exists()
    found = typed("verify")
    assert (found["code"], Digest.of(b"some text") in found["message"]) == (5, True), found
