"""The feature table: conditions, order, pages, columns, exports, and what it says when something does not fit."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient

PLAIN = "/sae/first/-/features{}?analysis=plain"


def table(pages: TestClient, query: str = "", form: str = ".json", name: str = "plain") -> dict:
    answer = pages.get(f"/sae/first/-/features{form}?analysis={name}{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def links(text: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'href="([^"]+)"', text)]


def test_all_features_are_listed_with_the_usual_columns(pages: TestClient) -> None:
    page = table(pages)
    assert page["features"] == list(range(8))
    assert [head["name"] for head in page["heads"]][:5] == ["feature", "label", "class", "status", "density"]
    assert page["paging"] == {
        "total": 8, "matching": 8, "first": 1, "last": 8, "begin": "", "previous": "", "next": "",
    }  # fmt: skip
    assert page["basis"]["corpus"] == "made-up"


def test_html_and_json_show_the_same(pages: TestClient) -> None:
    text, page = pages.get(PLAIN.format("")).text, table(pages)
    rows = re.findall(r'<tr data-row><th scope="row" class="num"><a href="([^"]+)">(\d+)</a>', text)
    assert [int(number) for _, number in rows] == page["features"]
    assert html.unescape(rows[6][0]) == "/sae/first/-/feature/6?analysis=plain"
    assert "cities: berlin, paris" in text
    assert "54 tokens of made-up" in text  # on what it rests


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("&class=token", [0, 1]),
        ("&status=alive&density_min=0.005", [0]),
        ("&label=berlin", [0, 6]),
        ("&max_min=3&max_max=4", [0, 7]),
        ("&f1_min=0.8", [0, 1]),
        ("&where=firings%3E0&where=class!%3Dtoken", [3, 4, 6, 7]),
        ("&fires_on=+the", [1, 4]),
        ("&fires_on=3", [1, 4]),
        ("&promotes=+the", [0, 1]),
        ("&column=max&op=%3E%3D&value=9", [1, 6]),
        ("&where=f1%3Dnull", [2, 5, 7]),
        ("&density_min=&density_max=&label=&where=&column=&op=%3D&value=", list(range(8))),  # the form without scripts
    ],
)
def test_conditions_of_the_form(pages: TestClient, query: str, expected: list[int]) -> None:
    page = table(pages, query)
    assert page["features"] == expected
    assert page["paging"]["matching"] == len(expected)


def test_each_condition_can_be_taken_away_and_nothing_else_is_lost(pages: TestClient) -> None:
    page = table(pages, "&class=token&where=max%3E%3D9&where=density%3C1&sort=-max&columns=label")
    chips = {chip["text"]: parse_qs(urlsplit(chip["remove"]).query) for chip in page["form"]["chips"]}
    kept = {"analysis": ["plain"], "sort": ["-max"], "columns": ["label"]}
    assert chips["class=token"] == {**kept, "where": ["max>=9", "density<1"]}
    assert chips["max>=9"] == {**kept, "class": ["token"], "where": ["density<1"]}


@pytest.mark.parametrize("sort", ["feature", "-max", "max", "label", "-f1", "density", "status"])
@pytest.mark.parametrize("limit", [1, 3, 5])
def test_pages_go_through_all_features_once_and_back(pages: TestClient, sort: str, limit: int) -> None:
    whole = table(pages, f"&sort={sort}")["features"]
    address, seen, back = f"/sae/first/-/features?analysis=plain&sort={sort}&limit={limit}&where=firings%3E%3D0", [], []
    while address:
        page = pages.get(address.replace("/features?", "/features.json?")).json()
        assert page["paging"]["first"] == len(seen) + 1
        seen += page["features"]
        back.append(page["paging"]["previous"])
        address = page["paging"]["next"]
        assert not address or parse_qs(urlsplit(address).query)["where"] == ["firings>=0"]  # filters stay
    assert seen == whole
    for at, previous in enumerate(back[1:]):
        found = pages.get(previous.replace("/features?", "/features.json?")).json()["features"]
        assert found == whole[at * limit : (at + 1) * limit]


def test_heads_lead_to_their_order_and_back(pages: TestClient) -> None:
    heads = {head["name"]: head for head in table(pages, "&sort=-max&class=token")["heads"]}
    assert heads["max"]["sorted"] == "descending"
    assert parse_qs(urlsplit(heads["max"]["sort"]).query) == {
        "analysis": ["plain"],
        "class": ["token"],
        "sort": ["max"],
    }
    assert parse_qs(urlsplit(heads["density"]["sort"]).query)["sort"] == ["-density"]
    text = pages.get(PLAIN.format("") + "&sort=-max").text
    assert 'aria-sort="descending"' in text


def test_columns_are_chosen(pages: TestClient) -> None:
    page = table(pages, "&columns=firings&columns=density&columns=max")
    assert [head["name"] for head in page["heads"]] == ["feature", "density", "max", "firings"]
    assert pages.get(PLAIN.format(".json") + "&columns=nonsense").status_code == 422


def test_exports_are_the_matching_rows(pages: TestClient) -> None:
    query = "&class=token&sort=-max&limit=1"
    page = table(pages, query)
    answer = pages.get(page["csv"])
    assert answer.headers["content-type"].startswith("text/csv")
    assert 'filename="first-features.csv"' in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["feature"], row["max"], row["label"]) for row in rows] == [("1", "9.0", "the"), ("0", "4.0", "Berlin")]
    lines = [json.loads(line) for line in pages.get(page["jsonl"]).text.splitlines()]
    assert [(line["feature"], line["max"], line["label"]) for line in lines] == [(1, 9.0, "the"), (0, 4.0, "Berlin")]
    assert set(lines[0]) == set(rows[0])
    chosen = list(csv.DictReader(io.StringIO(pages.get(PLAIN.format(".csv") + "&columns=label").text)))
    assert list(chosen[0]) == ["feature", "label"]
    assert len(chosen) == 8


def test_a_condition_that_cannot_be_read_is_shown_with_its_hint_and_nothing_is_lost(pages: TestClient) -> None:
    query = "&where=densty%3E1&class=token&density_min=abc&fires_on=zzzz&label=%3Cb%3E"
    answer = pages.get(PLAIN.format("") + query)
    assert answer.status_code == 422
    assert "There is no column &#39;densty&#39;." in answer.text
    assert "Did you mean density" in answer.text
    assert "&#39;abc&#39; is not a number" in answer.text
    assert "not one token of this vocabulary" in answer.text
    assert 'name="density_min" value="abc"' in answer.text
    assert '<option value="token" selected>' in answer.text
    assert 'name="label" value="&lt;b&gt;"' in answer.text
    assert '<input type="hidden" name="where" value="densty&gt;1">' in answer.text
    problem = pages.get(PLAIN.format(".json") + query)
    assert problem.status_code == 422
    assert problem.json()["error"]["hint"].startswith("Did you mean density")
    for form in (".csv", ".jsonl", "-scatter.json"):
        assert pages.get(PLAIN.format(form) + query).status_code == 422


def test_an_empty_result_says_what_to_take_away(pages: TestClient) -> None:
    answer = pages.get(PLAIN.format("") + "&class=token&f1_min=0.99")
    assert answer.status_code == 200
    assert "No feature meets all of these conditions" in answer.text
    assert "/sae/first/-/features?analysis=plain&class=token" in links(answer.text)
    assert "<table" not in answer.text


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "after=-1",
        f"after={10**30}",
        "where=" + "a" * 301,
        "sort=" + "a" * 61,
        "&".join(["where=max>1"] * 21),
        f"where=feature={10**40}&sort=nonsense",
    ],
)
def test_what_is_out_of_bounds_is_refused(pages: TestClient, query: str) -> None:
    assert pages.get(f"/sae/first/-/features.json?{query}").status_code == 422


def test_a_cursor_beyond_the_features_is_refused(pages: TestClient) -> None:
    assert pages.get(PLAIN.format(".json") + "&after=1000").status_code == 422


def test_a_page_goes_on_from_a_feature_that_meets_no_condition_any_more(pages: TestClient) -> None:
    page = table(pages, "&status=alive&after=3")
    assert page["features"] == [6, 7]
    assert page["paging"]["first"] == 3


def test_the_scatter_has_the_features_that_fired_and_leaves_its_own_bounds_out(pages: TestClient) -> None:
    address = PLAIN.format("-scatter.json") + "&status=alive&density_min=0.005&max_max=3"
    points = pages.get(address).json()
    assert points["features"] == [0, 1, 6, 7]
    assert points["density"] == [0.01, 0.002, 0.002, 0.002]
    assert points["max"] == [4.0, 9.0, 9.0, 3.0]
    assert (points["total"], points["sampled"]) == (4, False)
    assert {points["statuses"][at] for at in points["status"]} == {"alive"}
    text = pages.get(PLAIN.format("")).text
    assert "This plot needs JavaScript" in text
    assert "/plotly.js?v=" in text
    assert '<script src="/plotly' not in text  # loaded only when it is opened


def test_texts_of_the_store_are_escaped(pages: TestClient) -> None:
    for page in ("features", "cards"):
        text = pages.get(f"/sae/first/-/{page}?analysis=hostile&columns=label&columns=top_token_text").text
        assert "<img src=x" not in text
        assert "&lt;img src=x" in text
    assert (
        "␍" in text or "␍" in pages.get("/sae/first/-/features?analysis=hostile").text
    )  # a token that is a carriage return


def test_an_analysis_without_hints_is_shown(pages: TestClient, library) -> None:
    from made_stores import small_store

    small_store(library / "first" / "analyses" / "bare", without=("hints", "promoted"))
    page = table(pages, name="bare")
    assert page["features"] == list(range(8))
    assert page["form"]["classes"] == []
    assert pages.get("/sae/first/-/cards?analysis=bare").status_code == 200
    answer = pages.get("/sae/first/-/features?analysis=bare&promotes=+the")
    assert answer.status_code == 422
    assert "no promoted tokens" in answer.text


def test_unknown_sae_or_analysis_is_not_found(pages: TestClient) -> None:
    assert pages.get("/sae/nothing/-/features").status_code == 404
    assert pages.get("/sae/first/-/features?analysis=nothing").status_code == 404
    assert pages.get("/sae/second/-/features").status_code == 404  # not analysed


def test_cards_show_the_same_features_and_load_more(pages: TestClient) -> None:
    first = pages.get("/sae/first/-/cards.json?analysis=plain&sort=-max&limit=3").json()
    assert [card["feature"] for card in first["cards"]] == table(pages, "&sort=-max&limit=3")["features"]
    text = pages.get("/sae/first/-/cards?analysis=plain&sort=-max&limit=3").text
    assert text.count("data-row") == 3
    assert first["paging"]["next"] in links(text)  # without scripts
    more = pages.get(first["more"])
    assert more.status_code == 200
    assert "<html" not in more.text
    assert [int(number) for number in re.findall(r'<span class="number">(\d+)</span>', more.text)] == [
        card["feature"]
        for card in pages.get(first["paging"]["next"].replace("/cards?", "/cards.json?")).json()["cards"]
    ]


def test_pages_are_small(pages: TestClient, real: str) -> None:
    for page in ("features", "cards", "features?limit=64"):
        answer = pages.get(f"/sae/first/-/{page}{'&' if '?' in page else '?'}analysis={real}")
        assert answer.status_code == 200
        assert len(answer.content) < 150_000
