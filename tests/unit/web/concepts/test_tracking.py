"""Tracking started from the form and over the API; names only, never paths. The small model is measured."""

from __future__ import annotations

import html
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.unit.web.concepts.made import TAG, report
from tests.unit.web.conftest import made_app

from neuronmap.concepts import list_concepts
from neuronmap.hub.reports import store_report

SMALL = {
    "items": 32,
    "permutations": 20,
    "resamples": 20,
    "random_concepts": 20,
    "control_labelings": 0,
    "similarity": False,
}
FORM = {"model": "tiny", "concepts": ["question"], "preset": "quick"}


@pytest.fixture
def models(model_folder: Path, home: Path) -> Path:
    """A folder of models that the server opens."""
    shutil.copytree(model_folder, home / "models" / "tiny")
    return home / "models"


@pytest.fixture
def waiting(models: Path) -> Iterator[TestClient]:
    """A server whose jobs wait."""
    with TestClient(made_app(model_folder=models), base_url="http://localhost", follow_redirects=False) as found:
        yield found


@pytest.fixture
def working(models: Path) -> Iterator[TestClient]:
    """A server that runs jobs."""
    app = made_app(supervise=True, model_folder=models)
    with TestClient(app, base_url="http://localhost", follow_redirects=False) as found:
        yield found


def ended(client: TestClient, job: str) -> dict[str, Any]:
    """The job once it has ended."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.get(f"/api/jobs/{job}").json()
        if found["state"] not in ("queued", "running", "cancelling"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"still {found['state']}: {found['notes'][-3:]}")


def test_from_the_api_to_the_report(working: TestClient) -> None:
    body = {
        "model": "tiny",
        "concepts": ["question"],
        "prompts": [f"Did {TAG}"],
        "preset": "quick",
        "settings": SMALL,
        "name": "asked",
    }
    answer = working.post("/api/sae/track_abstractions", json=body)
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    assert answer.headers["location"] == f"/api/jobs/{job}"
    found = ended(working, job)
    assert found["state"] == "finished", found
    assert found["result"] == {"report": "asked"}
    assert 'href="/concepts/asked"' in working.get(f"/jobs/{job}").text
    kept = working.get("/api/sae/reports/asked").json()
    assert kept["model"]["name"] == "tiny"
    assert kept["trajectories"][0]["prompt"] == f"Did {TAG}"
    for page in ("/concepts", "/concepts/asked", "/concepts/asked/concept/question", "/concepts/asked/prompt/0"):
        shown = working.get(page)
        assert shown.status_code == 200
        assert TAG not in shown.text


def test_the_form_queues_what_was_chosen(waiting: TestClient) -> None:
    sent = {
        **FORM,
        "prompts": " One text \n\nAnother\n",
        "causal": "on",
        "name": "mine",
        "replace": "on",
        "other": "tiny",
    }
    answer = waiting.post("/concepts", data=sent)
    assert answer.status_code == 303, html.unescape(answer.text)
    job = waiting.get(f"{answer.headers['location']}.json").json()["job"]
    given = {name: job["args"][name] for name in ("concepts", "prompts", "preset", "settings", "name", "replace")}
    assert given == {
        "concepts": ["question"],
        "prompts": ["One text", "Another"],
        "preset": "quick",
        "settings": {"causal": True},
        "name": "mine",
        "replace": True,
    }
    assert job["args"]["other"] == job["args"]["model"]
    assert job["title"] == "tracking question in tiny"
    page = waiting.get("/concepts").text
    assert job["id"] in page  # among those that run or wait
    assert 'hx-trigger="every 3s"' in page
    assert waiting.post("/concepts", data={"model": "tiny", "preset": "full"}).status_code == 303


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "/etc/passwd"}, "is no model that this server may use"),
        ({"model": "../models/tiny"}, "is no model that this server may use"),
        ({"other": "/etc"}, "is no model that this server may use"),
        ({"concepts": ["tens"]}, "Did you mean tense"),
        ({"concepts": ["/tmp/mine.yaml"]}, "There is no concept named '/tmp/mine.yaml'"),
        ({"preset": "slow"}, "TrackRequest.preset"),
        ({"text": "/etc/passwd"}, "is no text that this server may use"),
        ({"saes": ["nobody"]}, "nobody"),
        ({"name": "../x"}, "cannot be"),
        ({"name": "compare"}, "the page that compares"),
        ({"prompts": "\n".join("line" for _ in range(17))}, "prompts"),
        ({"prompts": "x" * 2001}, "prompts"),
    ],
)
def test_what_cannot_be_is_said_beside_what_was_typed(waiting: TestClient, change: dict[str, Any], says: str) -> None:
    answer = waiting.post("/concepts", data={**FORM, "prompts": TAG, **change})
    assert answer.status_code == 422
    alert = re.search(r'role="alert">(.*?)</div>', answer.text, re.DOTALL)
    assert alert is not None
    assert says in html.unescape(alert[1])
    assert TAG not in answer.text
    assert waiting.get("/api/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"model": "/etc/passwd"},
        {"model": 3},
        {"concepts": ["concepts.json"]},
        {"concepts": ["x"] * 101},
        {"settings": {"nonsense": 1}},
        {"settings": {"self": 1}},
        {"settings": {"items": 1e400}},
        {"settings": {"items": "many"}},
        {"prompts": [""]},
        {"name": "a/b"},
        {"text": "nowhere"},
    ],
)
def test_the_api_refuses_with_a_message(waiting: TestClient, change: dict[str, Any]) -> None:
    text = json.dumps({**FORM, **change})
    answer = waiting.post("/api/sae/track_abstractions", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["message"]


def test_names_that_are_taken_or_unknown_have_their_own_status(waiting: TestClient) -> None:
    store_report(report(), "tried")
    post = "/api/sae/track_abstractions"
    assert waiting.post(post, json={**FORM, "name": "tried"}).status_code == 409
    assert waiting.post(post, json={**FORM, "saes": ["nobody", "no"]}).status_code == 404
    key = {"Idempotency-Key": "once"}
    first, again = (waiting.post(post, json={**FORM, "name": "x"}, headers=key).json() for _ in range(2))
    assert first["id"] == again["id"]


def test_concepts_are_listed_with_what_they_are(empty: TestClient) -> None:
    found = empty.get("/api/sae/concepts").json()["concepts"]
    assert [one["name"] for one in found] == [concept.name for concept in list_concepts()]
    tense = next(one for one in found if one["name"] == "tense")
    assert tense["classes"] == ["present", "past"]
    assert {text["label"] for text in tense["texts"]} == {"present", "past"}
    page = html.unescape(empty.get("/concepts").text)
    for one in found:
        assert one["contrast"] in page
        assert f'value="{one["name"]}"' in page
        text = one["texts"][0]
        assert f"{text['before']}<mark>{text['word']}</mark>{text['after']}" in page
    assert "No report yet" in page


def test_saes_at_one_layer_are_refused_before_anything_is_measured(client: TestClient) -> None:
    page = client.get("/concepts").text
    assert 'name="saes" value="first"' in page
    model = re.search(r'name="model" value="([^"]+)"', page)
    assert model is not None
    answer = client.post("/concepts", data={"model": model[1], "preset": "quick", "saes": ["first", "second"]})
    assert answer.status_code == 422
    assert "both read layer 2" in answer.text
    assert re.findall(r'value="(first|second)" checked', answer.text) == ["first", "second"]  # what was typed is kept
