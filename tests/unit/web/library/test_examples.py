"""Examples across features, and search: against a plain account over the store."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from neuronmap.features.storage.store import FeatureStore
from neuronmap.hub import SAEModelHub
from neuronmap.hub.analyses import open_analysis
from neuronmap.web.views import example_index as index_room
from neuronmap.web.views.example_index import Phrase, example_index, fold

HTML = {"accept": "text/html"}


@pytest.fixture
def store(library: Path) -> FeatureStore:
    return open_analysis(SAEModelHub().get("first"))


def _all(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    """Every example, page by page."""
    found, after = [], ""
    for _ in range(400):
        page = client.get("/examples.json", params={**query, "after": after, "limit": 50}).json()["found"]
        found += page["examples"]
        if page["next"] is None:
            return found
        assert len(page["examples"]) == 50
        after = page["next"]
    raise AssertionError("the pages do not end")


def _key(one: dict[str, Any]) -> tuple[Any, ...]:
    return one["feature"]["feature"], one["kind"], one["group"], one["rank"]


def _text(store: FeatureStore, example: Any) -> str:
    """The window's own tokens as text, as they are looked for."""
    return fold(store.vocabulary.decode(example.token_ids)).decode(errors="replace")


def _every(store: FeatureStore) -> list[Any]:
    return [example for feature in range(store.num_features) for example in store.examples(feature)]


@pytest.mark.parametrize("sort", ["share", "feature"])
def test_pages_have_no_gaps_and_no_repeats(client: TestClient, store: FeatureStore, sort: str) -> None:
    found = _all(client, sort=sort, kind="top")
    tops = [example for example in _every(store) if example.kind == "top"]
    assert sorted(map(_key, found)) == sorted((one.feature, one.kind, one.group, one.rank) for one in tops)
    order = [one["share"] for one in found] if sort == "share" else [-one["feature"]["feature"] for one in found]
    assert all(a >= b - 1e-6 for a, b in pairwise(order))


def test_one_firing_is_shown_once_unless_a_kind_is_asked_for(client: TestClient, store: FeatureStore) -> None:
    found = _all(client)
    places = [(one["feature"]["feature"], one["sequence"], one["position"]) for one in found]
    assert len(places) == len(set(places))
    assert set(places) == {(one.feature, one.sequence, one.position) for one in _every(store)}


@pytest.mark.parametrize(
    "text", ["winter", "WINTER union", "inter*", "*int*", "</script>", "Document 3", "nothing like it"]
)
def test_text_finds_what_a_plain_account_finds(client: TestClient, store: FeatureStore, text: str) -> None:
    found = {_key(one) for one in _all(client, text=text, kind="quantile")}
    inner = text.lower().strip("*")
    left = "" if text.startswith("*") or not inner[0].isalnum() else r"(?<![0-9a-z])"
    right = "" if text.endswith("*") or not inner[-1].isalnum() else r"(?![0-9a-z])"
    pattern = re.compile(left + re.escape(inner) + right)
    expected = set()
    for one in _every(store):
        window = _text(store, one)
        if one.kind == "quantile":
            whole = fold(store.vocabulary.decode(store.context(one.sequence))).decode(errors="replace")
            # edges of words are looked at in the whole context, the text itself must lie in the window
            starts = len(
                fold(store.vocabulary.decode(store.context(one.sequence)[: one.start])).decode(errors="replace")
            )
            if any(
                starts <= match.start() and match.end() <= starts + len(window) for match in pattern.finditer(whole)
            ):
                expected.add((one.feature, one.kind, one.group, one.rank))
    assert found == expected
    assert found or text not in ("winter", "inter*", "*int*", "</script>")


def test_token_class_label_and_share(client: TestClient, store: FeatureStore) -> None:
    token = store.vocabulary.text_of(int(store.examples(store.nearest_alive(0) or 0, "top")[0].token_ids[0]))
    wanted = set(store.queries.tokens_of(token))
    expected = {
        (one.feature, one.kind, one.group, one.rank)
        for one in _every(store)
        if one.kind == "top" and int(one.token_ids[one.peak]) in wanted
    }
    assert {_key(one) for one in _all(client, token=token, kind="top")} == expected
    found = _all(client, low=0.5, high=0.9, kind="quantile")
    largest = [store.feature(feature).row["max"] or np.inf for feature in range(store.num_features)]
    shares = [(one, one.activation / largest[one.feature]) for one in _every(store) if one.kind == "quantile"]
    assert found
    assert {_key(one) for one in found} == {
        (one.feature, one.kind, one.group, one.rank)
        for one, share in shares
        if 0.5 <= np.float32(share) <= np.float32(0.9)
    }
    classes = [row["class"] for row in store.queries.select("class!=none", limit=1)]
    if classes:
        assert {one["feature"]["firing_class"] for one in _all(client, **{"class": classes[0], "kind": "top"})} == {
            classes[0]
        }
    label = next(row["label"] for row in store.queries.select("label~e", limit=1))
    assert {one["feature"]["label"] for one in _all(client, label=label, kind="top")} >= {label}


def test_texts_are_escaped_everywhere(client: TestClient) -> None:
    for path in (
        "/examples?text=script",
        "/search?q=script",
        "/search?q=<script>alert(1)</script>",
        "/examples?text=<script>alert(1)</script>",
    ):
        page = client.get(path, headers=HTML)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "&lt;" in page.text


@pytest.mark.parametrize("query", [{"low": "NaN"}, {"high": "2"}, {"kind": "x"}, {"limit": "0"}, {"text": "x" * 201}])
def test_conditions_out_of_range(client: TestClient, query: dict[str, str]) -> None:
    assert client.get("/examples", params=query).status_code == 422


