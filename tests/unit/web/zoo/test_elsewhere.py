"""Signing in through an identity provider, over HTTP: from the start to a session, and what the browser is left with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from tests.unit.web.zoo.conftest import Browser, Served
from tests.unit.zoo.people.provider import CLIENT, SECRET, SmallProvider, small_provider

from neuronmap.web.zoo.context import COOKIE
from neuronmap.web.zoo.settings import OIDC_SECRET_VARIABLE

START, BACK = "/api/zoo/oidc/start", "/api/zoo/oidc/callback"


@pytest.fixture(scope="module")
def small() -> Iterator[SmallProvider]:
    with small_provider() as found:
        yield found


@pytest.fixture(scope="module")
def make(serving: Callable[..., Served], small: SmallProvider) -> Callable[..., Served]:
    def made(**settings: Any) -> Served:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(OIDC_SECRET_VARIABLE, SECRET)
            return serving(address="http://localhost:8770", oidc_issuer=small.issuer, oidc_client_id=CLIENT, **settings)

    return made


@pytest.fixture(scope="module")
def served(make: Callable[..., Served]) -> Served:
    return make()


def back_from(location: str) -> str:
    """The provider lets the browser in; path and query with which it comes back to us."""
    there = httpx2.get(location).headers["location"]
    assert there.startswith(f"http://localhost:8770{BACK}?")
    return there.removeprefix("http://localhost:8770")


def test_from_the_start_to_a_session(served: Served, small: SmallProvider) -> None:
    browser = served.browser()
    begun = browser.get(START, params={"next": "/zoo/ada/demo"})
    assert begun.status_code == 303
    cookie = begun.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "max-age=600" in cookie
    query = parse_qs(urlsplit(begun.headers["location"]).query)
    assert query["redirect_uri"] == [f"http://localhost:8770{BACK}"]
    done = browser.get(back_from(begun.headers["location"]))  # with parameters of the provider's own: session_state
    assert (done.status_code, done.headers["location"]) == (303, "/zoo/ada/demo")
    assert browser.get("/api/zoo/me").json()["name"] == "grace"
    assert "neuronmap_zoo_oidc" not in browser.cookies  # used up
    assert SECRET not in str(done.headers)
    assert "oidc" in browser.get("/api/zoo").json()["features"]
    again = browser.get(START)
    assert browser.get(back_from(again.headers["location"])).headers["location"] == "/"
    assert [user.name for user in served.people.accounts.list(served.principal("ada"))].count("grace") == 1


def test_another_browser_cannot_finish(served: Served) -> None:
    """Nor can one that a stranger gives a link to come back with."""
    begun = served.browser().get(START)
    other = served.browser()
    path = back_from(begun.headers["location"])
    assert other.get(path).status_code == 401
    other.get(START)
    assert other.get(path).status_code == 401
    assert COOKIE not in other.cookies


@pytest.mark.parametrize(
    "path", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a b", "/a%0d%0ab"]
)
def test_it_leads_nowhere_else(served: Served, path: str) -> None:
    answer = served.browser().get(f"{START}?next={path}")
    assert answer.status_code == 422
    browser = served.browser()
    begun = browser.get(START)
    import base64

    kept = browser.cookies["neuronmap_zoo_oidc"].partition(".")[0]
    changed = base64.urlsafe_b64encode(path.encode()).decode().rstrip("=")
    browser.cookies.clear()
    headers = {"cookie": f"neuronmap_zoo_oidc={kept}.{changed}"}
    assert (
        browser.get(back_from(begun.headers["location"]), headers=headers).headers["location"] == "/" or "%0d" in path
    )


def test_the_provider_says_no(served: Served, small: SmallProvider) -> None:
    browser = served.browser()
    small.fault = "denied"
    begun = browser.get(START)
    answer = browser.get(back_from(begun.headers["location"]))
    small.fault = ""
    assert (answer.status_code, "access_denied" in answer.json()["error"]["message"]) == (403, True)


def test_accounts_are_made_only_where_that_is_allowed(make: Callable[..., Served], small: SmallProvider) -> None:
    served = make(oidc_sign_up=False)
    browser = served.browser()
    assert browser.get(back_from(browser.get(START).headers["location"])).status_code == 403
    linked = served.browser("ada").patch("/api/zoo/users/eve", json={"subject": f"{small.issuer} 7"})
    assert linked.json()["elsewhere"]
    assert browser.get(back_from(browser.get(START).headers["location"])).status_code == 303
    assert browser.get("/api/zoo/me").json()["name"] == "eve"


def test_a_zoo_without_a_provider(zoo: Served) -> None:
    assert zoo.browser().get(START).status_code == 404
    assert isinstance(zoo.browser(), Browser)
