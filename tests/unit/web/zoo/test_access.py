"""Every route says what it needs, and no token can do more than it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from fastapi.routing import APIRoute
from tests.unit.web.zoo.conftest import Browser, Served

from neuronmap.web.zoo import api
from neuronmap.web.zoo.access import Rule, rule_of

NAMES = "administering changing community elsewhere files health people publishing reading searching"
MODULES = [import_module(f"{api.__name__}.{name}") for name in NAMES.split()]
OPEN = {
    ("GET", "/api/zoo"), ("GET", "/health"), ("POST", "/api/zoo/sign-in"), ("POST", "/api/zoo/sign-out"), ("POST", "/api/zoo/setup"),
    ("GET", "/api/zoo/schemas"), ("GET", "/api/zoo/schemas/{name}"), ("GET", "/api/zoo/oidc/start"), ("GET", "/api/zoo/oidc/callback"),
}  # fmt: skip
VALUES = {
    "namespace": "lab", "name": "secret", "version": "1.0", "path": "a.txt", "key": "0" * 32, "digest": f"sha256:{'0' * 64}",
    "alias": "best", "user": "bob", "token": "1", "comment": "1",
}  # fmt: skip


def routes() -> Iterator[tuple[str, str, Rule]]:
    """Method, path and rule of all."""
    for module in MODULES:
        for route in module.router.routes:
            assert isinstance(route, APIRoute)
            for method in route.methods:
                yield method, route.path, rule_of(route)


def address(path: str) -> str:
    """Of something that exists where it can."""
    return re.sub(r"\{(\w+)(?::path)?\}", lambda found: "manifest" if "/schemas/" in path else VALUES[found[1]], path)


ALL = sorted(routes())


def test_the_served_application_has_these_routes_and_no_others(zoo: Served) -> None:
    found = {
        (method.upper(), path)
        for path, methods in zoo.app.state.zoo.app.openapi()["paths"].items()
        for method in methods
    }
    assert found == {(method, path.replace(":path}", "}")) for method, path, _ in ALL}
    assert len(found) > 55


def test_only_a_few_are_open() -> None:
    assert {(method, path) for method, path, rule in ALL if rule.scope == "open"} == OPEN


def test_what_changes_something_is_no_reading() -> None:
    reading_posts = {"/api/zoo/publications/{key}/missing"}
    for method, path, rule in ALL:
        if rule.scope in ("read", "known"):
            assert method == "GET", path
        elif method == "GET" and rule.scope == "write":
            assert "publications" in path
    assert reading_posts <= {path for _, path, rule in ALL if rule.scope == "write"}


def test_every_route_documents_its_statuses(zoo: Served) -> None:
    for path, methods in zoo.app.state.zoo.app.openapi()["paths"].items():
        for method, route in methods.items():
            answers = set(route["responses"])
            assert {"400", "413", "421", "422", "429"} <= answers, (method, path)
            assert route["x-zoo-scope"] == "open" or {"401", "403"} <= answers, (method, path)


@pytest.fixture(scope="module")
def with_secret(zoo: Served) -> Served:
    """The server with a private artefact of lab's, and a public one."""
    zoo.browser("ada").publish(namespace="lab", name="secret", query="?private=true")
    zoo.browser("ada").publish(namespace="lab", name="open")
    return zoo


@pytest.mark.parametrize(("method", "path", "rule"), ALL)
def test_strangers_get_nothing(with_secret: Served, method: str, path: str, rule: Rule) -> None:
    """A server that lets nobody read without account: 401, whatever is sent, even what is no JSON."""
    nobody = with_secret.browser()
    if rule.scope == "open":
        return
    for body in (b"", b"{}", b"\xff no json"):
        answer = nobody.request(method, address(path), content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 401, answer.text
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "secret" not in answer.text


@pytest.fixture(scope="module")
def public(serving: Callable[..., Served]) -> Served:
    """A server on which everybody may read what is public."""
    made = serving(anonymous_read=True)
    made.browser("ada").publish(namespace="lab", name="secret", query="?private=true")
    made.browser("ada").publish(b"another", namespace="lab", name="open")
    return made


@pytest.mark.parametrize(("method", "path", "rule"), ALL)
def test_strangers_may_read_what_is_public_and_nothing_else(public: Served, method: str, path: str, rule: Rule) -> None:
    nobody = public.browser()
    if rule.scope == "open":
        return
    answer = nobody.request(method, address(path), content=b"{}", headers={"content-type": "application/json"})
    if rule.scope != "read":
        assert answer.status_code == 401, answer.text
        return
    assert answer.status_code in (200, 404, 422), answer.text
    assert answer.status_code == 404 or "secret" not in answer.text
    if "{name}" in path and "schemas" not in path and "collections" not in path:
        hidden = answer
        assert hidden.status_code == 404
        there = nobody.request(method, address(path).replace("secret", "open"))
        assert there.status_code == 200, there.text


def request(browser: Browser, method: str, path: str) -> Any:
    return browser.request(method, address(path), content=b"{}", headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("method", "path", "rule"), [one for one in ALL if one[2].scope in ("write", "admin", "server")]
)
def test_a_token_for_reading_changes_nothing(with_secret: Served, method: str, path: str, rule: Rule) -> None:
    """Although it is the administrator's."""
    answer = request(_kept(with_secret, "read"), method, path)
    assert answer.status_code == 403
    assert "scope" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path", "rule"), [one for one in ALL if one[2].scope in ("admin", "server")])
def test_a_token_for_writing_governs_nothing(with_secret: Served, method: str, path: str, rule: Rule) -> None:
    assert request(_kept(with_secret, "write"), method, path).status_code == 403


@pytest.mark.parametrize(("method", "path", "rule"), [one for one in ALL if one[2].scope == "server"])
def test_who_does_not_run_the_server_cannot_do_what_its_administrators_do(
    with_secret: Served, method: str, path: str, rule: Rule
) -> None:
    assert request(_kept(with_secret, "admin", "eve"), method, path).status_code == 403
    bound = _kept(with_secret, "admin", "ada", "lab")
    assert request(bound, method, path).status_code == 403  # the administrator's own, but for one namespace


_KEPT: dict[Any, Browser] = {}


def _kept(served: Served, scope: str, name: str = "ada", namespace: str | None = None) -> Browser:
    """One browser a token: making them is most of the time."""
    key = (id(served), scope, name, namespace)
    if key not in _KEPT:
        _KEPT[key] = served.browser(name, scope, namespace=namespace)
    return _KEPT[key]
