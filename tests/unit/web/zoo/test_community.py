"""Stars, comments, collections, organisations and the audit log over HTTP."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.unit.web.zoo.conftest import Browser, Served

HERE = "/api/zoo/artefacts/lab/talked-about"


@pytest.fixture(scope="module")
def ada(zoo: Served) -> Browser:
    browser = zoo.browser("ada")
    browser.publish(namespace="lab", name="talked-about")
    browser.publish(b"hidden", namespace="lab", name="not-for-eve", query="?private=true")
    return browser


@pytest.fixture(scope="module")
def eve(zoo: Served, ada: Browser) -> Browser:
    return zoo.browser("eve", "write")


@pytest.fixture(scope="module")
def bob(zoo: Served, ada: Browser) -> Browser:
    return zoo.browser("bob", "write")


def test_stars_are_counted_once(ada: Browser, bob: Browser, eve: Browser) -> None:
    for _ in range(2):
        assert eve.put(f"{HERE}/star").json() == {"stars": 1, "starred": True}
    assert bob.get(f"{HERE}/star").json() == {"stars": 1, "starred": False}
    assert bob.put(f"{HERE}/star").json()["stars"] == 2
    assert ada.get(HERE).json()["stars"] == 2
    assert eve.delete(f"{HERE}/star").json() == {"stars": 1, "starred": False}
    assert eve.delete(f"{HERE}/star").json()["stars"] == 1
    assert eve.put("/api/zoo/artefacts/lab/not-for-eve/star").status_code == 404


def test_comments_are_shown_safely(eve: Browser) -> None:
    text = "**good**, <script>alert(1)</script> [here](javascript:alert(1)) [there](https://example.org) ![x](http://a/b.png)\n\n# Large"
    made = eve.post(f"{HERE}/comments", json={"text": text, "version": "1.0"}).json()
    assert (made["author"], made["version"], made["text"]) == ("eve", "1.0", text)
    html = made["html"]
    assert "<strong>good</strong>" in html
    assert "<script" not in html
    assert "javascript:" not in html.replace("(javascript:alert(1))", "")
    assert "<img" not in html
    assert '<a href="https://example.org" rel="nofollow noopener">there</a>' in html
    assert "<h1" not in html
    assert eve.post(f"{HERE}/comments", json={"text": "   "}).status_code == 422
    assert eve.post(f"{HERE}/comments", json={"text": "x" * 10_001}).status_code == 422
    assert eve.post(f"{HERE}/comments", json={"text": "x", "version": "9.9"}).status_code == 404
    assert eve.post("/api/zoo/artefacts/lab/not-for-eve/comments", json={"text": "x"}).status_code == 404


def test_comments_are_deleted_by_authors_and_owners(ada: Browser, bob: Browser, eve: Browser, zoo: Served) -> None:
    first, second = (eve.post(f"{HERE}/comments", json={"text": f"number {number}"}).json()["id"] for number in (1, 2))
    assert bob.delete(f"/api/zoo/comments/{first}").status_code == 403  # a reader of the organisation
    assert eve.delete(f"/api/zoo/comments/{first}").status_code == 204
    assert eve.delete(f"/api/zoo/comments/{first}").status_code == 404
    assert ada.delete(f"/api/zoo/comments/{second}").status_code == 204
    assert "number" not in ada.get(f"{HERE}/comments").text
    hidden = bob.post("/api/zoo/artefacts/lab/not-for-eve/comments", json={"text": "for us"}).json()["id"]
    assert eve.delete(f"/api/zoo/comments/{hidden}").status_code == 404


def test_comments_come_in_pages(eve: Browser) -> None:
    numbers = [eve.post(f"{HERE}/comments", json={"text": f"page {number}"}).json()["id"] for number in range(3)]
    first = eve.get(f"{HERE}/comments", params={"limit": 2}).json()
    assert [one["id"] for one in first["comments"]] == numbers[:0:-1]
    second = eve.get(f"{HERE}/comments", params={"limit": 2, "before": first["next"]}).json()
    assert second["comments"][0]["id"] == numbers[0]


def test_collections_keep_their_order_and_hide_what_is_hidden(ada: Browser, bob: Browser, eve: Browser) -> None:
    items = [{"artefact": "lab/not-for-eve", "note": "ours"}, {"artefact": "lab/talked-about", "note": "first"}]
    body = {"namespace": "bob", "name": "best", "title": "The best", "description": "*Mine*", "items": items}
    made = bob.post("/api/zoo/collections", json=body)
    assert (made.status_code, made.json()["items"], made.json()["html"]) == (201, items, "<p><em>Mine</em></p>\n")
    assert bob.post("/api/zoo/collections", json=body).status_code == 409
    assert eve.get("/api/zoo/collections/bob/best").json()["items"] == items[1:]
    assert [one["items"] for one in eve.get("/api/zoo/collections?namespace=bob").json()["collections"]] == [1]
    theirs = {**body, "namespace": "eve"}
    assert eve.post("/api/zoo/collections", json=theirs).status_code == 404  # it would tell that it is there
    assert eve.put("/api/zoo/collections/bob/best", json={"title": "x"}).status_code == 403
    turned = bob.put("/api/zoo/collections/bob/best", json={"title": "Turned", "items": items[::-1]}).json()
    assert (turned["title"], turned["items"]) == ("Turned", items[::-1])
    twice = bob.put("/api/zoo/collections/bob/best", json={"items": items[:1] * 2})
    assert twice.status_code == 422
    assert eve.delete("/api/zoo/collections/bob/best").status_code == 403
    assert bob.delete("/api/zoo/collections/bob/best").status_code == 204
    assert bob.get("/api/zoo/collections/bob/best").status_code == 404


def test_organisations(ada: Browser, zoo: Served) -> None:
    eve = zoo.browser("eve", "admin")
    made = eve.post("/api/zoo/namespaces", json={"name": "eves-lab", "title": "Eve's lab"})
    assert (made.status_code, made.json()["role"], made.json()["kind"]) == (201, "owner", "organisation")
    assert eve.post("/api/zoo/namespaces", json={"name": "eves-lab"}).status_code == 409
    assert eve.post("/api/zoo/namespaces", json={"name": "admin"}).status_code == 422  # reserved
    member = "/api/zoo/namespaces/eves-lab/members"
    assert eve.put(f"{member}/bob", json={"role": "writer"}).status_code == 200
    assert eve.put(f"{member}/nobody", json={"role": "writer"}).status_code == 404
    bob = zoo.browser("bob", "admin")
    shown = bob.get("/api/zoo/namespaces/eves-lab").json()
    assert shown["members"] == [{"user": "bob", "role": "writer"}, {"user": "eve", "role": "owner"}]
    assert bob.put(f"{member}/bob", json={"role": "owner"}).status_code == 403
    for body in ({"role": "writer"}, {"role": "reader"}):
        assert eve.put(f"{member}/eve", json=body).status_code == 403  # the last owner
    assert eve.delete(f"{member}/eve").status_code == 403
    assert eve.put(f"{member}/bob", json={"role": "owner"}).status_code == 200
    assert eve.delete(f"{member}/eve").status_code == 204
    assert eve.get("/api/zoo/namespaces/eves-lab").json()["members"] is None
    assert eve.get("/api/zoo/namespaces/eves-lab").json()["quota_bytes"] is None
    assert bob.delete("/api/zoo/namespaces/bob/members/bob").status_code == 403  # one's own


def test_organisations_are_not_made_without_end(serving: Callable[..., Served]) -> None:
    """Each has a quota of its own."""
    served = serving(most_organisations=1)
    eve, ada = served.browser("eve", "admin"), served.browser("ada", "admin")
    for browser, statuses in ((eve, [201, 403]), (ada, [201, 201])):
        names = [f"{browser.get('/api/zoo/me').json()['name']}-group-{number}" for number in (1, 2)]
        found = [browser.post("/api/zoo/namespaces", json={"name": name}).status_code for name in names]
        assert found == statuses


def test_the_audit_log(ada: Browser, zoo: Served) -> None:
    everything = ada.get("/api/zoo/audit", params={"limit": 200}).json()["lines"]
    assert {"user", "namespace", "member", "publish", "token"} <= {line["action"] for line in everything}
    found = ada.get("/api/zoo/audit", params={"namespace": "lab", "action": "publish"}).json()["lines"]
    assert {(line["who"], line["target"]) for line in found} >= {("ada", "lab/talked-about@1.0")}
    first = ada.get("/api/zoo/audit", params={"limit": 1}).json()
    after = ada.get("/api/zoo/audit", params={"limit": 1, "before": first["next"]}).json()
    assert after["lines"][0]["id"] < first["lines"][0]["id"]
    eve = zoo.browser("eve", "admin")
    assert all(
        line["target"].split("/")[0] in ("eve", "eves-lab") for line in eve.get("/api/zoo/audit").json()["lines"]
    )
    assert eve.get("/api/zoo/audit", params={"namespace": "lab"}).status_code == 403


def test_administration(ada: Browser, zoo: Served) -> None:
    made = ada.post("/api/zoo/users", json={"name": "joe", "email": "joe@example.org"})
    assert (made.status_code, made.json()["disabled"]) == (201, False)
    for name in ("joe", "lab", "admin", "Joe", "j"):
        assert ada.post("/api/zoo/users", json={"name": name}).status_code in (409, 422)
    joe = zoo.browser("joe")
    assert joe.get("/api/zoo/me").status_code == 200
    assert ada.patch("/api/zoo/users/joe", json={"disabled": True}).json()["disabled"]
    assert joe.get("/api/zoo/me").status_code == 401
    assert (
        ada.patch("/api/zoo/users/joe", json={"disabled": False, "email": "joe@example.com"}).json()["email"]
        == "joe@example.com"
    )
    assert joe.get("/api/zoo/me").status_code == 200
    assert ada.patch("/api/zoo/users/ada", json={"disabled": True}).status_code == 403
    assert ada.patch("/api/zoo/users/ada", json={"is_admin": False}).status_code == 403
    assert "joe" in [one["name"] for one in ada.get("/api/zoo/users").json()["users"]]
    collected = ada.post("/api/zoo/gc", json={}).json()
    assert collected["dry_run"]
    assert ada.post("/api/zoo/gc", json={"grace": 0}).status_code == 422  # somebody may be publishing
    verified = ada.post("/api/zoo/verify", json={"limit": 5}).json()
    assert verified["checked"] >= 2
    assert verified["damaged"] == verified["missing"] == []