def test_faults_are_said_on_the_page(client: TestClient) -> None:
    for query, said in (
        ({"low": "0.9", "high": "0.1"}, "is above the largest"),
        ({"token": "qqqqqqqqqq"}, "is not one token"),
        ({"after": "rubbish"}, "is not the cursor"),
        ({"sae": "first", "after": "99999999~x~first"}, ""),
    ):
        page = client.get("/examples", params=query, headers=HTML)
        assert page.status_code in (200, 404)
        assert said in page.text
    assert client.get("/examples?sae=nope", headers=HTML).status_code == 404
    assert "No example meets all of that" in client.get("/examples?text=nothing+like+it", headers=HTML).text


def test_next_page_without_scripts(client: TestClient) -> None:
    page = client.get("/examples", headers=HTML).text
    address = re.search(r'rel="next" href="([^"]+)"', page)
    assert address
    after = client.get(address[1].replace("&amp;", "&"), headers=HTML).text
    assert "From the beginning" in after
    shown = [set(re.findall(r"context \d+, position \d+", one)) for one in (page, after)]
    assert all(shown)


def test_no_analysis_at_all(client: TestClient, library: Path) -> None:
    shutil.rmtree(library / "first")
    assert "No SAE has been analysed" in client.get("/examples", headers=HTML).text
    assert "No SAE has been analysed" in client.get("/search?q=winter", headers=HTML).text
    assert client.get("/search.json?q=winter").json()["found"]["without"] == ["second"]


def test_search_finds_what_a_plain_account_finds(client: TestClient, store: FeatureStore) -> None:
    found = client.get("/api/sae/search", params={"q": "winter", "limit": 100}).json()
    groups = {group["name"]: group for group in found["groups"]}
    lowered = {row["feature"] for row in store.queries.select(limit=None) if "winter" in _searched(row)}
    assert {hit["about"]["feature"] for hit in groups["label"]["hits"]} == lowered
    holding = {
        one.feature
        for one in _every(store)
        if one.activation > 0 and re.search(r"(?<![0-9a-z])winter(?![0-9a-z])", _text(store, one))
    }
    assert holding <= {hit["about"]["feature"] for hit in groups["text"]["hits"]}
    assert groups["text"]["total"] == len(groups["text"]["hits"])
    tokens = [token for spelling in ("a", "A") for token in store.queries.tokens_of(spelling)]
    firing = {feature for token in tokens for feature in store.queries.firing_on(token, limit=None).features}
    again = client.get("/api/sae/search", params={"q": "a", "limit": 100}).json()
    assert {hit["about"]["feature"] for hit in again["groups"][0]["hits"]} == firing
    assert again["groups"][0]["total"] == len(firing)
    assert found["searched"] == ["first"]
    assert found["without"] == ["second"]


def _searched(row: dict[str, Any]) -> str:
    names = ("label", "output_label", "top_token_text", "top_lift_text", "top_promoted_text")
    return "\n".join(row[name] or "" for name in names).lower()


def test_search_by_number_and_empty(client: TestClient) -> None:
    found = client.get("/search.json", params={"q": "12"}).json()["found"]
    assert [hit["about"]["feature"] for hit in found["numbered"]] == [12]
    page = client.get("/search", params={"q": "qqzzqq"}, headers=HTML).text
    assert "Nothing found" in page
    assert "64 features of first" in page
    assert client.get("/search", headers=HTML).status_code == 200
    assert client.get("/api/sae/search").status_code == 422


def test_an_index_under_way_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("found", "browser"):
        monkeypatch.setattr(f"neuronmap.web.views.{room}.example_index", lambda store, wait: None)
    page = client.get("/examples", headers=HTML).text
    assert "is being read in" in page
    assert "No example meets" not in page
    assert client.get("/examples.json").json()["found"]["building"] == ["first"]
    answer = client.get("/api/sae/search", params={"q": "winter"})
    assert answer.status_code == 202
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["building"] == ["first"]


def test_a_damaged_index_is_named(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from neuronmap.errors import DamagedError
    from neuronmap.paths import cache_folder

    assert example_index(store, 30) is not None
    folder = next(cache_folder("examples").iterdir())
    (folder / "text.npy").write_bytes(b"")
    monkeypatch.setattr(index_room, "_indexes", index_room._Indexes())
    with pytest.raises(DamagedError, match="index of examples"):
        example_index(store, 30)


@pytest.mark.parametrize(
    ("text", "phrase", "count"),
    [
        ("The war, wars and WAR.", "war", 2),
        ("The war, wars and WAR.", "war*", 3),
        ("afterwards", "war", 0),
        ("afterwards", "*war*", 1),
        ("fellow\n  citizens", "fellow citizens", 1),
        ("ÄPFEL und Äpfel", "äpfel", 2),
        ("中国人", "国", 1),
        ("a.b a-b", "a.b", 1),
        ("x*y", "*", 1),
    ],
)
def test_phrases(text: str, phrase: str, count: int) -> None:
    assert len(Phrase(phrase).spans(np.frombuffer(fold(text), np.uint8))) == count


def test_no_torch_in_this_process() -> None:
    import subprocess
    import sys

    rooms = "neuronmap.web.pages.sae, neuronmap.web.pages.similarity, neuronmap.web.pages.examples, neuronmap.web.pages.search"
    code = (
        f"import sys, {rooms}, neuronmap.web.pages.two_saes, neuronmap.web.api.search; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
