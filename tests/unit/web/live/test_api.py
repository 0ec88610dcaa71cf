"""Texts through models over HTTP: at once or by a call, with typed answers, sentences for mistakes, and Neuronpedia's shapes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from neuronmap.hub import SAEModelHub
from neuronmap.hub.analyses import open_analysis
from neuronmap.web.live.answers import EffectsAnswer, SteerAnswer, TextAnswer

TEXT = 'A river <script>"x"</script> 日本 👩‍👧.'
SOON = {"Prefer": "wait=60"}
NP = "/api/neuronpedia-compatible/api"


def post(client: TestClient, route: str, body: dict[str, Any], status: int = 200, **headers: str) -> Any:
    done = client.post(f"/api/sae/{route}", json=body, headers={**SOON, **headers})
    assert done.status_code == status, done.text
    return done.json()


def neuronpedia(client: TestClient, route: str, body: dict[str, Any], status: int = 200) -> Any:
    done = client.post(f"{NP}/{route}", json=body)
    assert done.status_code == status, done.text
    return done.json()


def test_what_is_not_ready_is_answered_with_the_address_of_a_call(client: TestClient) -> None:
    first = client.post(
        "/api/sae/text", json={"sae": "first", "text": TEXT}, headers={"Prefer": "respond-async, wait=0"}
    )
    assert first.status_code == 202
    assert first.headers["retry-after"] == "1"
    where = first.headers["location"]
    assert where == f"/api/sae/calls/{first.json()['id']}"
    while (state := client.get(where).json())["state"] not in ("done", "failed"):
        assert state["answer"] is None
        time.sleep(0.05)
    TextAnswer.model_validate(state["answer"])
    assert "".join(piece["text"] for piece in state["answer"]["pieces"]) == TEXT
    patient = {"Prefer": "wait=60"}
    again = client.post("/api/sae/text", json={"sae": "first", "text": TEXT}, headers=patient)
    assert again.status_code == 200
    assert again.json() == state["answer"]
    assert client.delete(where).json()["state"] == "done"
    gone = client.get("/api/sae/calls/nothing")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "call_not_found")


def test_every_operation_answers_as_documented(client: TestClient) -> None:
    whole = post(client, "text", {"sae": "first", "text": TEXT, "top": 3})
    by_token = post(client, "top_features", {"sae": "first", "text": TEXT, "top": 3})
    assert [line["token_id"] for line in by_token["tokens"]] == whole["token_ids"]
    for line, listed in zip(by_token["tokens"], whole["top"], strict=True):
        assert [[one["feature"], one["activation"], one["relative"]] for one in line["features"]] == listed
    feature = whole["ranking"][0]["feature"]
    change = {"feature": feature, "value": 1.0, "unit": "max"}
    SteerAnswer.model_validate(
        post(client, "steer", {"sae": "first", "prompt": "A", "changes": [change], "max_tokens": 3})
    )
    SteerAnswer.model_validate(post(client, "steer", {"sae": "first", "text": "A river.", "changes": [change]}))
    EffectsAnswer.model_validate(post(client, "effects", {"sae": "first", "feature": feature, "max_examples": 2}))


@pytest.mark.parametrize(
    ("route", "body", "status", "said"),
    [
        ("text", {"sae": "first"}, 422, "text"),
        ("text", {"sae": "first", "text": ""}, 422, "text"),
        ("text", {"sae": "first", "text": "a" * 20_001}, 422, "20000"),
        ("text", {"sae": "fir", "text": "a"}, 404, "no SAE 'fir'"),
        ("text", {"sae": "../first", "text": "a"}, 404, "no SAE"),
        ("top_features", {"sae": "first", "text": "a", "unknown": 1}, 422, "unknown"),
        ("steer", {"sae": "first", "changes": [{"feature": 1}]}, 422, "either a prompt"),
        ("steer", {"sae": "first", "prompt": "a", "changes": [{"feature": 1, "value": 1e99}]}, 422, "value"),
        ("effects", {"sae": "first", "feature": -1}, 422, "feature"),
    ],
)
def test_mistakes_are_said_at_once(
    client: TestClient, route: str, body: dict[str, Any], status: int, said: str
) -> None:
    error = post(client, route, body, status)["error"]
    assert said in error["message"]
    assert client.app.state.explorer.live.pid is None  # type: ignore[attr-defined]


def test_mistakes_that_only_the_model_sees_keep_their_status(client: TestClient) -> None:
    error = post(client, "text", {"sae": "first", "text": "a", "features": [64]}, 422)["error"]
    assert "ids are 0 to 63" in error["message"]
    assert post(client, "effects", {"sae": "second", "feature": 1}, 422)["error"]["code"] == "input"
    assert (
        post(client, "text", {"sae": "first", "text": "a", "analysis": "no"}, 404)["error"]["code"] == "not_in_library"
    )


def test_openapi_has_an_example_of_each_request(client: TestClient) -> None:
    document = client.get("/api/openapi.json").json()
    for path, methods in document["paths"].items():
        if not path.startswith(("/api/sae/text", "/api/sae/top_features", "/api/sae/steer", "/api/sae/effects", NP)):
            continue
        for method, operation in methods.items():
            assert operation["summary"], path
            if method == "post":
                reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                assert document["components"]["schemas"][reference.rsplit("/", 1)[1]]["examples"], path


def test_neuronpedia_feature_json(client: TestClient, library: Path) -> None:
    store = open_analysis(SAEModelHub(library).get("first"))
    number = int(store.queries.select(["status=alive"], sort="-firings", limit=1)[0]["feature"])
    found = client.get(f"{NP}/feature/tiny/2-first/{number}").json()
    record = store.feature(number)
    assert (found["modelId"], found["layer"], found["index"]) == ("tiny", "2-first", str(number))
    assert found["maxActApprox"] == pytest.approx(record.row["max"])
    assert found["frac_nonzero"] == pytest.approx(record.row["density"])
    assert found["activations"]
    assert all(len(one["tokens"]) == len(one["values"]) for one in found["activations"])
    assert found["explanations"] == [] or found["explanations"][0]["description"] == record.label
    assert found["model"]["id"] == "tiny"
    assert client.get(f"{NP}/feature/tiny/first/{number}").json() == found  # the SAE's own id is a source too
    for wrong in ("feature/tiny/3-first/1", "feature/other/2-first/1", "feature/tiny/2-second/1"):
        assert client.get(f"{NP}/{wrong}").status_code == 404  # another layer, another model, not analysed
    assert client.get(f"{NP}/feature/tiny/2-first/64").status_code == 422


def test_neuronpedia_inference(client: TestClient) -> None:
    whole = post(client, "text", {"sae": "first", "text": TEXT, "top": 50, "order": "activation", "features": []})
    top = whole["ranking"][0]
    name = {"modelId": "tiny", "source": "2-first", "index": str(top["feature"])}
    one = neuronpedia(client, "activation/new", {"feature": name, "customText": TEXT})
    assert set(one) == {"tokens", "values", "maxValue", "maxValueIndex"}
    assert (one["maxValue"], one["maxValueIndex"]) == (top["max"], top["token"])
    everything = neuronpedia(
        client, "activation/source", {"modelId": "tiny", "source": "2-first", "customText": [TEXT]}
    )
    result = everything["results"][0]
    assert "".join(result["tokens"]) == TEXT
    assert result["activeFeatures"][str(top["feature"])] == [
        [at, value] for at, value in enumerate(one["values"]) if value
    ]
    assert sum(map(len, result["activeFeatures"].values())) == sum(whole["active"])
    body = {"modelId": "tiny", "sourceSet": "first", "text": TEXT, "numResults": 5}
    ranked = neuronpedia(client, "search-all", body)
    assert [row["maxValue"] for row in ranked["result"]] == [row["max"] for row in whole["ranking"][:5]]
    assert ranked["result"][0]["values"] == one["values"]
    assert ranked["result"][0]["neuron"]["frac_nonzero"] == pytest.approx(top["density"], rel=1e-5)
    at = top["token"]
    sorted_by = neuronpedia(client, "search-all", {**body, "sortIndexes": [at]})
    assert [int(row["index"]) for row in sorted_by["result"]] == [number for number, _, _ in whole["top"][at][:5]]
    dense = {"modelId": "tiny", "source": "2-first", "text": TEXT, "numResults": 2, "densityThreshold": 1}
    by_token = neuronpedia(client, "search-topk-by-token", dense)["results"]
    for row in by_token:
        expected = whole["top"][row["position"]][:2]
        assert [[f["featureIndex"], f["activationValue"]] for f in row["topFeatures"]] == [
            [number, value] for number, value, _ in expected
        ]
    steered = neuronpedia(
        client, "steer",
        {"prompt": "A river", "modelId": "tiny", "n_tokens": 16, "temperature": 0, "seed": 1, "strength_multiplier": 4,
         "features": [{"modelId": "tiny", "layer": "2-first", "index": top["feature"], "strength": 100}]},
    )  # fmt: skip
    assert steered["DEFAULT"].startswith("A river")
    assert steered["STEERED"] != steered["DEFAULT"]
    bad = {"prompt": "A", "modelId": "tiny", "steer_method": "ORTHOGONAL_DECOMP",
           "features": [{"modelId": "tiny", "layer": "2-first", "index": 1, "strength": 1}]}  # fmt: skip
    neuronpedia(client, "steer", bad, 422)
    neuronpedia(client, "search-all", {**body, "sourceSet": "nothing"}, 404)
    neuronpedia(client, "search-all", {**body, "sortIndexes": [999]}, 422)


def test_neuronpedia_search_pages(client: TestClient, library: Path) -> None:
    store = open_analysis(SAEModelHub(library).get("first"))
    labels = [
        label for label in store.tables.read("hints", ["label"])["label"].to_pylist() if label and len(label) >= 3
    ]
    word = max(labels, key=len)[:12].strip()
    found = neuronpedia(client, "explanation/search", {"modelId": "tiny", "query": word})
    assert found["resultsCount"] == len(found["results"]) > 0
    expected = store.queries.search_labels(word, 20).features
    assert [int(row["index"]) for row in found["results"]] == expected
    assert found["hasMore"] == (found["nextOffset"] is not None)
    after = neuronpedia(client, "explanation/search", {"modelId": "tiny", "query": word, "offset": 1})
    assert [row["index"] for row in after["results"]][:3] == [str(number) for number in expected[1:4]]
    for route, more in (("search-model", {"modelId": "tiny"}), ("search-all", {})):
        same = neuronpedia(client, f"explanation/{route}", {**more, "query": word})
        assert same["results"] == found["results"]
    neuronpedia(client, "explanation/search-release", {"releaseName": "no-such-tag", "query": word}, 404)
    neuronpedia(client, "explanation/search", {"modelId": "tiny", "query": "ab"}, 422)
    assert np.isfinite([row["neuron"]["maxActApprox"] for row in found["results"]]).all()
