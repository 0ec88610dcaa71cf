"""One server for all tests of labels; each test has an empty book."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.unit.web.conftest import made_app

from neuronmap.web.app import Application


@pytest.fixture(scope="session")
def labels_home(small_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy of the small home for all tests here."""
    folder = tmp_path_factory.mktemp("labels") / "home"
    shutil.copytree(small_home, folder)
    return folder


@pytest.fixture(scope="session")
def server(labels_home: Path) -> Application:
    """One server for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(labels_home))
        made = made_app()
        assert made.state.explorer.hub.list()
        return made


@pytest.fixture
def client(server: Application, labels_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A browser, and an empty book."""
    monkeypatch.setenv("NEURONMAP_HOME", str(labels_home))
    server.state.explorer.books.close()
    for file in labels_home.glob("labels.sqlite3*"):
        file.unlink()
    yield TestClient(server, base_url="http://localhost", follow_redirects=False)
    server.state.explorer.books.close()


@pytest.fixture
def bob(server: Application, client: TestClient) -> TestClient:
    """Another browser on the same server, of Bob."""
    browser = TestClient(server, base_url="http://localhost", follow_redirects=False)
    assert browser.post("/labels/name", data={"name": "Bob", "next": "/"}).status_code == 303
    return browser
