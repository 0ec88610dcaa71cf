"""Trainings from the form to the library, jobs and their pages; the real small model is trained."""

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
from tests.unit.web.conftest import made_app

from neuronmap.jobs import Job

SETTINGS = {
    "layer": "1",
    "hidden_dim": "32",
    "k": "4",
    "context_length": "32",
    "batch_size": "4",
    "max_tokens": "3,000",
    "heldout_tokens": "400",
    "num_epochs": "1",
    "skip_special": "on",
}


@pytest.fixture
def folders(small_home: Path, home: Path) -> dict[str, Path]:
    """Folders that the server opens: models and texts."""
    models, texts = home / "models", home / "opened"
    shutil.copytree(next(small_home.parent.glob("model*/tiny")), models / "tiny")
    shutil.copytree(small_home / "texts", texts / "speeches")
    (texts / "out").symlink_to(small_home)
    return {"model_folder": models, "text_folder": texts}


@pytest.fixture
def working(library: Path, folders: dict[str, Path]) -> Iterator[TestClient]:
    """A server that runs jobs."""
    del library
    with TestClient(made_app(supervise=True, **folders), base_url="http://localhost", follow_redirects=False) as found:
        yield found


def ended(client: TestClient, job: str, seconds: float = 90.0) -> dict[str, Any]:
    """The job once it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.get(f"/api/jobs/{job}").json()
        if found["state"] not in ("queued", "running", "cancelling"):
            return found
        time.sleep(0.2)
    raise AssertionError(f"still {found['state']}: {found['progress']} {found['notes'][-3:]}")


def test_a_training_from_the_form_to_the_library(working: TestClient) -> None:
    sent = {**SETTINGS, "model_name": "tiny", "corpus": "speeches", "name": "from-form", "evaluate": "on"}
    answer = working.post("/train", data=sent)
    assert answer.status_code == 303, html.unescape(answer.text)
    page = answer.headers["location"]
    job = page.rsplit("/", 1)[-1]
    assert "from-form" in working.get(page).text
    found = ended(working, job)
    assert found["state"] == "finished", found
    assert found["result"]["sae"] == "from-form"
    shown = working.get(page).text
    assert "Open the SAE" in shown
    assert shown.count("<svg") >= 6  # the curves
    assert "Features as they form" in shown
    seen = working.get(f"{page}.json").json()["monitor"]
    assert seen["step"] == seen["steps"]
    assert sum(row[2] for row in seen["density"]["rows"]) + seen["density"]["apart"] == 32
    curves = {curve["name"]: curve for curve in seen["curves"]}
    assert set(curves) >= {"curve-loss", "curve-explained", "curve-l0", "curve-dead", "curve-rate", "curve-speed"}
    assert "heldout_explained_variance" in curves["curve-explained"]["columns"]
    assert curves["curve-loss"] in working.get("/sae/from-form.json").json()["curves"]  # one way to draw them
    rows = working.get(f"/runs/{seen['run']}/history.csv").text.splitlines()
    assert len(rows) > 3
    density = working.get(f"/runs/{seen['run']}/density.csv").text.splitlines()
    assert sum(int(line.rsplit(",", 1)[1]) for line in density[1:] if line.startswith(f"{seen['at_step']},")) == 32
    assert working.get("/api/sae/list_models").json()["models"][0]["id"] == "from-form"
    side_by_side = working.get(f"/runs?run={seen['run']}&run=../../etc")
    assert seen["run"] in side_by_side.text
    assert working.get(f"/runs.json?run={seen['run']}&run=../../etc").json()["chosen"] == [seen["run"]]


def test_events_go_on_after_the_last_one_seen(working: TestClient) -> None:
    body = {"saes": ["second"], "feature_map": False, "tokens": 1500}
    answer = working.post("/api/sae/analyze_features", json=body)
    assert answer.status_code == 202
    job = answer.json()["id"]
    assert answer.headers["location"] == f"/api/jobs/{job}"
    ended(working, job)

    def events(last: str | None = None) -> list[tuple[int, str]]:
        headers = {} if last is None else {"Last-Event-ID": last}
        text = working.get(f"/api/jobs/{job}/events", headers=headers).text  # ends with the job
        blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
        return [(int(block["id"]), block["event"]) for block in blocks if "id" in block]

    found = events()
    assert len(found) >= 3
    assert found == sorted(found)
    assert found[-1][1] == "state"
    middle = len(found) // 2
    assert events(str(found[middle][0])) == found[middle + 1 :]
    listed = working.get(f"/api/jobs/{job}/events.json").json()
    assert [(event["id"], event["kind"]) for event in listed["events"]] == found


def test_the_same_key_gives_the_same_job(client: TestClient) -> None:
    body, key = {"saes": ["first"], "tokens": 1000}, {"Idempotency-Key": "once"}
    first = client.post("/api/sae/analyze_features", json=body, headers=key).json()
    again = client.post("/api/sae/analyze_features", json=body, headers=key).json()
    assert first["id"] == again["id"]
    other = client.post("/api/sae/analyze_features", json={**body, "tokens": 999}, headers=key)
    assert 400 <= other.status_code < 500


def test_a_job_that_waits_can_be_stopped_and_resumed(client: TestClient) -> None:
    """Nobody runs jobs here, and the page says so."""
    job = client.post("/api/sae/evaluate", json={"sae": "first"}).json()["id"]
    page = client.get(f"/jobs/{job}").text
    assert Job(**client.get(f"/jobs/{job}.json").json()["job"]).reason
    assert "Stop" in page
    assert client.post(f"/jobs/{job}/cancel").headers["location"] == f"/jobs/{job}"
    assert client.get(f"/api/jobs/{job}").json()["state"] == "cancelled"
    assert client.post(f"/api/jobs/{job}/resume").json()["state"] == "queued"
    assert client.post(f"/jobs/{job}/explode").status_code == 422


@pytest.mark.parametrize(
    "changed",
    [
        {"corpus": "/etc/passwd"},
        {"corpus": "../speeches"},
        {"corpus": "out"},
        {"corpus": "file:///etc/passwd"},
        {"model_name": "/etc"},
        {"model_name": "../models/tiny"},
        {"model_name": "~/model"},
        {"architecture": "topkk"},
        {"k": "-3"},
        {"k": "many"},
        {"hidden_dim": "0"},
        {"architecture": "relu", "k": "4"},
        {"name": "../../up"},
        {"name": "first"},
        {"init_from": "/etc"},
        {"architecture_options": "nonsense=1"},
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_lost(working: TestClient, changed: dict[str, str]) -> None:
    sent = {**SETTINGS, "model_name": "tiny", "corpus": "speeches", "name": "refused", **changed}
    answer = working.post("/train", data=sent)
    assert answer.status_code == 422
    page = html.unescape(answer.text)
    assert 'role="alert"' in page
    for name in ("layer", "context_length"):
        assert re.search(rf'name="{name}" value="{SETTINGS[name]}"', page)
    assert working.get("/api/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    "setting", [{"corpus": "/etc/passwd"}, {"model_name": "../x"}, {"nonsense": 1}, {"k": "x"}, {"k": 1e400}]
)
def test_the_api_takes_names_not_paths(client: TestClient, setting: dict[str, Any]) -> None:
    body = {"settings": {"model_name": "smollm2-135m", "layer": 1, "corpus": "sotu", **setting}}
    text = json.dumps(body)
    answer = client.post("/api/sae/train", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["message"]


def test_the_form_is_the_configurations_schema(client: TestClient) -> None:
    from neuronmap.training.config import SAEConfig

    page = client.get("/train").text
    for name in SAEConfig.model_fields:
        if name not in ("loggers", "input_dim"):
            assert f'name="{name}"' in page, name
    assert 'value="7"' in client.get("/train?layer=7").text


def planned(client: TestClient, sent: dict[str, str]) -> str:
    """The plan once the model is loaded; as the page looks again on a slow machine."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        answer = client.post("/train/plan", data=sent).text
        if 'hx-trigger="load' not in answer:
            return html.unescape(answer)
        time.sleep(0.25)
    raise AssertionError("no plan within 90 seconds")


def test_derived_numbers_come_with_the_form(working: TestClient) -> None:
    sent = {**SETTINGS, "model_name": "tiny", "corpus": "speeches"}
    answer = planned(working, sent)
    assert "steps" in answer
    assert "32 features" in answer
    wrong = planned(working, {**sent, "layer": "99"})
    assert "layer" in wrong
    assert 'role="alert"' in wrong


def test_health_and_metrics(client: TestClient) -> None:
    health = client.get("/api/health").json()
    assert (health["status"], health["saes"]) == ("ok", 2)
    client.get("/")
    text = client.get("/api/metrics").text
    assert "neuronmap_requests_total" in text
