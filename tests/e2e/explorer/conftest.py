"""One home in which the browser has trained and analysed an SAE, made once; a server on a copy of it; pages that are watched."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Page
from tests.converted import link_converted
from tests.e2e.explorer.growing import grow
from tests.e2e.explorer.known import Known, known_of
from tests.e2e.explorer.serving import RUNNING, Server, Visit, browsing, serving, visiting


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failed test shows the end of the log of each server that runs."""
    report = yield
    if report.failed:
        for server in RUNNING:
            report.sections.append((f"log of {server.address}", server.log.read_text()[-5000:]))
    return report


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home with the SAE ``small``, trained and analysed through the browser, and what was seen meanwhile.

    Made by the first of the processes that run tests; the others wait for it.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "explorer"
    with FileLock(shared / "explorer.lock"):
        if not (folder / "seen.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "home").mkdir(parents=True)
            link_converted(folder / "home", tmp_path_factory)
            with (
                serving(folder / "home", folder / "server.log") as server,
                browsing() as browser,
                visiting(browser, server.address) as visit,
            ):
                seen = grow(visit.page, server)
            (folder / "seen.json").write_text(json.dumps(seen))
    return folder / "home", json.loads((folder / "seen.json").read_text())


@pytest.fixture(scope="session")
def seen(grown: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """What the first journey saw."""
    return grown[1]


@pytest.fixture(scope="session")
def new_home(grown: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes a copy of that home, with the caches shared: the model is converted, the text tokenised and run through it once."""

    def make() -> Path:
        home = tmp_path_factory.mktemp("explorer-home")
        shutil.copytree(grown[0], home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache"))
        (home / "cache").symlink_to(grown[0] / "cache", target_is_directory=True)
        return home

    return make


@pytest.fixture(scope="session")
def server(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a copy."""
    with serving(new_home(), tmp_path_factory.mktemp("log") / "server.log") as started:
        yield started


@pytest.fixture(scope="session")
def known(server: Server) -> Known:
    """Features of the SAE that are worth a look."""
    return known_of(server)


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[Browser]:
    """A browser, closed with the module: while it is open, no event loop of a test's own can run."""
    with browsing() as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Callable[..., Visit]]:
    """Opens pages with other options: size, scheme, scripts off. Their faults fail the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(visiting(browser, server.address, **options))


@pytest.fixture
def page(visit: Callable[..., Visit]) -> Page:
    """A page whose faults fail the test."""
    return visit().page
