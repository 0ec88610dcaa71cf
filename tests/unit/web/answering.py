"""Asks every JSON route of the explorer for an answer on a small library: what the examples of the OpenAPI document are made of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from fastapi.testclient import TestClient
from tests.unit.web.concepts.made import SUBJECT

TEXT = "The river froze."
FEATURE = {"modelId": "tiny", "source": "2-first"}
CHANGE = {"feature": 3, "value": 1.0, "unit": "max"}
SEARCH = {"modelId": "tiny", "query": "river"}
NP = "/api/neuronpedia-compatible/api"
SOON, NOW = {"Prefer": "wait=60"}, {"Prefer": "wait=0"}

Answer = tuple[str, Any]
"""Name of an example, ``METHOD route status``, and the answer."""


def answers(client: TestClient, private: dict[str, str]) -> Iterator[Answer]:
    """Every answer, shortened.

    Args:
        client: on a home with the SAEs ``first``, analysed with a map, and ``second``, both evaluated, and the report ``tried``.
        private: what no answer may tell, such as folders of this machine, and what is shown in its place.
    """
    for key, answer in _answers(client):
        yield key, shortened(answer, private)


def shortened(value: Any, private: dict[str, str]) -> Any:
    """Of long lists the first two, of long texts the beginning; what tells of this machine is replaced."""
    if isinstance(value, dict):
        pairs = [(name, shortened(one, private)) for name, one in value.items()]
        numbered = all(name.isdecimal() for name in value)
        return dict(pairs[:2] if numbered else pairs)
    if isinstance(value, list):
        return [shortened(one, private) for one in (value if len(value) <= 4 else value[:2])]
    if isinstance(value, str):
        for found, shown in private.items():
            value = value.replace(found, shown)
        return value if len(value) <= 200 else f"{value[:199]}\u2026"
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return value


def _answers(client: TestClient) -> Iterator[Answer]:
    def get(route: str, address: str) -> Answer:
        done = client.get(address)
        assert done.status_code == 200, (route, done.text[:1000])
        return f"GET {route} 200", done.json()

    def post(route: str, body: Any, status: int = 200, address: str = "", **headers: str) -> Answer:
        done = client.post(address or route, json=body, headers=headers)
        assert done.status_code == status, (route, done.text[:1000])
        return f"POST {route} {status}", done.json()

    yield from _jobs(client, post, get)
    yield from _live(client, post)
    yield from _neuronpedia(post, get)
    yield from _features(post, get)
    yield from _pages(client, get)
    yield from _labels(client, post, get)


def _jobs(client: TestClient, post: Any, get: Any) -> Iterator[Answer]:
    small = {"model_name": "tiny", "corpus": "texts", "layer": 1, "hidden_dim": 64, "k": 4, "max_tokens": 3000}
    train = post("/api/sae/train", {"settings": {**small, "name": "third"}}, 202)
    job = train[1]["id"]
    yield train
    yield post("/api/sae/analyze_features", {"saes": ["second"]}, 202)
    yield post("/api/sae/evaluate", {"sae": "first"}, 202)
    yield post("/api/sae/compare", {"a": "first", "b": "second"}, 202)
    track = {"model": "tiny", "concepts": ["tense"], "preset": "quick", "name": "tenses"}
    yield post("/api/sae/track_abstractions", track, 202)
    yield post("/api/sae/sweep", {"base": {**small, "k": 4}, "grid": {"seed": [0, 1]}}, 202)
    yield get("/api/jobs", "/api/jobs")
    yield get("/api/jobs/{job}", f"/api/jobs/{job}")
    yield get("/api/jobs/{job}/events.json", f"/api/jobs/{job}/events.json")
    yield get("/jobs/{job}.json", f"/jobs/{job}.json")
    yield post("/api/jobs/{job}/cancel", None, address=f"/api/jobs/{job}/cancel")
    yield post("/api/jobs/{job}/resume", None, address=f"/api/jobs/{job}/resume")
    yield get("/jobs.json", "/jobs.json")
    yield get("/runs.json", "/runs.json")


def _live(client: TestClient, post: Any) -> Iterator[Answer]:
    bodies = {
        "text": {"sae": "first", "text": TEXT, "features": [3], "top": 2, "ranking": 2},
        "top_features": {"sae": "first", "text": TEXT, "top": 2},
        "steer": {"sae": "first", "prompt": "The river", "changes": [CHANGE], "max_tokens": 3},
        "effects": {"sae": "first", "feature": 3, "max_examples": 2, "top": 2},
    }
    for route, body in bodies.items():
        yield post(f"/api/sae/{route}", body, 202, **NOW)
        yield post(f"/api/sae/{route}", body, **SOON)
    number = client.post("/api/sae/text", json=bodies["text"], headers=NOW).json()["id"]
    time.sleep(1.0)
    call = f"/api/sae/calls/{number}"
    yield "GET /api/sae/calls/{number} 200", client.get(f"{call}?wait=60").json()
    yield "DELETE /api/sae/calls/{number} 200", client.delete(call).json()


def _neuronpedia(post: Any, get: Any) -> Iterator[Answer]:
    one = {**FEATURE, "index": 3}
    yield get(f"{NP}/feature/{{model}}/{{source}}/{{index}}", f"{NP}/feature/tiny/2-first/3")
    yield post(f"{NP}/activation/new", {"feature": one, "customText": TEXT})
    yield post(f"{NP}/activation/source", {**FEATURE, "customText": [TEXT]})
    yield post(f"{NP}/search-all", {"modelId": "tiny", "sourceSet": "first", "text": TEXT, "numResults": 2})
    yield post(f"{NP}/search-topk-by-token", {**FEATURE, "text": TEXT, "numResults": 2})
    yield post(f"{NP}/explanation/search", {**SEARCH, "layers": ["2-first"]})
    yield post(f"{NP}/explanation/search-model", SEARCH)
    yield post(f"{NP}/explanation/search-release", {"releaseName": "examples", "query": "river"})
    yield post(f"{NP}/explanation/search-all", {"query": "river"})
    steered = {"modelId": "tiny", "layer": "2-first", "index": 3, "strength": 10}
    yield post(f"{NP}/steer", {"prompt": "The river", "modelId": "tiny", "n_tokens": 3, "features": [steered]})


def _features(post: Any, get: Any) -> Iterator[Answer]:
    one = "?sae=first&feature=3"
    for route, query in {
        "concepts": "", "reports": "", "reports/{report}": "", "compare_reports": f"?reports=tried&concept={SUBJECT}",
        "features": "?sae=first&where=status=alive&limit=2", "feature": one, "neighbours": one, "examples": f"{one}&limit=2",
        "histogram": one, "fires_on": "?sae=first&token=r", "promotes": "?sae=first&token=r", "list_models": "",
        "model": "?sae=first", "overview": "?sae=first", "map": "?sae=first&limit=10", "search": "?q=river&limit=2",
        "similarity": one, "compare_features": "?sae=first&f=3&f=4", "leaderboard": "?metric=explained_variance",
    }.items():  # fmt: skip
        yield get(f"/api/sae/{route}", f"/api/sae/{route.replace('{report}', 'tried')}{query}")
    yield get("/api/sae/reports/{report}/plots/{plot}", "/api/sae/reports/tried/plots/complexity")
    yield get("/api/sae/leaderboard/plots/{plot}", "/api/sae/leaderboard/plots/front")
    yield get("/api/health", "/api/health")
    yield post("/api/sae/max_activating_examples", {"sae": "first", "features": [3], "max_examples": 2})


def _pages(client: TestClient, get: Any) -> Iterator[Answer]:
    sae = "/sae/{sae}/-"
    for route, address in {
        "/index.json": "", "/import.json": "", f"{sae}/publish.json": "",
        "/about.json": "", "/api.json": "", "/train.json": "", "/text.json": f"?sae=first&text={TEXT}",
        "/search.json": "?q=river", "/examples.json": "?text=river", "/compare.json": "?a=first&b=second",
        "/leaderboard.json": "?metric=explained_variance",
        "/concepts.json": "", "/concepts/compare.json": f"?reports=tried&concept={SUBJECT}", "/concepts/{report}.json": "",
        "/concepts/{report}/concept/{name}.json": "", "/concepts/{report}/prompt/{number}.json": "",
        "/concepts/{report}/layers.json": "", "/concepts/{report}/flow.json": "", "/concepts/{report}/complexity.json": "",
        "/sae/{sae}.json": "", f"{sae}/analyze.json": "", f"{sae}/feature/{{number}}.json": "", f"{sae}/features.json": "?limit=2",
        f"{sae}/cards.json": "", f"{sae}/features-scatter.json": "", f"{sae}/similarity.json": "?feature=3",
        f"{sae}/compare.json": "?f=3&f=4", f"{sae}/steer.json": "?feature=3",
    }.items():  # fmt: skip
        number = "1" if "prompt" in route else "3"
        filled = route.format(sae="first", report="tried", name=SUBJECT, number=number)
        yield get(route, f"{filled}{address}")
    building = client.get("/api/sae/search?q=river&limit=2").json()
    yield "GET /api/sae/search 202", {**building, "building": ["first"]} if "building" in building else building


def _labels(client: TestClient, post: Any, get: Any) -> Iterator[Answer]:
    """Last, since what is said of features stands on other pages, too."""
    assert client.post("/labels/name", data={"name": "Ada", "next": "/"}, follow_redirects=False).status_code == 303
    alive = [row["feature"] for row in client.get("/api/sae/features?sae=first&where=status=alive").json()["features"]]
    for number in alive:
        for name in ("Ada", "Bob"):
            said = {"kind": "label", "text": f"words like {name}'s {number}"}
            asked = {"sae": "first", "feature": number, "author": name, "said": said}
            made = post("/api/sae/labels", asked, 201)
    yield made
    sae = "/sae/{sae}/-/labels"
    for route, address in {
        "/api/sae/labels": "?sae=first&limit=2", "/api/sae/labels/feature": f"?sae=first&feature={alive[0]}",
        "/api/sae/labels/conflicts": "?sae=first&limit=1", "/api/sae/labels/search": "?q=words&limit=1",
        "/api/sae/labels/act": f"?id={made[1]['act']['id']}", "/api/sae/labels/lists": "", "/api/sae/labels/task": "?sae=first",
        "/labels/lists.json": "", f"{sae}.json": "?limit=2", f"{sae}/blind.json": "",
    }.items():  # fmt: skip
        yield get(route, f"{route.format(sae='first')}{address}")
    task = client.get("/api/sae/labels/task?sae=first").json()["question"]["task"]
    yield post("/api/sae/labels/answer", {"sae": "first", "task": task, "said": True})
    yield get("/api/sae/labels/results", "/api/sae/labels/results?sae=first")
    yield get(f"{sae}/results.json", "/sae/first/-/labels/results.json")
