"""Pages of a zoo with accounts, in a browser without scripts: sign in, tokens, stars and comments."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tests.unit.web.zoo.conftest import Browser, Served

from neuronmap.web.zoo import COOKIE
from neuronmap.zoo.people.principal import LOCAL

PASSWORD = "four words nobody guesses"
OWN = {"origin": "http://localhost", "accept": "text/html"}


@pytest.fixture(scope="module")
def served(serving: Callable[..., Served]) -> Served:
    made = serving()
    made.people.accounts.set_password(LOCAL, "ada", PASSWORD)
    return made


def reader(served: Served, name: str | None = None) -> Browser:
    """A browser that goes where it is sent, signed in or not."""
    browser = served.browser()
    browser.follow_redirects = True
    browser.headers.update(OWN)
    if name is not None:
        browser.cookies.set(COOKIE, served.session(name), domain="localhost.local", path="/")
    return browser


@pytest.fixture
def ada(served: Served) -> Browser:
    return reader(served, "ada")


def test_the_first_page_is_the_zoo_and_strangers_are_asked_to_sign_in(served: Served) -> None:
    answer = reader(served).get("/")
    assert answer.status_code == 401
    assert answer.url.path == "/zoo"
    assert 'href="/sign-in?next=/zoo"' in answer.text
    assert "All SAEs" not in answer.text


def test_signing_in_and_out(served: Served) -> None:
    browser = reader(served)
    wrong = browser.post("/sign-in", data={"name": "ada", "password": "wrong password", "next": "/zoo/ada"})
    assert wrong.status_code == 401
    assert "password is wrong" in wrong.text
    assert 'value="ada"' in wrong.text
    done = browser.post("/sign-in", data={"name": "ada", "password": PASSWORD, "next": "/account"})
    assert done.url.path == "/account"
    assert "Sign out" in done.text
    assert "HttpOnly" in done.history[0].headers["set-cookie"]
    assert browser.post("/sign-out").url.path == "/sign-in"
    assert browser.get("/account").status_code == 401


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_signing_in_never_leads_elsewhere(served: Served, elsewhere: str) -> None:
    values = {"name": "ada", "password": PASSWORD, "next": elsewhere}
    done = reader(served).post("/sign-in", data=values, follow_redirects=False)
    assert done.headers["location"] == "/zoo"


def test_a_token_is_shown_once_and_can_be_revoked(served: Served, ada: Browser) -> None:
    made = ada.post("/account/tokens", data={"title": "laptop", "scope": ["read", "write"], "days": "7"})
    [secret] = re.findall(r"nmz_[A-Za-z0-9_-]{20,}", made.text)
    assert made.headers["cache-control"] == "no-store"
    assert secret not in ada.get("/account").text
    program = served.browser()
    program.headers["authorization"] = f"Bearer {secret}"
    assert program.get("/api/zoo/me").json()["scopes"] == ["read", "write"]
    number = re.search(
        r"/account/tokens/(\d+)/revoke\"><button class=\"danger small\" aria-label=\"Revoke laptop", made.text
    )
    assert number is not None
    assert ada.post(f"/account/tokens/{number[1]}/revoke").url.path == "/account"
    assert program.get("/api/zoo/me").status_code == 401


def test_a_token_without_scopes_is_refused(ada: Browser) -> None:
    answer = ada.post("/account/tokens", data={"title": "none", "days": "7"})
    assert answer.status_code == 422
    assert "needs one of the scopes" in answer.text


def test_stars_and_comments(served: Served, ada: Browser) -> None:
    served.browser("ada").publish(name="liked")
    assert "Give a star" in ada.get("/zoo/ada/liked").text
    assert "Take the star back" in ada.post("/zoo/ada/liked/star", data={"on": "true"}).text
    said = ada.post(
        "/zoo/ada/liked/comments", data={"text": "**bold** <script>alert(1)</script> [x](javascript:alert(1))"}
    )
    assert "<strong>bold</strong>" in said.text
    assert "<script>alert" not in said.text
    assert 'href="javascript' not in said.text
    [number] = re.findall(r"/comments/(\d+)/remove", said.text)
    assert "None yet" in ada.post(f"/zoo/ada/liked/comments/{number}/remove").text


def test_another_sites_form_changes_nothing(served: Served, ada: Browser) -> None:
    served.browser("ada").publish(name="steady")
    forged = ada.post("/zoo/ada/steady/star", data={"on": "true"}, headers={"origin": "https://evil.example"})
    assert forged.status_code == 403
    assert "Give a star" in ada.get("/zoo/ada/steady").text


def test_pages_of_a_private_artefact_are_not_there_for_others(served: Served, ada: Browser) -> None:
    served.browser("ada").publish(name="secret", query="?private=true")
    assert ada.get("/zoo/ada/secret").status_code == 200
    eve = reader(served, "eve")
    missing, hidden = (eve.get(f"/zoo/ada/{name}") for name in ("no-such", "secret"))
    assert (missing.status_code, hidden.status_code) == (404, 404)
    assert hidden.text.replace("secret", "no-such") == missing.text
    assert "secret" not in eve.get("/zoo").text
