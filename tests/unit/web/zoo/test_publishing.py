"""Publishing over HTTP: in pieces, again and again, wrong in every way; what may change afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.unit.web.zoo.conftest import Browser, Served, manifest_of

from neuronmap.zoo.digests import Digest


@pytest.fixture(scope="module")
def ada(zoo: Served) -> Browser:
    return zoo.browser("ada")


def begin(browser: Browser, size: int = 100, namespace: str = "ada") -> str:
    answer = browser.post("/api/zoo/publications", json={"namespace": namespace, "size": size})
    assert answer.status_code == 201
    key = str(answer.json()["key"])
    assert answer.headers["location"] == f"/api/zoo/publications/{key}"
    return key


def start(browser: Browser, key: str, data: bytes) -> str:
    body = {"digest": Digest.of(data), "size": len(data)}
    answer = browser.post(f"/api/zoo/publications/{key}/uploads", json=body)
    assert answer.status_code == 201, answer.text
    return f"/api/zoo/uploads/{answer.json()['key']}"


def piece(browser: Browser, upload: str, offset: int, data: Any) -> Any:
    return browser.patch(upload, content=data, headers={"Upload-Offset": str(offset)})


def manifest(browser: Browser, key: str, written: bytes, query: str = "") -> Any:
    headers = {"content-type": "application/json"}
    return browser.put(f"/api/zoo/publications/{key}/manifest{query}", content=written, headers=headers)


def test_pieces_follow_each_other_and_409_says_where_to_go_on(ada: Browser) -> None:
    data = os.urandom(3000)
    key = begin(ada, 3000)
    upload = start(ada, key, data)
    assert piece(ada, upload, 0, data[:1000]).json()["received"] == 1000
    for wrong in (0, 999, 2000):
        answer = piece(ada, upload, wrong, b"x")
        assert (answer.status_code, answer.json()["error"]["received"]) == (409, 1000)
        assert answer.json()["error"]["code"] == "upload"
    early = ada.post(f"{upload}/finish")
    assert (early.status_code, early.json()["error"]["received"]) == (409, 1000)
    assert start(ada, key, data) == upload  # the same file again is the same upload, which says how far it is
    shown = ada.get(f"/api/zoo/publications/{key}").json()
    assert [one["received"] for one in shown["uploads"]] == [1000]
    assert piece(ada, upload, 1000, data[1000:]).json()["received"] == 3000
    assert ada.post(f"{upload}/finish").json()["done"]
    assert ada.post(f"{upload}/finish").json()["done"]  # twice is once


def test_a_piece_is_taken_as_it_arrives(ada: Browser) -> None:
    """In many small parts, without a stated length."""
    data = os.urandom(2_500_000)
    upload = start(ada, begin(ada, len(data)), data)

    def parts() -> Iterator[bytes]:
        for first in range(0, len(data), 10_000):
            yield data[first : first + 10_000]

    assert piece(ada, upload, 0, parts()).json()["received"] == len(data)
    assert ada.post(f"{upload}/finish").json()["done"]


def test_more_than_was_announced_is_refused_and_nothing_of_it_kept(ada: Browser) -> None:
    upload = start(ada, begin(ada), b"0123456789")
    answer = piece(ada, upload, 0, b"0123456789x")
    assert (answer.status_code, answer.json()["error"]["received"]) == (409, 0)
    assert piece(ada, upload, 0, b"01234").json()["received"] == 5


def test_wrong_bytes_never_become_a_file(ada: Browser, zoo: Served) -> None:
    upload = start(ada, begin(ada), b"right")
    piece(ada, upload, 0, b"wrong")
    answer = ada.post(f"{upload}/finish")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "damaged")
    assert zoo.context.registry.store.size(Digest.of(b"wrong").key) is None
    assert piece(ada, upload, 0, b"right").json()["received"] == 5
    assert ada.post(f"{upload}/finish").json()["done"]


def test_the_same_manifest_again_is_the_same_version(ada: Browser) -> None:
    made = ada.publish(b"again", name="again")
    written = manifest_of(b"again", name="again")[1]
    again = manifest(ada, begin(ada), written)
    assert (again.status_code, again.json()["digest"]) == (200, made["digest"])
    other = manifest_of(b"again", name="again", title="Another title")[1]
    refused = manifest(ada, begin(ada), other)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "already_exists")
    assert ada.get("/api/zoo/artefacts/ada/again/versions/1.0").json()["digest"] == made["digest"]


def test_every_fault_of_a_manifest_is_listed(ada: Browser) -> None:
    values = json.loads(manifest_of(name="faulty")[1])
    values["licence"], values["files"][0]["size"], values["extra"] = "mine", -1, 1
    answer = manifest(ada, begin(ada), json.dumps(values).encode())
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_manifest"
    assert {fault["field"] for fault in answer.json()["error"]["fields"]} == {"licence", "files.0.size", "extra"}
    unsent = manifest(ada, begin(ada), manifest_of(b"never sent", name="faulty")[1])
    assert [fault["field"] for fault in unsent.json()["error"]["fields"]] == ["files.0.digest"]
    for bad in (b"", b"[]", b"{", b'{"a": 1, "a": 2}', b"\xff", b"{}" + b" " * ((8 << 20) - 1)):
        assert manifest(ada, begin(ada), bad).status_code == 422
    assert manifest(ada, begin(ada), b" " * ((8 << 20) + 2)).status_code == 413
    assert ada.get("/api/zoo/artefacts/ada/faulty").status_code == 404


def test_publications_are_their_makers_alone(ada: Browser, zoo: Served) -> None:
    key = begin(ada, namespace="lab")
    upload = start(ada, key, b"mine")
    eve = zoo.browser("eve")
    assert eve.get(f"/api/zoo/publications/{key}").status_code == 404
    assert piece(eve, upload, 0, b"mine").status_code == 404
    assert eve.delete(f"/api/zoo/publications/{key}").status_code == 404
    assert ada.delete(f"/api/zoo/publications/{key}").status_code == 204
    assert piece(ada, upload, 0, b"mine").status_code == 404


def test_only_writers_publish(zoo: Served) -> None:
    for name, namespace in (("bob", "lab"), ("eve", "lab"), ("bob", "ada")):
        answer = zoo.browser(name).post("/api/zoo/publications", json={"namespace": namespace, "size": 1})
        assert answer.status_code == 403
    bound = zoo.browser("ada", "write", namespace="lab")
    assert bound.post("/api/zoo/publications", json={"namespace": "ada", "size": 1}).status_code == 403
    assert bound.post("/api/zoo/publications", json={"namespace": "lab", "size": 1}).status_code == 201
    assert bound.post("/api/zoo/publications", json={"namespace": "nobodys", "size": 1}).status_code == 404


def test_a_quota_is_kept(zoo: Served, ada: Browser) -> None:
    assert ada.put("/api/zoo/namespaces/bob/quota", json={"bytes": 1000}).json()["quota_bytes"] == 1000
    bob = zoo.browser("bob")
    too_much = bob.post("/api/zoo/publications", json={"namespace": "bob", "size": 1001})
    assert (too_much.status_code, too_much.json()["error"]["code"]) == (507, "quota")
    key = begin(bob, 600, "bob")
    assert bob.post("/api/zoo/publications", json={"namespace": "bob", "size": 600}).status_code == 507
    body = {"digest": Digest.of(b"x"), "size": 601}
    assert bob.post(f"/api/zoo/publications/{key}/uploads", json=body).status_code == 507
    bob.delete(f"/api/zoo/publications/{key}")
    bob.publish(b"y" * 600, namespace="bob", name="large")
    assert bob.get("/api/zoo/namespaces/bob").json()["used_bytes"] == 600
    assert bob.post("/api/zoo/publications", json={"namespace": "bob", "size": 401}).status_code == 507


def test_states_and_aliases(ada: Browser, zoo: Served) -> None:
    here = "/api/zoo/artefacts/ada/states"
    draft = ada.publish(b"one", name="states", query="?draft=true")
    eve = zoo.browser("eve")
    assert (draft["state"], eve.get(here).status_code) == ("draft", 404)
    assert ada.post(f"{here}/versions/1.0/release").json()["state"] == "published"
    ada.publish(b"two", name="states", version="1.1")
    deprecated = ada.post(f"{here}/versions/1.0/deprecate", json={"reason": "old", "successor": "1.1"}).json()
    assert (deprecated["state"], deprecated["successor"]) == ("deprecated", "ada/states@1.1")
    alias = f"{here}/aliases/best"
    assert ada.put(alias, json={"version": "1.1", "expected": ""}).json()["aliases"] == ["best"]
    moved = ada.put(alias, json={"version": "1.0", "expected": "0.9"})
    assert (moved.status_code, moved.json()["error"]["code"]) == (409, "mismatch")
    assert ada.put(alias, json={"version": "1.0", "expected": "1.1", "reason": "better"}).status_code == 200
    assert ada.put(alias, json={"version": "lab/open@1.0"}).status_code == 422
    yanked = ada.post(f"{here}/versions/1.1/yank", json={"reason": "wrong data"}).json()
    assert (yanked["state"], yanked["reason"]) == ("yanked", "wrong data")
    assert eve.get(f"{here}/versions/latest").json()["label"] == "1.0"
    assert eve.get(f"{here}/versions/1.1").json()["state"] == "yanked"
    assert eve.get(f"{here}/versions/1.1/files/a.txt").content == b"two"
    assert ada.post(f"{here}/versions/best/yank", json={"reason": "an alias"}).status_code == 422
    assert ada.post(f"{here}/versions/1.1/restore").json()["state"] == "published"
    assert ada.delete(alias, params={"expected": "1.1"}).status_code == 409
    assert ada.delete(alias).status_code == 204
    moves = [(move["before"], move["after"], move["who"]) for move in eve.get(f"{here}/alias-log").json()]
    assert moves == [("1.0", None, "ada"), ("1.1", "1.0", "ada"), (None, "1.1", "ada")]
    assert ada.delete(f"{here}/versions/1.1").status_code == 422  # without a reason
    assert ada.delete(f"{here}/versions/1.1", params={"reason": "a person asked"}).json()["state"] == "deleted"
    assert eve.get(f"{here}/versions/1.1/files/a.txt").status_code == 404
    assert eve.get(f"{here}/versions/1.1/manifest").status_code == 200  # what is left of it
    for path in ("1.0/yank", "1.0/deprecate"):
        assert eve.post(f"{here}/versions/{path}", json={"reason": "mine"}).status_code == 403
    assert ada.put(f"{here}/visibility", json={"private": True}).json()["private"]
    assert eve.get(here).status_code == 404


def test_larger_requests_are_for_pieces_alone(ada: Browser) -> None:
    large = b"x" * 2_100_000
    assert ada.post("/api/zoo/publications", content=large).status_code == 413
    assert ada.patch("/api/zoo/publications", content=large).status_code == 413
    nobodys = piece(ada, f"/api/zoo/uploads/{'0' * 32}", 0, large)
    assert nobodys.status_code == 404
    too_long = ada.patch(
        f"/api/zoo/uploads/{'0' * 32}",
        content=b"",
        headers={"Upload-Offset": "0", "content-length": str((64 << 20) + 1)},
    )
    assert too_long.status_code == 413


def test_servers_of_one_process_share_their_routes_and_nothing_else(serving: Callable[..., Served]) -> None:
    one, other = serving(), serving()
    one.browser("ada").publish(b"only here", name="mine")
    listed = [server.browser("ada").get("/api/zoo/search").json()["total"] for server in (one, other, one)]
    assert listed == [1, 0, 1]
    assert [server.browser().get("/api/zoo/openapi.json").status_code for server in (one, other)] == [200, 200]
