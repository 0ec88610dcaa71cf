"""Who is let in, from where, how much, and what a browser may do with the answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from neuronmap.errors import ConfigError
from neuronmap.web.app import create_app
from neuronmap.web.guard import COOKIE
from neuronmap.web.settings import TOKEN_VARIABLE, ServerSettings

TOKEN = "a-long-and-random-token"


def browser(**settings: Any) -> TestClient:
    return TestClient(
        create_app(ServerSettings(**{"supervise": False, **settings})),
        base_url="http://localhost",
        follow_redirects=False,
    )


@pytest.fixture
def open_server() -> Iterator[TestClient]:
    with browser() as found:
        yield found


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with browser() as found:
        yield found


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "explorer.example"])
def test_an_address_that_others_reach_needs_a_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="can be reached by others") as refused:
        ServerSettings(host=host)
    assert TOKEN_VARIABLE in refused.value.hint
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert ServerSettings(host=host).token == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_this_machine_needs_none(host: str) -> None:
    assert ServerSettings(host=host).token is None


def test_a_short_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    with pytest.raises(ConfigError, match="at least 16"):
        ServerSettings(host="0.0.0.0")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "localhost.evil.example", "", "[::2]", "127.0.0.1@evil"]
)
def test_other_hosts_are_not_answered(open_server: TestClient, host: str) -> None:
    """DNS rebinding: a page of another site whose name now points here."""
    answer = open_server.get("/api/sae/list_models", headers={"host": host})
    assert answer.status_code == 421
    assert answer.json()["error"]["code"] == "host"


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1:8765", "[::1]:8765", "LOCALHOST"])
def test_own_hosts_are_answered(open_server: TestClient, host: str) -> None:
    assert open_server.get("/api/health", headers={"host": host}).status_code == 200


def test_a_proxys_name_is_answered_when_it_was_named() -> None:
    with browser(allowed_hosts=("maps.example",)) as found:
        assert found.get("/api/health", headers={"host": "maps.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://localhost"},
    ],
)
def test_other_sites_may_not_change_anything(open_server: TestClient, headers: dict[str, str]) -> None:
    answer = open_server.post("/api/sae/analyze_features", json={"saes": ["x"]}, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "cross_origin"


@pytest.mark.parametrize("headers", [{}, {"origin": "http://localhost"}, {"sec-fetch-site": "same-origin"}])
def test_own_pages_and_scripts_may(open_server: TestClient, headers: dict[str, str]) -> None:
    answer = open_server.post("/api/sae/analyze_features", json={"saes": ["missing"]}, headers=headers)
    assert answer.status_code == 404


def test_without_the_token_nothing_is_shown(locked: TestClient) -> None:
    for path in ("/", "/index.json", "/api/sae/list_models", "/api/openapi.json", "/jobs", "/api/metrics"):
        answer = locked.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.get("/api/health").status_code == 200
    wrong = {"authorization": "Bearer another-token-that-is-wrong"}
    assert locked.get("/", headers=wrong).status_code == 401
    assert locked.get("/", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_signing_in_gives_a_cookie_that_is_not_the_token(locked: TestClient) -> None:
    assert locked.post("/sign-in", data={"token": "wrong"}).status_code == 401
    answer = locked.post("/sign-in", data={"token": TOKEN, "next": "/jobs"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs")
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert locked.get("/jobs").status_code == 200
    locked.cookies.clear()
    locked.cookies.set(COOKIE, "forged")
    assert locked.get("/jobs").status_code == 401


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb"]
)
def test_signing_in_leads_nowhere_else(locked: TestClient, target: str) -> None:
    answer = locked.post("/sign-in", data={"token": TOKEN, "next": target})
    assert answer.headers["location"] == "/"


def test_a_proxy_that_signs_people_in() -> None:
    with browser(host="0.0.0.0", user_header="X-User", allowed_hosts=("maps.example",)) as found:
        host = {"host": "maps.example"}
        assert found.get("/", headers=host).status_code == 401
        assert found.get("/", headers={**host, "x-user": "ada"}).status_code == 200


def test_large_requests_are_refused(open_server: TestClient) -> None:
    body = {"saes": ["x" * 200] * 20_000}
    assert open_server.post("/api/sae/analyze_features", json=body).status_code == 413


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/api/sae/analyze_features", "application/json"), ("/train", "application/x-www-form-urlencoded")],
)
def test_large_requests_without_a_length_are_refused_alike(open_server: TestClient, path: str, kind: str) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"saes": ["' if kind.endswith("json") else b"name="
        for _ in range(30):
            yield b"x" * 100_000

    answer = open_server.post(path, content=parts(), headers={"content-type": kind})
    declared = open_server.post(path, content=b"".join(parts()), headers={"content-type": kind})
    assert "content-length" not in answer.request.headers
    assert (answer.status_code, declared.status_code) == (413, 413)
    assert answer.json() == declared.json()
    assert answer.json()["error"]["code"] == "too_large"
    assert "2,000,000 bytes" in answer.json()["error"]["message"]


def test_a_length_that_is_no_number_is_refused(open_server: TestClient) -> None:
    answer = open_server.post("/api/sae/analyze_features", content=b"{}", headers={"content-length": "many"})
    assert answer.status_code == 400


def test_no_page_runs_what_is_not_ours(open_server: TestClient) -> None:
    for path in ("/", "/train", "/nothing-here"):
        answer = open_server.get(path, headers={"accept": "text/html"})
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "SAMEORIGIN"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert " onclick" not in answer.text
        assert " style=" not in answer.text
        assert "<script>" not in answer.text


@pytest.mark.parametrize(
    "path",
    ["/?embed=1", "/train?embed=1", "/jobs?embed=1", "/sae/first/-/analyze?embed=1", "/sae/first/-/feature/3?x=embed=1",
     "/sae/first/-/steer?embed=1", "/sae/first/-/feature/3/effects?embed=1", "/sign-in?embed=1"],
)  # fmt: skip
def test_only_a_features_page_may_stand_in_a_frame_of_others(client: TestClient, path: str) -> None:
    """A frame of another site over a page with a form would make clicks there start and stop jobs."""
    headers = client.get(path, headers={"accept": "text/html"}).headers
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "SAMEORIGIN"


def test_a_features_page_may_and_holds_no_form(client: TestClient) -> None:
    answer = client.get("/sae/first/-/feature/3?embed=1")
    assert "frame-ancestors *" in answer.headers["content-security-policy"]
    assert "x-frame-options" not in answer.headers
    assert "<form" not in answer.text.replace('<form method="dialog"', "")


def test_tokens_cannot_be_tried_without_end(locked: TestClient) -> None:
    answers = [locked.post("/sign-in", data={"token": f"guess-{number}"}).status_code for number in range(25)]
    assert answers[:20] == [401] * 20
    assert answers[20:] == [429] * 5


def test_the_head_of_a_page_alone(open_server: TestClient) -> None:
    whole, head = open_server.get("/"), open_server.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == whole.headers["etag"]


def test_the_model_is_not_asked_without_limit(library: Path) -> None:
    del library
    with browser(inferences_per_minute=2) as found:
        for _ in range(2):
            assert found.post("/api/sae/text", json={"sae": "missing", "text": "a"}).status_code == 404
        answer = found.post("/api/sae/text", json={"sae": "missing", "text": "a"})
        assert answer.status_code == 429
        assert answer.headers["retry-after"]


def test_faults_are_not_shown(open_server: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is none of ours: a number for the log, no trace, no path."""

    def broken(self: object) -> None:
        raise RuntimeError("secret detail in /some/place")

    monkeypatch.setattr("neuronmap.web.explorer.Explorer.entries", broken)
    found = TestClient(open_server.app, base_url="http://localhost", raise_server_exceptions=False)
    for accept in ("text/html", "application/json"):
        answer = found.get("/", headers={"accept": accept})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        assert "log has the details" in answer.text
