"""What is said of features through the browser: by whom, what is shown of it, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.unit.web.conftest import made_app

from neuronmap.hub import SAEModelHub
from neuronmap.interpretation.labels import Author, Label, Score, stamp
from neuronmap.interpretation.labels.book import LabelBook
from neuronmap.web.fetch import fetch
from neuronmap.web.live.answers import RankedFeature, RestsOn, TextAnswer, TokenFeature
from neuronmap.web.pages.text import _called

ATTACK = "<script>alert(1)</script>"
FEATURE = "/sae/first/-/feature/3"


def weights() -> str:
    return str(SAEModelHub().get("first").weights_digest)


def say(client: TestClient, kind: str, feature: int = 3, **fields: str) -> Any:
    return client.post(f"/sae/first/-/feature/{feature}/said", data={"kind": kind, **fields})


def named(client: TestClient, name: str) -> TestClient:
    assert client.post("/labels/name", data={"name": name, "next": FEATURE}).status_code == 303
    return client


def everything(client: TestClient, feature: int = 3) -> Any:
    return client.get(f"/api/sae/labels/feature?sae=first&feature={feature}").json()


def test_a_label_is_added_shown_everywhere_and_attributed(client: TestClient) -> None:
    named(client, "Ada")
    assert "Nobody has given it a label yet" in client.get(FEATURE).text
    answer = say(client, "label", text="  frozen rivers ", explanation="Rivers in winter.")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{FEATURE}#labels")
    page = client.get(FEATURE).text
    assert "frozen rivers" in page
    assert "by <strong>Ada</strong>" in page
    assert "by hand" in page
    assert re.search(r"<h1>.*frozen rivers.*by Ada", page)
    for address in ("/sae/first/-/features", "/sae/first/-/cards", "/search?q=frozen", "/sae/first/-/labels"):
        found = client.get(address).text
        assert "frozen rivers" in found, address
        assert "Ada" in found, address
    (label,) = everything(client)["labels"]
    assert (label["text"], label["by"], label["author_kind"], label["method"]) == (
        "frozen rivers",
        "Ada",
        "person",
        "by hand",
    )


def test_without_htmx_back_to_the_page_with_htmx_the_panel_alone(client: TestClient) -> None:
    answer = client.post(f"{FEATURE}/said", data={"kind": "label", "text": "rivers"}, headers={"hx-request": "true"})
    assert answer.status_code == 200
    assert answer.text.strip().startswith('<section id="labels"')
    assert "<html" not in answer.text


def test_two_people_disagree_and_nothing_is_decided(client: TestClient, bob: TestClient) -> None:
    named(client, "Ada")
    say(client, "label", text="rivers")
    say(bob, "label", text="winter")
    first = next(one for one in everything(bob)["labels"] if one["by"] == "Ada")
    say(bob, "vote", label=first["id"], value="-1")
    found = everything(client)
    assert [(one["text"], one["disputed"], one["down"]) for one in found["labels"]] == [
        ("winter", True, 0),
        ("rivers", True, 1),
    ]
    assert "Disputed" in client.get(FEATURE).text
    (conflict,) = client.get("/api/sae/labels/conflicts?sae=first").json()["conflicts"]
    assert conflict["feature"] == 3
    disputed = client.get("/sae/first/-/labels?conflict=1").text
    assert "rivers" in disputed
    assert "winter" in disputed
    say(bob, "vote", label=first["id"], value="0")
    assert next(one for one in everything(client)["labels"] if one["by"] == "Ada")["down"] == 0


def test_rewording_taking_back_comments_flags_and_lists_stay_in_the_history(
    client: TestClient, bob: TestClient
) -> None:
    named(client, "Ada")
    say(client, "label", text="river")
    old = everything(client)["labels"][0]["id"]
    say(client, "label", text="rivers", replaces=old)
    (label,) = everything(client)["labels"]
    assert (label["text"], label["wordings"]) == ("rivers", 2)
    say(bob, "comment", text="Also lakes?", on=label["id"])
    comment = everything(client)["labels"][0]["comments"][0]
    say(client, "comment", text="No.", on=comment["id"])
    say(bob, "flag", reason="too broad", on=label["id"])
    say(bob, "flag", reason="dead feature")
    say(client, "listing")
    say(client, "listing", name="to look at", note="odd")
    found = everything(client)
    assert [one["text"] for one in found["labels"][0]["comments"]] == ["Also lakes?", "No."]
    assert [one["reason"] for one in found["labels"][0]["flags"] + found["flags"]] == ["too broad", "dead feature"]
    assert found["lists"] == ["bookmarks", "to look at"]
    assert everything(bob)["listed_by"] == {"Ada": ["bookmarks", "to look at"]}
    say(bob, "flag", reason="dead feature", raised="false")
    say(client, "retract", act=label["id"])
    page, found = client.get(FEATURE).text, everything(client)
    assert (found["labels"], found["flags"], len(found["history"])) == ([], [], 10)
    assert "took back: rivers" in page
    assert "replaced or taken back" in page
    lists = client.get("/labels/lists").text
    assert "to look at" in lists
    assert "odd" in lists
    say(client, "listing", name="to look at", listed="false")
    assert client.get("/labels/lists.json").json()["lists"].keys() == {"bookmarks"}


def test_what_people_write_is_text_and_never_code(client: TestClient, bob: TestClient) -> None:
    named(client, f"Ada {ATTACK}")
    say(client, "label", text=ATTACK, explanation=f"{ATTACK} '\"><img src=x onerror=alert(1)>")
    label = everything(client)["labels"][0]["id"]
    say(bob, "comment", text=ATTACK, on=label)
    say(bob, "flag", reason=ATTACK)
    say(bob, "listing", name=ATTACK[:90], note=ATTACK)
    for address in (
        FEATURE, "/sae/first/-/features", "/sae/first/-/cards", "/sae/first/-/labels", "/labels/lists",
        "/search?q=alert", "/sae/first/-/labels/blind", "/sae/first/-/labels/results",
    ):  # fmt: skip
        page = client.get(address).text
        assert ATTACK not in page, address
        assert "<img src=x" not in page, address


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("label", {"text": "x" * 201}),
        ("label", {"text": "   "}),
        ("label", {}),
        ("label", {"text": "x", "side": "back"}),
        ("label", {"text": "x", "author": "Bob"}),
        ("label", {"text": "bell \x07"}),
        ("label", {"text": "x", "replaces": "0" * 32}),
        ("vote", {"label": "0" * 32, "value": "1"}),
        ("vote", {"label": "0" * 32, "value": "7"}),
        ("retract", {"act": "0" * 32}),
        ("comment", {"text": "x" * 5001}),
        ("score", {"value": "1"}),
        ("verdict", {}),
        ("", {}),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_kept(client: TestClient, kind: str, fields: dict[str, str]) -> None:
    answer = client.post(f"{FEATURE}/said", data={"kind": kind, **fields}, headers={"accept": "text/html"})
    assert answer.status_code == 422
    assert "<html" in answer.text
    assert everything(client)["history"] == []


def test_nobody_touches_what_others_said(client: TestClient, bob: TestClient) -> None:
    named(client, "Ada")
    say(client, "label", text="rivers")
    label = everything(client)["labels"][0]["id"]
    assert say(bob, "retract", act=label).status_code == 422
    assert say(bob, "label", text="mine now", replaces=label).status_code == 422
    assert [one["text"] for one in everything(client)["labels"]] == ["rivers"]


def test_other_sites_cannot_speak_for_anybody(client: TestClient) -> None:
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        for address, body in (
            (f"{FEATURE}/said", {"data": {"kind": "label", "text": "x"}}),
            ("/labels/name", {"data": {"name": "Eve"}}),
            ("/api/sae/labels", {"json": {"sae": "first", "feature": 3, "said": {"kind": "label", "text": "x"}}}),
            ("/sae/first/-/labels/blind", {"data": {"task": "x", "said": "yes"}}),
        ):
            assert client.post(address, headers=headers, **body).status_code == 403
    assert everything(client)["history"] == []


def test_scripts_say_and_read_the_same(client: TestClient) -> None:
    asked = {"sae": "first", "feature": 3, "author": "Grace", "said": {"kind": "label", "text": "ships"}}
    made = client.post("/api/sae/labels", json=asked)
    assert made.status_code == 201
    act = made.json()["act"]
    assert (act["author"], act["method"]) == ({"kind": "person", "name": "Grace"}, "by hand")
    assert client.get(f"/api/sae/labels/act?id={act['id']}").json()["act"] == act
    assert client.get("/api/sae/labels?sae=first&text=SHIPS").json()["labels"][0]["id"] == act["id"]
    assert client.get("/api/sae/labels/search?q=ship").json()["labels"][0]["feature"] == 3
    lines = client.get("/api/sae/labels/acts?sae=first")
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    tag = lines.headers["etag"]
    assert client.get("/api/sae/labels/acts?sae=first", headers={"if-none-match": tag}).status_code == 304
    client.post("/api/sae/labels", json={**asked, "said": {"kind": "comment", "text": "hm"}})
    assert client.get("/api/sae/labels/acts?sae=first", headers={"if-none-match": tag}).status_code == 200
    for wrong, status in (
        ({**asked, "author": {"kind": "model", "name": "x"}}, 422),
        ({**asked, "said": {"kind": "label", "text": "x", "author_kind": "model"}}, 422),
        ({**asked, "said": {"kind": "score"}}, 422),
        ({**asked, "feature": 64}, 404),
        ({**asked, "sae": "third"}, 404),
        ({**asked, "said": {"kind": "label", "text": "\ud800"}}, 422),
    ):
        answer = client.post("/api/sae/labels", content=json.dumps(wrong), headers={"content-type": "application/json"})
        assert answer.status_code == status, (wrong, answer.text)
        assert set(answer.json()["error"]) >= {"code", "message", "hint"}
    assert client.get("/api/sae/labels?sae=first&sort=random").status_code == 422
    assert client.get("/api/sae/labels?sae=first&athor=x").status_code == 422
    assert client.get("/api/sae/labels/act?id=" + "0" * 32).status_code == 404


def test_the_table_filters_sorts_pages_and_exports(client: TestClient) -> None:
    sae, model = weights(), Author(kind="model", name="tiny-llm")
    labels = [
        Label(sae=sae, feature=at, author=model, at=stamp(), text=f"label {at}", method="quantiles@1")
        for at in range(60)
    ]
    scores = [
        Score(sae=sae, feature=one.feature, author=model, at=stamp(), label=one.id, protocol="detection@1", value=0.5 + one.feature / 200,
              low=0.4 + one.feature / 200, high=0.9) for one in labels[::2]
    ]  # fmt: skip
    with LabelBook.open() as book:
        book.add([*labels, *scores])
    page = client.get("/sae/first/-/labels.json?sort=-score").json()
    assert [one["feature"] for one in page["labels"][:3]] == [58, 56, 54]
    assert page["total"] == 60
    rest = client.get(f"/sae/first/-/labels.json?sort=-score&after={page['next']}").json()
    assert len(rest["labels"]) == 10
    assert rest["next"] == ""
    assert client.get("/sae/first/-/labels.json?min_low=0.6").json()["total"] == 10
    assert client.get("/sae/first/-/labels.json?author_kind=person").json()["total"] == 0
    rows = client.get("/sae/first/-/labels.csv?min_low=0.6").text.splitlines()
    assert rows[0].startswith("feature,side,label")
    assert len(rows) == 11
    lines = client.get("/sae/first/-/labels.jsonl")
    assert len(lines.text.splitlines()) == 60
    assert client.get("/sae/first/-/labels.jsonl", headers={"if-none-match": lines.headers["etag"]}).status_code == 304
    html = client.get("/sae/first/-/labels?sort=-score").text
    assert "language model" in html
    assert "detection" in html
    assert "0.79" in html
    assert 'rel="next"' in html


def test_a_table_for_spreadsheets_runs_no_formula_that_somebody_wrote(client: TestClient) -> None:
    client.post("/api/sae/labels", json={"sae": "first", "feature": 3, "said": {"kind": "label", "text": "=1+1"}})
    table = client.get("/sae/first/-/labels.csv").text
    assert ",'=1+1," in table
    assert ",=1+1," not in table
    assert '"=1+1"' in client.get("/sae/first/-/labels.jsonl").text


def test_nobody_is_called_as_all_reviewers_are_nor_writes_backwards(client: TestClient) -> None:
    said = {"kind": "label", "text": "numbers"}
    for name in ("reviewers", "Reviewers", "Bob\u202egnp"):
        answer = client.post("/api/sae/labels", json={"sae": "first", "feature": 3, "author": name, "said": said})
        assert answer.status_code == 422, name
    backwards = {"sae": "first", "feature": 3, "author": "Ada", "said": {**said, "text": "num\u202ebers"}}
    assert client.post("/api/sae/labels", json=backwards).status_code == 422
    assert client.get("/sae/first/-/labels.json").json()["total"] == 0


def test_a_text_and_steering_name_features_as_people_do(client: TestClient) -> None:
    named(client, "Ada")
    say(client, "label", text="frozen rivers")
    ranked = [RankedFeature.model_construct(feature=one, label="by its rule") for one in (3, 4)]
    rests = RestsOn.model_construct(analysis="newest")
    answer = TextAnswer.model_construct(
        rests_on=rests,
        top=[[TokenFeature(3, 1.0, None), TokenFeature(4, 1.0, None)]],
        labels={4: "by its rule"},
        ranking=ranked,
    )
    explorer = client.app.state.explorer  # type: ignore[attr-defined]
    shown = _called(explorer, "first", None, answer)
    assert shown.labels == {3: "frozen rivers", 4: "by its rule"}
    assert [one.label for one in shown.ranking] == ["frozen rivers", "by its rule"]
    assert "frozen rivers" in client.get("/sae/first/-/steer?feature=3").text


def test_before_anybody_says_anything_no_database_is_made(client: TestClient, labels_home: Path) -> None:
    for address in (
        FEATURE,
        "/sae/first/-/labels",
        "/labels/lists",
        "/sae/first/-/labels/blind",
        "/sae/first/-/labels/results",
    ):
        assert client.get(address).status_code == 200
    assert client.get("/api/sae/labels/search?q=x").json()["labels"] == []
    assert not (labels_home / "labels.sqlite3").exists()


def test_an_embedded_page_has_nothing_to_click(client: TestClient) -> None:
    say(client, "label", text="rivers")
    page = client.get(f"{FEATURE}?embed=1").text
    assert "rivers" in page
    assert "/said" not in page
    assert 'method="post"' not in page


def test_an_exported_page_has_the_label_and_nothing_of_who_exports(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONMAP_AUTHOR", "somebody-private")
    named(client, "Ada")
    say(client, "label", text="frozen rivers")
    say(client, "comment", text="a remark among ourselves")
    for address in (FEATURE, f"{FEATURE}.json"):
        found = asyncio.run(fetch(client.app, address, exported=True))  # type: ignore[arg-type]
        assert b"frozen rivers" in found.body
        assert b"somebody-private" not in found.body
        assert b"a remark among ourselves" not in found.body


def test_behind_a_proxy_that_signs_people_in_the_name_is_theirs(library: Path) -> None:
    settings = {"host": "0.0.0.0", "user_header": "X-User", "allowed_hosts": ("localhost",)}
    with TestClient(made_app(**settings), base_url="http://localhost", follow_redirects=False) as client:
        client.headers["x-user"] = "ada@example.org"
        assert say(client, "label", text="rivers").status_code == 303
        assert everything(client)["labels"][0]["by"] == "ada@example.org"
        assert client.post("/labels/name", data={"name": "Eve"}).status_code == 422
        asked = {"sae": "first", "feature": 3, "author": "Eve", "said": {"kind": "label", "text": "x"}}
        assert client.post("/api/sae/labels", json=asked).status_code == 403
        client.cookies.set("neuronmap_name", "Eve")
        say(client, "comment", text="hm")
        assert everything(client)["comments"][0]["by"] == "ada@example.org"
        assert "You speak as <strong>ada@example.org</strong>" in client.get(FEATURE).text


def test_whoever_comes_with_the_servers_token_says_a_name_first(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONMAP_TOKEN", "a-long-and-random-token")
    with TestClient(made_app(), base_url="http://localhost", follow_redirects=False) as client:
        client.headers["authorization"] = "Bearer a-long-and-random-token"
        assert say(client, "label", text="rivers").status_code == 401
        assert "That is me" in client.get(FEATURE).text
        named(client, "Ada")
        assert say(client, "label", text="rivers").status_code == 303


def test_on_ones_own_machine_the_name_is_that_of_the_account(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONMAP_AUTHOR", "Marie")
    say(client, "label", text="rivers")
    assert everything(client)["labels"][0]["by"] == "Marie"
    client.cookies.set("neuronmap_name", "%00%0A")
    say(client, "label", text="seas")
    assert {one["by"] for one in everything(client)["labels"]} == {"Marie"}
