"""The routes for scripts: features, one feature, what belongs to it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fastapi.testclient import TestClient

WHERE = {"sae": "first", "analysis": "plain"}
ODD = {"sae": "first", "analysis": "hostile"}


def got(pages: TestClient, route: str, **query: object) -> dict:
    answer = pages.get(f"/api/sae/{route}", params={**WHERE, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_features_are_filtered_sorted_and_paged(pages: TestClient) -> None:
    seen, after = [], None
    while True:
        query = {"after": after} if after is not None else {}
        page = got(pages, "features", where=["firings>0"], sort="-max", limit=2, columns=["max"], **query)
        assert (page["total"], page["matching"]) == (8, 6)
        assert all(set(row) == {"feature", "max"} for row in page["features"])
        seen += [row["feature"] for row in page["features"]]
        after = page["next"]
        if after is None:
            break
    assert seen == [1, 6, 0, 7, 4, 3]
    assert got(pages, "features")["features"][0]["label"] == "Berlin"
    assert got(pages, "features", where=["class=nothing"])["features"] == []


def test_one_feature_is_what_its_page_shows(pages: TestClient) -> None:
    found = got(pages, "feature", feature=6)
    page = pages.get("/sae/first/-/feature/6.json?analysis=plain&all=1").json()
    for name in ("feature", "label", "row", "histogram", "examples", "relations", "basis"):
        assert found[name] == page[name]


def test_neighbours_by_kind(pages: TestClient) -> None:
    answer = pages.get("/api/sae/neighbours", params={**ODD, "feature": 0, "kind": "cosine"}).json()
    assert [(one["feature"], one["cosine"]) for one in answer["neighbours"]] == [(1, 0.5), (2, None)]
    for kind in ("coactive", "leads", "follows"):
        assert got(pages, "neighbours", feature=0, kind=kind)["neighbours"] == []


def test_neighbours_of_a_real_analysis_have_their_figures(pages: TestClient, real: str) -> None:
    query = {"sae": "first", "analysis": real}
    found = pages.get("/api/sae/features", params={**query, "sort": "-firings", "limit": 1}).json()["features"][0][
        "feature"
    ]
    figures = {"cosine": {"cosine"}, "coactive": {"jaccard", "pmi", "given", "implies"}, "leads": {"lift", "given"}}
    for kind, names in figures.items():
        rows = pages.get("/api/sae/neighbours", params={**query, "feature": found, "kind": kind}).json()["neighbours"]
        assert rows
        assert names <= set(rows[0])


def test_examples_by_kind_and_group(pages: TestClient) -> None:
    answer = pages.get("/api/sae/examples", params={**ODD, "feature": 0, "kind": "quantile", "group": 4}).json()
    assert (answer["total"], answer["largest"]) == (1, 4.0)
    assert answer["examples"][0]["group"] == 4
    assert "".join(piece["text"] for piece in answer["examples"][0]["pieces"])


def test_the_histogram_counts_every_firing(pages: TestClient) -> None:
    answer = pages.get("/api/sae/histogram", params={**ODD, "feature": 0}).json()
    assert len(answer["bins"]) == 64
    assert sum(one["firings"] for one in answer["bins"]) == answer["firings"] == 10


def test_features_of_a_token(pages: TestClient) -> None:
    rows = got(pages, "fires_on", token=" the")["features"]
    assert [(row["feature"], row["share_of_token"]) for row in rows] == [(4, pytest.approx(0.9)), (1, 0.5)]
    rows = got(pages, "promotes", token="3")["features"]
    assert [(row["feature"], row["logit"], row["token_text"]) for row in rows] == [(0, 3.5, " the"), (1, 1.0, " the")]
    missing = pages.get("/api/sae/fires_on", params={**WHERE, "token": "zzzz"})
    assert missing.status_code == 422
    assert missing.json()["error"]["hint"]


def test_max_activating_examples_by_number_and_by_label(pages: TestClient) -> None:
    address = "/api/sae/max_activating_examples"
    found = pages.post(address, json={**ODD, "features": [0, 1, 0], "max_examples": 1, "contrast": True}).json()
    assert [one["feature"] for one in found["features"]] == [0, 1]
    assert [one["activation"] for one in found["features"][0]["examples"]] == [4.0]
    assert found["features"][0]["negatives"][0]["kind"] == "hard"
    assert any("#1 never fired" in note for note in found["notes"])
    found = pages.post(address, json={**WHERE, "query": "BERLIN"}).json()
    assert {one["feature"] for one in found["features"]} == {0, 6}
    found = pages.post(address, json={**WHERE, "query": "no such words"}).json()
    assert (found["features"], len(found["notes"])) == ([], 1)


@pytest.mark.parametrize(
    "body",
    [
        {"features": [0], "query": "a"},
        {},
        {"features": []},
        {"features": [-1]},
        {"features": [10**30]},
        {"features": list(range(200)), "max_examples": 100},
        {"features": [0], "kind": "nonsense"},
        {"features": [0], "context": 10**9},
        {"features": [0], "unknown": 1},
        {"features": [0], "quantile": 99},
    ],
)
def test_requests_that_do_not_fit_are_refused(pages: TestClient, body: dict) -> None:
    assert pages.post("/api/sae/max_activating_examples", json={**WHERE, **body}).status_code == 422


@pytest.mark.parametrize("route", ["feature", "neighbours", "examples", "histogram"])
def test_a_number_that_no_feature_has(pages: TestClient, route: str) -> None:
    answer = pages.get(f"/api/sae/{route}", params={**WHERE, "feature": 8})
    assert answer.status_code == 404
    assert answer.json()["error"]["hint"] == "The nearest one that is alive is 7."
    for number in (-1, 2**31, 10**40, "x"):
        assert pages.get(f"/api/sae/{route}", params={**WHERE, "feature": number}).status_code == 422


@pytest.mark.parametrize(
    "query",
    [
        {"where": "nonsense"},
        {"where": "max>a"},
        {"where": f"feature={10**40}"},
        {"where": f"max>={'9' * 280}"},
        {"sort": "nonsense"},
        {"limit": 0},
        {"limit": 1001},
        {"after": 10**30},
        {"columns": "nonsense"},
    ],
)
def test_no_question_is_a_fault_of_the_server(pages: TestClient, query: dict) -> None:
    assert pages.get("/api/sae/features", params={**WHERE, **query}).status_code in (200, 422)


def test_the_documentation_describes_every_column(pages: TestClient) -> None:
    schemas = pages.get("/api/openapi.json").json()["components"]["schemas"]
    row = schemas["FeatureRow"]["properties"]
    assert row["density"]["description"] == "firings over rows"
    assert {"label", "f1", "top_token_text"} <= set(row)


def test_pages_and_routes_need_no_torch() -> None:
    code = (
        "import sys; import neuronmap.web.pages.feature, neuronmap.web.pages.features, neuronmap.web.api.features, "
        "neuronmap.web.api.feature_examples; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
