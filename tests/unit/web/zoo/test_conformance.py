"""The conformance program: our server passes, and each kind of broken server is caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from tests.unit.web.zoo.conftest import Served

from neuronmap.errors import ForbiddenError, NotInZooError, UnauthorizedError, ZooOfflineError
from neuronmap.web.app import create_app
from neuronmap.web.settings import ServerSettings
from neuronmap.zoo.conformance import ConformanceReport, run_conformance

URL = "http://localhost"


def run(served: Served, *, write: bool = True, token: bool = True, **more: Any) -> ConformanceReport:
    given = served.token("ada") if token else None
    return run_conformance(
        URL, given, write_namespace="lab" if write else None, client=more.get("client") or served.browser()
    )


def failed(report: ConformanceReport) -> list[str]:
    return [f"{check.name}: {check.reason}" for check in report.checks if check.outcome == "fail"]


def test_our_server_conforms(zoo: Served) -> None:
    report = run(zoo)
    assert failed(report) == []
    assert report.counts() == {"pass": 29, "fail": 0, "skip": 0}
    assert [check.number for check in report.checks] == list(range(1, 30))


def test_reading_alone(serving: Callable[..., Served]) -> None:
    served = serving(anonymous_read=True)
    empty = run(served, write=False, token=False)
    assert failed(empty) == []
    assert empty.counts()["pass"] == 6
    served.browser("ada").publish(b"to be read")
    report = run(served, write=False, token=False)
    assert failed(report) == []
    assert report.counts()["pass"] == 16
    assert all("needs a token" in check.reason for check in report.checks if check.outcome == "skip")


def test_this_machines_zoo_conforms() -> None:
    from fastapi.testclient import TestClient

    with TestClient(create_app(ServerSettings(supervise=False)), base_url=URL) as client:
        report = run_conformance(URL, "not-looked-at", write_namespace="ada", client=client)
    assert failed(report) == []
    skipped = [check.reason for check in report.checks if check.outcome == "skip"]
    assert len(skipped) == 2
    assert all("has no accounts" in reason for reason in skipped)


class Broken(httpx2.BaseTransport):
    """A server that does one thing wrong: what ours answers, changed on its way."""

    def __init__(self, served: Served, change: Callable[[httpx2.Request, httpx2.Response], httpx2.Response]) -> None:
        self.browser, self.change = served.browser(), change

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        answer = self.browser.request(request.method, str(request.url), content=request.read(), headers=headers)
        return self.change(request, answer)


def other(
    answer: httpx2.Response, status: int | None = None, content: bytes | None = None, **headers: str
) -> httpx2.Response:
    kept = {name: value for name, value in answer.headers.items() if name not in ("content-length", "content-encoding")}
    for name, value in headers.items():
        kept[name.replace("_", "-")] = value
    return httpx2.Response(
        status or answer.status_code, headers=kept, content=answer.content if content is None else content
    )


def is_file(request: httpx2.Request) -> bool:
    return "/files/" in request.url.path and request.method == "GET"


BREAKS: dict[str, tuple[Callable[[httpx2.Request, httpx2.Response], httpx2.Response], str]] = {
    "another byte": (
        lambda request, answer: other(answer, content=answer.content[::-1]) if is_file(request) else answer,
        "files have the digest",
    ),
    "ranges ignored": (
        lambda request, answer: other(answer, 200) if is_file(request) and answer.status_code == 206 else answer,
        "a part of a file",
    ),
    "shown in place": (
        lambda request, answer: other(answer, content_disposition="inline") if is_file(request) else answer,
        "no browser runs",
    ),
    "a manifest written anew": (
        lambda request, answer: (
            other(answer, content=answer.content + b"\n")
            if request.url.path.endswith("/manifest") and request.method == "GET"
            else answer
        ),
        "a manifest's SHA-256",
    ),
    "offsets not looked at": (
        lambda request, answer: (
            other(answer, 200, b'{"received": 4}')
            if request.method == "PATCH" and answer.status_code == 409
            else answer
        ),
        "wrong place",
    ),
    "strangers let in": (
        lambda request, answer: (
            other(answer, 200, b'{"hits": []}')
            if answer.status_code == 401 and "search" in request.url.path
            else answer
        ),
        "strangers read only",
    ),
    "another protocol": (
        lambda request, answer: other(answer, content=answer.content.replace(b'"protocol":1', b'"protocol":2')),
        "protocol 1",
    ),
    "errors of another shape": (
        lambda request, answer: (
            other(answer, content=b'{"detail": "Not Found"}') if answer.status_code == 404 else answer
        ),
        "errors have one shape",
    ),
    "yanked ones found": (
        lambda request, answer: (
            other(answer, 200, b"{}")
            if request.url.path.endswith("/versions/latest") and answer.status_code == 404
            else answer
        ),
        "yanked version",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_server_is_caught(zoo: Served, name: str) -> None:
    change, expected = BREAKS[name]
    with httpx2.Client(transport=Broken(zoo, change)) as client:
        report = run(zoo, client=client)
    assert not report.conforms
    assert any(expected in fault for fault in failed(report)), failed(report)


def test_what_the_token_may_not_do_is_no_fault_of_the_server(zoo: Served) -> None:
    def refused(namespace: str, token: str | None) -> None:
        run_conformance(URL, token, write_namespace=namespace, client=zoo.browser())

    with pytest.raises(NotInZooError, match="no namespace 'not-there'") as missing:
        refused("not-there", zoo.token("ada"))
    assert "zoo org create not-there" in missing.value.hint
    with pytest.raises(ForbiddenError, match=r"scopes read, write; .* admin are needed"):
        refused("lab", zoo.token("ada", "read", "write"))
    with pytest.raises(ForbiddenError, match="bob is reader of lab; an owner is needed"):
        refused("lab", zoo.token("bob"))
    with pytest.raises(ForbiddenError, match="no member of lab"):
        refused("lab", zoo.token("ada", "write", "admin", namespace="ada"))
    with pytest.raises(UnauthorizedError, match="a token is needed"):
        refused("lab", None)


def test_nobody_answers() -> None:
    with pytest.raises(ZooOfflineError, match="cannot be reached"):
        run_conformance("http://127.0.0.1:9")
