"""What all pages share: errors in one shape, ETags, compression, addresses, numbers, plots, token strips."""

from __future__ import annotations

import html
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from neuronmap.web import charts, tokens
from neuronmap.web.rendering import environment, sae_path
from neuronmap.web.tokens import ShownPiece


@pytest.mark.parametrize("path", ["/nothing", "/api/nothing", "/sae/none", "/jobs/ffffffff", "/api/jobs/ffffffff"])
def test_every_error_has_one_shape(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "hint", "status", "id", "fields"}
    assert error["status"] == 404
    page = client.get(path, headers={"accept": "text/html"})
    assert page.status_code == 404
    if not path.startswith("/api/"):
        assert page.headers["content-type"].startswith("text/html")
        assert error["message"] in html.unescape(page.text)


def test_a_request_that_does_not_fit_names_its_fields(client: TestClient) -> None:
    error = client.get("/api/jobs?limit=0&before=x").json()["error"]
    assert error["code"] == "invalid_request"
    assert {one["field"] for one in error["fields"]} == {"limit", "before"}


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("text", {"sae": "first", "text": "a", "features": [1, -1]}, "features.1"),
        ("text", {"sae": "first", "text": "a", "tokens": 3}, "tokens"),
        ("top_features", {"sae": "first", "text": "a", "top": 0}, "top"),
        ("steer", {"sae": "first", "prompt": "a", "changes": [{"feature": 1, "value": 1e99}]}, "changes.0.value"),
        ("steer", {"sae": "first", "prompt": "a", "changes": [{"feature": 1}, {"kind": "add"}]}, "changes.1.feature"),
        ("steer", {"sae": "first", "prompt": "a", "changes": [{"feature": 1, "strength": 2}]}, "changes.0.strength"),
        ("effects", {"sae": "first", "feature": "many"}, "feature"),
        ("analyze_features", {"saes": ["first"], "settings": {"before": -3}}, "settings.before"),
    ],
)
def test_a_body_that_does_not_fit_names_the_place_in_it(
    client: TestClient, route: str, body: dict[str, Any], field: str
) -> None:
    answer = client.post(f"/api/sae/{route}", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_request")
    assert [one["field"] for one in error["fields"]] == [field]
    assert f"{field}: " in error["message"]
    assert "Value error" not in answer.text


def test_all_faults_of_a_body_are_named_at_once(client: TestClient) -> None:
    body = {"sae": "", "prompt": "a", "changes": [{"feature": -1}, {"feature": 1, "unit": "metres"}], "seed": -1}
    error = client.post("/api/sae/steer", json=body).json()["error"]
    assert [one["field"] for one in error["fields"]] == ["sae", "changes.0.feature", "changes.1.unit", "seed"]


def test_a_parameter_that_a_route_does_not_have_is_refused(client: TestClient) -> None:
    """A misspelt filter would otherwise answer with everything."""
    answer = client.get("/api/sae/list_models?layr=2")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_request")
    assert error["fields"] == [{"field": "layr", "message": "this address has no such parameter"}]
    assert error["hint"] == "Did you mean layer?"
    far = client.get("/api/jobs?zzzzzz=1").json()["error"]
    assert "state, kind, limit, before" in far["hint"]
    assert client.get("/api/concepts?x=1").status_code == 404
    assert client.post("/api/sae/evaluate?dry=1", json={"sae": "first"}).status_code == 422
    assert client.get("/api/jobs?limit=3&state=queued").status_code == 200


def test_pages_and_neuronpedias_routes_may_be_sent_more_than_they_read(client: TestClient) -> None:
    for path in ("/?utm_source=letter", "/sae/first/-/cards?_=17"):
        assert client.get(path).status_code == 200, path
    body = {"modelId": "tiny", "query": "river"}
    where = "/api/neuronpedia-compatible/api/explanation/search-model?cache=no"
    assert client.post(where, json=body).status_code == 200


def test_methods_that_are_not_offered(client: TestClient) -> None:
    answer = client.delete("/api/sae/list_models")
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/", "/index.json", "/api/sae/list_models"])
def test_what_has_not_changed_is_not_sent_again(client: TestClient, path: str) -> None:
    first = client.get(path)
    tag = first.headers["etag"]
    again = client.get(path, headers={"if-none-match": f'"other", {tag}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == tag
    assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/sae/first/-/file/cfg.json",
        "/sae/first/-/file/sae_weights.safetensors",
        "/sae/first/-/features.csv?sort=-density",
        "/sae/first/-/features.jsonl",
        "/sae/first/-/plot/density.csv",
        "/plotly.js",
    ],
)
def test_a_file_that_has_not_changed_is_not_sent_again(client: TestClient, path: str) -> None:
    first = client.get(path)
    assert first.content
    tag = first.headers["etag"]
    for known in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
        again = client.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b""), known
        assert again.headers["etag"] == tag
    assert client.get(path, headers={"if-none-match": '"other"'}).content == first.content


def test_the_etag_of_a_table_changes_with_its_query_and_its_analysis(client: TestClient, library: Path) -> None:
    def tag(query: str = "") -> str:
        return client.get(f"/sae/first/-/features.csv{query}").headers["etag"]

    before = tag()
    assert tag("?sort=-density") != before
    weights = client.get("/sae/first/-/file/cfg.json").headers["etag"]
    file = library / "first" / "cfg.json"
    file.write_text(file.read_text() + " ")
    assert client.get("/sae/first/-/file/cfg.json").headers["etag"] != weights


