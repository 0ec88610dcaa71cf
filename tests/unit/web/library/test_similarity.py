"""Neighbourhoods and features side by side."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load_file

from neuronmap.hub import SAEModelHub
from neuronmap.hub.analyses import open_analysis
from neuronmap.web.views.graph import Edge, Node, place

HTML = {"accept": "text/html"}


def _alive() -> int:
    return int(
        open_analysis(SAEModelHub().get("first")).queries.select("status=alive", sort="-nearest_cosine").features[0]
    )


def test_cosines_are_those_of_the_weights(client: TestClient, library: Path) -> None:
    found = client.get("/api/sae/similarity", params={"sae": "first", "feature": _alive(), "min": 0}).json()
    numbers = [one["about"]["feature"] for one in found["near"]]
    assert len(numbers) == 21  # itself and the 20 that the store lists
    rows = load_file(library / "first" / "sae_weights.safetensors")["W_dec"][numbers].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.allclose(found["cosine"], rows @ rows.T, atol=2e-5)
    assert [one["cosine"] for one in found["near"]] == pytest.approx(found["cosine"][0], abs=2e-5)


def test_threshold_and_steps(client: TestClient) -> None:
    feature = _alive()
    least = 0.0
    counts = []
    for least in (0.0, 0.2, 0.5, 1.0):
        found = client.get("/api/sae/similarity", params={"sae": "first", "feature": feature, "min": least}).json()
        assert all(one["cosine"] >= least - 1e-3 for one in found["near"])
        assert all(edge["value"] >= least for edge in found["edges"])
        counts.append(len(found["near"]))
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1
    near = {
        one["about"]["feature"]
        for one in client.get("/api/sae/similarity", params={"sae": "first", "feature": feature, "min": 0}).json()[
            "near"
        ]
    }
    wide = client.get("/api/sae/similarity", params={"sae": "first", "feature": feature, "min": 0, "depth": 2}).json()
    assert near <= {one["about"]["feature"] for one in wide["near"]}
    assert {one["step"] for one in wide["near"]} == {0, 1, 2}
    assert len(wide["near"]) == 40


def test_firing_together_is_what_the_store_lists(client: TestClient) -> None:
    store = open_analysis(SAEModelHub().get("first"))
    feature = _alive()
    found = client.get(
        "/api/sae/similarity", params={"sae": "first", "feature": feature, "by": "jaccard", "min": 0.01}
    ).json()
    listed = {pair["feature"]: pair for pair in store.feature(feature).details["coactive"] if pair["jaccard"] >= 0.01}
    assert {one["about"]["feature"] for one in found["near"]} == {feature, *listed}
    for one in found["near"][1:]:
        assert one["jaccard"] == listed[one["about"]["feature"]]["jaccard"]
        assert one["together"] == listed[one["about"]["feature"]]["count"]


@pytest.mark.parametrize("least", ["NaN", "inf", "-0.1", "1.1", "x"])
def test_thresholds_that_are_none(client: TestClient, least: str) -> None:
    for path in ("/sae/first/-/similarity", "/api/sae/similarity"):
        assert client.get(path, params={"sae": "first", "feature": 1, "min": least}).status_code == 422


def test_page_reads_without_scripts(client: TestClient) -> None:
    feature = _alive()
    page = client.get(f"/sae/first/-/similarity?feature={feature}&min=0&depth=2", headers=HTML)
    assert page.status_code == 200
    found = client.get(f"/sae/first/-/similarity.json?feature={feature}&min=0&depth=2").json()
    for one in found["near"]["near"]:
        number = one["about"]["feature"]
        assert f'href="/sae/first/-/similarity?feature={number}&amp;by=cosine' in page.text  # in the graph
        assert f'<th scope="row"><a href="/sae/first/-/similarity?min=0&amp;depth=2&amp;feature={number}">' in page.text
    assert len(page.content) < 150_000
    assert client.get("/sae/first/-/similarity", headers=HTML).status_code == 200
    assert "Nothing is that near" in client.get(f"/sae/first/-/similarity?feature={feature}&min=1", headers=HTML).text
    missing = client.get("/sae/first/-/similarity?feature=64", headers=HTML)
    assert missing.status_code == 422
    assert "features are 0 to 63" in missing.text
    assert client.get("/sae/second/-/similarity", headers=HTML).status_code == 404


def test_pairs_as_csv(client: TestClient) -> None:
    feature = _alive()
    query = {"feature": feature, "min": 0}
    found = client.get("/sae/first/-/similarity.json", params=query).json()["near"]
    rows = list(csv.DictReader(io.StringIO(client.get("/sae/first/-/plot/neighbours.csv", params=query).text)))
    assert len(rows) == len(found["near"]) * (len(found["near"]) - 1) // 2
    numbers = [one["about"]["feature"] for one in found["near"]]
    for row in rows:
        i, j = numbers.index(int(row["a"])), numbers.index(int(row["b"]))
        assert float(row["cosine"]) == found["cosine"][i][j]


def test_side_by_side(client: TestClient, library: Path) -> None:
    store = open_analysis(SAEModelHub().get("first"))
    a, b = store.queries.select("status=alive", limit=2).features
    found = client.get("/sae/first/-/compare.json", params={"f": [str(a), str(b), str(a)]}).json()
    assert [one["about"]["feature"] for one in found["columns"]] == [a, b]  # doubles once
    assert found["columns"][0]["figures"]["firings"] == store.feature(a).row["firings"]
    assert sum(found["columns"][0]["counts"]) == store.feature(a).row["firings"]
    rows = load_file(library / "first" / "sae_weights.safetensors")["W_dec"][[a, b]]
    cosine = float(rows[0] @ rows[1] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1]))
    assert found["pairs"][0]["cosine"] == pytest.approx(cosine, abs=1e-6)
    assert client.get("/api/sae/compare_features", params={"sae": "first", "f": [str(a), str(b)]}).json() == found
    page = client.get(f"/sae/first/-/compare?f={a}&f={b}", headers=HTML).text
    assert "<script>alert" not in page
    assert f'href="/sae/first/-/compare?f={b}"' in page  # takes the first one out
    assert "Nothing to compare yet" in client.get("/sae/first/-/compare", headers=HTML).text


@pytest.mark.parametrize(
    ("given", "status"),
    [(["x"], 422), (["64"], 422), (["1", "2", "3", "4", "5"], 422), (["second:1"], 404), (["nope:1"], 404)],
)
def test_side_by_side_refuses(client: TestClient, given: list[str], status: int) -> None:
    answer = client.get("/sae/first/-/compare.json", params={"f": given})
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_layout_is_the_same_each_time_and_apart() -> None:
    nodes = [Node(feature=number, label="", step=min(number, 1)) for number in range(30)]
    edges = [Edge(a=0, b=number, value=0.5) for number in range(1, 30)]
    xy = place(nodes, edges)
    assert np.array_equal(xy, place(nodes, edges))
    assert xy.min() >= 0
    assert xy.max() <= 1
    far = np.linalg.norm(xy[:, None] - xy[None], axis=2) + np.eye(30)
    assert far.min() > 0.02
    assert place(nodes[:1], []).tolist() == [[0.5, 0.5]]
