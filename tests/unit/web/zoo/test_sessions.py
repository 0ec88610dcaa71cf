"""Signing in with a password, what the cookie is and is not good for, and what stands before every request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from tests.unit.web.zoo.conftest import PLENTY, Browser, Served

from neuronmap.errors import ConfigError, ResourceError
from neuronmap.web.zoo.context import COOKIE
from neuronmap.web.zoo.server import create_zoo_app
from neuronmap.web.zoo.settings import ZooServerSettings
from neuronmap.zoo.blobs import LocalBlobStore, StoredObject
from neuronmap.zoo.people.principal import LOCAL

PASSWORD = "four words nobody guesses"
OWN = {"origin": "http://localhost"}


@pytest.fixture(scope="module")
def served(serving: Callable[..., Served]) -> Served:
    """With a password for ada."""
    made = serving()
    made.people.accounts.set_password(LOCAL, "ada", PASSWORD)
    return made


def sign_in(browser: Browser, password: str = PASSWORD, name: str = "ada", **headers: str) -> Any:
    return browser.post("/api/zoo/sign-in", json={"name": name, "password": password}, headers=headers)


@pytest.fixture
def signed_in(served: Served) -> Browser:
    browser = served.browser()
    browser.cookies.set(COOKIE, served.session("ada"), domain="localhost.local", path="/")
    return browser


def test_signing_in_sets_a_cookie_that_scripts_cannot_read(served: Served) -> None:
    browser = served.browser()
    answer = sign_in(browser)
    assert answer.json()["name"] == "ada"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie
    assert "secure" not in cookie  # over plain http it would not come back
    assert PASSWORD not in cookie
    assert answer.headers["cache-control"] == "no-store"
    assert browser.get("/api/zoo/me").json()["scopes"] == ["admin", "read", "write"]
    https = Browser(served.app, base_url="https://localhost")
    assert "; secure" in sign_in(https).headers["set-cookie"].lower()


def test_a_wrong_password_and_no_account_are_answered_alike(served: Served) -> None:
    browser = served.browser()
    answers = [
        sign_in(browser, "four words nobody guessed"),
        sign_in(browser, name="nobody"),
        sign_in(browser, name="bob"),
    ]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert len({answer.text for answer in answers}) == 1
    assert COOKIE not in browser.cookies


def test_signing_out_ends_the_session_everywhere(signed_in: Browser) -> None:
    secret = signed_in.cookies[COOKIE]
    assert signed_in.post("/api/zoo/sign-out", headers=OWN).status_code == 204
    assert COOKIE not in signed_in.cookies
    signed_in.cookies.set(COOKIE, secret)
    assert signed_in.get("/api/zoo/me").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:9999"}, 403),
        ({"origin": "http://localhost", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://localhost", "sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://localhost"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_a_cookie_changes_nothing_for_other_sites(
    served: Served, signed_in: Browser, headers: dict[str, str], status: int
) -> None:
    answer = signed_in.put("/api/zoo/namespaces/bob/quota", json={"bytes": None}, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "cross_origin"
    assert signed_in.get("/api/zoo/me").status_code == 200  # reading is no change


def test_no_site_signs_a_browser_in_or_out(served: Served, signed_in: Browser) -> None:
    """Signing somebody in as another, so that they publish into the wrong account."""
    for browser in (served.browser(), signed_in):
        assert sign_in(browser, origin="http://evil.example").status_code == 403
    assert signed_in.post("/api/zoo/sign-out", headers={"origin": "http://evil.example"}).status_code == 403


def test_a_token_needs_no_origin_and_is_no_cookie(served: Served) -> None:
    ada = served.browser("ada")
    assert ada.put("/api/zoo/namespaces/bob/quota", json={"bytes": None}).status_code == 200
    browser = served.browser()
    browser.cookies.set(COOKIE, served.token("ada"))
    assert browser.get("/api/zoo/me").status_code == 401
    assert sign_in(served.browser()).status_code == 200
    session = served.browser()
    sign_in(session)
    bearer = {"authorization": f"Bearer {session.cookies[COOKIE]}"}
    assert served.browser().get("/api/zoo/me", headers=bearer).status_code == 401


@pytest.mark.parametrize(
    "value",
    ["Bearer", "Bearer ", "Bearer nmz_", f"Bearer nmz_{'A' * 43}", "Basic YWRhOmFkYQ==", f"Bearer nmz_{'A' * 4300}"],
)
def test_other_headers_are_nobodys(served: Served, value: str) -> None:
    answer = served.browser().get("/api/zoo/me", headers={"authorization": value})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_tokens_over_http(served: Served) -> None:
    ada = served.browser("ada", "admin", "write")
    made = ada.post("/api/zoo/tokens", json={"title": "cluster", "scopes": ["write"], "namespace": "lab"})
    assert made.headers["cache-control"] == "no-store"
    token = made.json()
    assert (token["scopes"], token["namespace"]) == (["read", "write"], "lab")
    assert token["token"].startswith("nmz_")
    assert token["shown"] == token["token"][:8]
    listed = ada.get("/api/zoo/tokens")
    assert token["token"] not in listed.text
    assert token["id"] in [one["id"] for one in listed.json()["tokens"]]
    new = Browser(served.app, base_url="http://localhost", headers={"authorization": f"Bearer {token['token']}"})
    me = new.get("/api/zoo/me").json()
    assert (me["only_namespace"], [one["namespace"] for one in me["namespaces"]]) == ("lab", ["lab"])
    assert new.post("/api/zoo/tokens", json={"title": "more", "scopes": ["admin"]}).status_code == 403
    assert ada.delete(f"/api/zoo/tokens/{token['id']}").status_code == 204
    assert new.get("/api/zoo/me").status_code == 401
    assert served.browser("eve").delete(f"/api/zoo/tokens/{token['id']}").status_code == 404


def test_changing_the_password_ends_all_sessions(serving: Callable[..., Served]) -> None:
    served = serving()
    served.people.accounts.set_password(LOCAL, "ada", PASSWORD)
    first, second = served.browser(), served.browser()
    for browser in (first, second):
        assert sign_in(browser).status_code == 200
    wrong = first.put("/api/zoo/me/password", json={"old": "x" * 12, "new": "another four words"}, headers=OWN)
    assert wrong.status_code == 401
    short = first.put("/api/zoo/me/password", json={"old": PASSWORD, "new": "short"}, headers=OWN)
    assert short.status_code == 422
    done = first.put("/api/zoo/me/password", json={"old": PASSWORD, "new": "another four words"}, headers=OWN)
    assert done.status_code == 204
    assert (first.get("/api/zoo/me").status_code, second.get("/api/zoo/me").status_code) == (401, 401)
    assert sign_in(first, **OWN).status_code == 401
    assert sign_in(first, "another four words", **OWN).status_code == 200


def test_passwords_cannot_be_tried_without_end(serving: Callable[..., Served]) -> None:
    served = serving()
    served.people.accounts.set_password(LOCAL, "ada", PASSWORD)
    browser = served.browser()
    answers = [sign_in(browser, f"wrong password {number}").status_code for number in range(12)]
    assert answers == [401] * 10 + [429] * 2
    last = sign_in(browser)
    assert (last.status_code, last.json()["error"]["code"]) == (429, "too_many_requests")  # even the right one
    assert last.headers["retry-after"]


def test_each_kind_of_request_has_its_limit(serving: Callable[..., Served]) -> None:
    served = serving(**{**PLENTY, "reads_per_minute": 5, "sign_ins_per_minute": 2})
    eve, bob = served.browser("eve", "read"), served.browser("bob", "read")
    assert [eve.get("/api/zoo/me").status_code for _ in range(6)] == [200] * 5 + [429]
    assert bob.get("/api/zoo/me").status_code == 200  # counted by account
    assert eve.get("/api/zoo/search").status_code == 200
    browser = served.browser()
    assert [sign_in(browser, name="nobody").status_code for _ in range(3)] == [401, 401, 429]


def test_behind_a_proxy_addresses_are_counted_apart(serving: Callable[..., Served]) -> None:
    """What a stranger writes in the header himself is not believed."""
    limits = {**PLENTY, "sign_ins_per_minute": 2}
    behind, open_ = serving(**limits, proxies=("testclient", "192.0.2.9")), serving(**limits)
    statuses = {
        name: [
            sign_in(
                served.browser(), name="nobody", **{"x-forwarded-for": f"203.0.113.7, {last}, 192.0.2.9"}
            ).status_code
            for last in ("198.51.100.1", "198.51.100.1", "198.51.100.1", "198.51.100.2")
        ]
        for name, served in (("behind", behind), ("open", open_))
    }
    assert statuses == {"behind": [401, 401, 429, 401], "open": [401, 401, 429, 429]}


def test_the_first_administrator(tmp_path: Any) -> None:
    settings = ZooServerSettings(folder=tmp_path, **PLENTY)
    app = create_zoo_app(settings)
    context = app.state.zoo.context
    assert not context.people.accounts.has_setup_token()
    old = context.people.accounts.new_setup_token()
    assert (
        context.people.accounts.has_setup_token()
    )  # so another server of this database says that its own takes its place
    token = context.people.accounts.new_setup_token()
    browser = Browser(app, base_url="http://localhost")
    body = {"name": "ada", "password": PASSWORD}
    for wrong in (old, "", "nmsetup_" + "A" * 43):
        assert browser.post("/api/zoo/setup", json={**body, "token": wrong}).status_code == 403
    assert browser.post("/api/zoo/setup", json={**body, "token": token, "password": "ada"}).status_code == 422
    made = browser.post("/api/zoo/setup", json={**body, "token": token})
    assert (made.status_code, made.json()["is_admin"]) == (201, True)
    again = browser.post("/api/zoo/setup", json={"name": "eve", "password": PASSWORD, "token": token})
    assert again.status_code == 403
    assert context.people.accounts.new_setup_token() is None
    assert sign_in(browser).status_code == 200
    context.close()


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "[::2]"])
def test_other_hosts_are_not_answered(served: Served, host: str) -> None:
    assert served.browser().get("/api/zoo", headers={"host": host}).status_code == 421


def test_every_answer_says_what_a_browser_may_do_with_it(served: Served) -> None:
    for path in ("/api/zoo", "/api/zoo/nothing", "/nothing", "/health"):
        headers = served.browser().get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "strict-transport-security" not in headers


def test_behind_a_proxy_that_speaks_https(serving: Callable[..., Served]) -> None:
    served = serving(address="https://zoo.example.org/models")
    assert served.settings.base_path == "/models"
    served.people.accounts.set_password(LOCAL, "ada", PASSWORD)
    browser = Browser(served.app, base_url="http://zoo.example.org")
    answer = sign_in(browser, origin="https://zoo.example.org")
    assert (answer.status_code, "; secure" in answer.headers["set-cookie"].lower()) == (200, True)
    assert answer.headers["strict-transport-security"]


def test_faults_are_not_shown(serving: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    served = serving()

    def broken(*arguments: object) -> None:
        raise RuntimeError("secret detail in /some/place")

    monkeypatch.setattr(served.context.registry, "artefact", broken)
    browser = Browser(
        served.app, base_url="http://localhost", headers=served.browser("ada").headers, raise_server_exceptions=False
    )
    with structlog.testing.capture_logs() as logged:
        answer = browser.get("/api/zoo/artefacts/ada/demo")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert [line["id"] for line in logged] == [answer.json()["error"]["id"]]
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_health_and_figures(served: Served) -> None:
    assert served.browser().get("/health").json()["status"] == "ok"
    eve = served.browser("eve", "read")
    eve.get("/api/zoo/artefacts/ada/nothing")
    figures = eve.get("/metrics")
    assert figures.headers["content-type"].startswith("text/plain")
    assert 'route="/api/zoo/artefacts/{namespace}/{name}",status="404"' in figures.text


def test_a_store_that_is_gone_is_no_good_health(
    serving: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serving()

    class Gone(LocalBlobStore):
        def list(self, prefix: str = "") -> Iterator[StoredObject]:  # as a bucket that was deleted answers
            raise ResourceError("there is no such bucket")

    monkeypatch.setattr(served.context.registry, "store", Gone(served.settings.folder))
    answer = served.browser().get("/health")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["store: ResourceError"])


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="go together"):
        ZooServerSettings(oidc_issuer="https://login.example.org")
    with pytest.raises(ConfigError, match="needs the zoo's address"):
        ZooServerSettings(oidc_issuer="https://login.example.org", oidc_client_id="zoo")
    for address in ("http://zoo.example.org", "zoo.example.org", "ftp://zoo.example.org"):
        with pytest.raises(ConfigError, match="must begin with https"):
            ZooServerSettings(address=address)
    assert ZooServerSettings(address="http://localhost:8770").hosts >= {"localhost"}