def test_static_files_are_kept_by_their_digest(client: TestClient) -> None:
    page = client.get("/").text
    address = next(part for part in page.split('"') if part.startswith("/static/explorer.css"))
    assert "immutable" in client.get(address).headers["cache-control"]
    assert client.get("/static/explorer.css").headers["cache-control"] == "no-cache"
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e/app.py").status_code == 404


def test_each_colour_is_named_once_for_both_themes(client: TestClient) -> None:
    style = client.get("/static/explorer.css").text
    named = re.findall(r"(--[a-z0-9-]+):", style)
    assert len(named) > 20
    assert sorted(named) == sorted(set(named))
    assert {"--paper", "--ink", "--act"} <= {name for name, _ in re.findall(r"(--[a-z0-9-]+): (light-dark)\(", style)}


def test_pages_under_a_base_path(library: object) -> None:
    from tests.unit.web.conftest import made_app

    del library
    with TestClient(made_app(), base_url="http://localhost", root_path="/maps") as found:
        page = found.get("/").text
        addresses = re.findall(r'(?:href|src|action)="(/[^"]*)"', page)
        assert addresses
        assert all(address.startswith("/maps") for address in addresses)


@pytest.mark.parametrize(
    ("sae", "parts", "query", "address"),
    [
        ("demo", (), {}, "/sae/demo"),
        ("a/b", ("feature", 7), {}, "/sae/a/b/-/feature/7"),
        ("a b", ("features",), {"where": ["x>=1", "y=2"]}, "/sae/a%20b/-/features?where=x%3E%3D1&where=y%3D2"),
        ("demo", ("cards",), {"analysis": None, "sort": ""}, "/sae/demo/-/cards"),
    ],
)
def test_addresses(sae: str, parts: tuple[object, ...], query: dict[str, object], address: str) -> None:
    assert sae_path(sae, *parts, **query) == address


@pytest.mark.parametrize(
    ("value", "filter_", "shown"),
    [
        (0.12345, "number", "0.123"),
        (123456, "number", "123,456"),
        (1e-7, "number", "1.0e-07"),
        (None, "number", "–"),
        (0.5, "percent", "50 %"),
        (10.0, "percent", "1,000 %"),
        (0.0000001, "percent", "1.0e-05 %"),
        (59.4, "duration", "59 s"),
        (3661, "duration", "1 h 1 min"),
        (90_000, "duration", "1 d"),
    ],
)
def test_numbers_for_people(value: float | None, filter_: str, shown: str) -> None:
    assert environment().filters[filter_](value) == shown


def test_templates_escape_and_refuse_unknown_names() -> None:
    from jinja2 import UndefinedError

    made = environment()
    assert made.from_string("{{ text }}").render(text="<script>") == "&lt;script&gt;"
    with pytest.raises(UndefinedError):
        made.from_string("{{ misspelt }}").render()


# --- plots ---------------------------------------------------------------------------------------------------------------


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(1, 8))
def test_ticks_are_round_few_and_inside(low: float, span: float, most: int) -> None:
    high = low + span
    found = charts.ticks(low, high, most)
    assert len(found) <= 2 * most + 2
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert all(low - slack <= tick <= high + slack for tick in found)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=64))
def test_histograms_are_sound_svg(counts: list[int]) -> None:
    drawn = charts.histogram(counts, [*range(len(counts) + 1)], "a < b", x_name="x & y", y_name="n", extra=("never", 3))
    root = ET.fromstring(str(drawn))
    bars = [part for part in root.iter() if part.get("class") == "bar"]
    assert len(bars) == len(counts)
    tallest = max(range(len(counts)), key=counts.__getitem__)
    heights = [float(bar.get("height", "0")) for bar in bars]
    assert heights[tallest] == max(heights)
    assert all(math.isfinite(height) for height in heights)


def test_curves_have_gaps_where_nothing_was_measured() -> None:
    drawn = str(
        charts.lines([charts.Series("a", [0, 1, 2, 3], [1.0, None, float("nan"), 4.0])], "c", x_name="x", y_name="y")
    )
    path = next(part for part in drawn.split('"') if part.startswith("M"))
    assert path.count("M") == 2
    assert "No points yet" in charts.lines([charts.Series("a", [], [])], "c", x_name="x", y_name="y")


def test_bars_link_where_they_are_told() -> None:
    drawn = charts.bars([1, 0, 4], ["one", "none", "four"], "b", links=["/a?x=1&y=2", "", "/c"])
    root = ET.fromstring(str(drawn))
    links = [part.get("href") for part in root.iter() if part.tag.endswith("a")]
    assert links == ["/a?x=1&y=2", "/c"]


# --- token strips --------------------------------------------------------------------------------------------------------


def piece(text: str, value: float = 0.0, special: bool = False) -> ShownPiece:
    return ShownPiece(text=text, shown=text, value=value, special=special)


@given(st.text(max_size=40), st.floats(0, 100))
def test_strips_escape_everything(text: str, value: float) -> None:
    shown = str(tokens.strip([piece(text, value), piece("<script>alert(1)</script>", 1.0)], 100.0, 0))
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


def test_strips_mark_the_peak_without_colour_alone() -> None:
    shown = str(tokens.strip([piece("a"), piece(" b", 5.0), piece(" c", 10.0)], 10.0, 2))
    assert shown.startswith("a")  # what does not fire is plain text
    assert shown.count("<b ") == 2
    peak = shown[shown.rindex("<b ") :]
    assert "peak" in peak
    assert "a20" in peak
    assert 'tabindex="0"' in peak
    assert "10, 100% of the largest" in peak


def test_weak_firings_are_seen() -> None:
    assert tokens.level(0.0) == 0
    assert tokens.level(0.001) == 1
    assert tokens.level(0.1) >= 5
    assert tokens.level(1.0) == 20
