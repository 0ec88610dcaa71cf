"""Zoos in folders, and a real server in this process."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.insert(0, os.fspath(Path(__file__).parent))

from zoos import HostileServer, package, wait_until

from neuronmap.progress import SilentProgress
from neuronmap.zoo.client.zoo import Zoo


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``empty``: a zoo in a folder; ``published``: the same with ada/numbers@1.0. Copied, they need no migration."""
    folder = tmp_path_factory.mktemp("templates")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(folder / "home"))
        Zoo(folder / "empty").close()
        with Zoo(folder / "published", progress=SilentProgress()) as zoo:
            zoo.publish(package(folder / "numbers"), "ada/numbers@1.0", licence="MIT", tags=["numbers"])
    return folder


@pytest.fixture
def zoo(templates: Path, tmp_path: Path) -> Iterator[Zoo]:
    """An empty zoo in a folder."""
    shutil.copytree(templates / "empty", tmp_path / "zoo")
    with Zoo(tmp_path / "zoo", progress=SilentProgress()) as opened:
        yield opened


@pytest.fixture
def published(templates: Path, tmp_path: Path) -> Iterator[Zoo]:
    """A zoo in a folder with ada/numbers@1.0."""
    shutil.copytree(templates / "published", tmp_path / "published")
    with Zoo(tmp_path / "published", progress=SilentProgress()) as opened:
        yield opened


@pytest.fixture(scope="session")
def numbers(templates: Path) -> Iterator[Zoo]:
    """The same for all tests; it is only read."""
    with Zoo(templates / "published", progress=SilentProgress()) as opened:
        yield opened


@pytest.fixture
def hostile(numbers: Zoo) -> Iterator[HostileServer]:
    """A server on loopback that serves ada/numbers@1.0, honestly until it is told otherwise."""
    server = HostileServer(numbers, "ada/numbers@1.0")
    yield server
    server.close()


class Served(NamedTuple):
    """A server of a zoo: its address, its port, a token of Ada's, and its folder."""

    address: str
    port: int
    token: str
    folder: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real server, with accounts, in this process; the account ada with a token for everything."""
    import uvicorn

    from neuronmap.web.zoo.server import create_zoo_app, served_zoo
    from neuronmap.web.zoo.settings import ZooServerSettings
    from neuronmap.zoo.people.principal import LOCAL, Principal

    folder = tmp_path_factory.mktemp("server")
    settings = ZooServerSettings(folder=folder, anonymous_read=True)
    context = served_zoo(settings)
    context.people.accounts.create(LOCAL, "ada", is_admin=True)
    token = context.people.tokens.issue(
        Principal(1, "ada", frozenset({"read", "write", "admin"}), is_admin=True),
        "tests",
        scopes=("read", "write", "admin"),
    ).token
    config = uvicorn.Config(create_zoo_app(settings, context), port=0, log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Served(f"http://127.0.0.1:{port}", port, token, folder)
    server.should_exit = True
    thread.join(20)
