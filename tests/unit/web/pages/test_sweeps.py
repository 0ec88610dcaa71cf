"""Sweeps over the web: queued by name, never by path, watched on the job's page, with links to what is finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.unit.web.conftest import made_app

from neuronmap.jobs import JobQueue
from neuronmap.training import SAESweep, SweepConfig, SweepRun

BASE = {"model_name": "tiny", "corpus": "texts", "layer": 1, "hidden_dim": 32, "max_tokens": 3000, "name": "m-{k}"}


@pytest.fixture
def folders(small_home: Path) -> dict[str, Path]:
    return {"model_folder": next(small_home.parent.glob("model*/tiny")).parent, "text_folder": small_home}


@pytest.fixture
def client(library: Path, folders: dict[str, Path]) -> Iterator[TestClient]:
    del library
    with TestClient(made_app(**folders), base_url="http://localhost", follow_redirects=False) as found:
        yield found


def test_a_sweep_is_queued_with_names_made_to_paths(client: TestClient) -> None:
    answer = client.post("/api/sae/sweep", json={"base": BASE, "grid": {"k": [2, 4]}})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"].endswith(f"/api/jobs/{job['id']}")
    assert (job["kind"], job["title"]) == ("sweep", "sweep of 2 SAEs on tiny")
    page = client.get(f"/jobs/{job['id']}.json").json()
    assert page["sweep"] == []  # it has not begun


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"base": {**BASE, "layer": 9}, "grid": {"k": [2]}}, 422, "The model has layers 0 to 3"),
        ({"base": {**BASE, "corpus": "/etc"}, "grid": {"k": [2]}}, 422, "no text that this server may use"),
        ({"base": BASE, "grid": {"k": [2], "corpus": ["/etc"]}}, 422, "the same for all SAEs of a sweep"),
        ({"base": BASE, "member": [{"model_name": "/etc"}]}, 422, "the same for all SAEs of a sweep"),
        ({"base": BASE, "grid": {"kk": [2]}}, 422, "no field of SAEConfig"),
        ({"base": {**BASE, "name": "first"}, "member": [{"k": 4}]}, 409, "already has an SAE called 'first'"),
        ({"base": BASE}, 422, "nothing to sweep over"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(client: TestClient, body: Any, status: int, says: str) -> None:
    answer = client.post("/api/sae/sweep", json=body)
    assert answer.status_code == status
    assert says in answer.text
    assert client.get("/api/jobs").json()["jobs"] == []


def test_the_page_of_the_job_shows_every_member(client: TestClient) -> None:
    """A real sweep of rows stands for the one that the job would run, with one member that diverges."""
    import torch
    from sqlalchemy import update

    from neuronmap.jobs.tables import jobs
    from neuronmap.progress import SilentProgress

    job = client.post("/api/sae/sweep", json={"base": BASE, "grid": {"k": [2, 4]}}).json()
    from neuronmap import paths

    fields = {"hidden_dim": 32, "context_length": 16, "batch_size": 4, "architecture": "topk", "max_steps": 12}
    broken = {"k": 4, "learning_rate": 1e30, "clip_norm": None, "name": "broken"}
    config = SweepConfig(base=fields, member=[{"k": 2, "name": "sound"}, broken])
    rows = torch.randn(900, 8, generator=torch.Generator().manual_seed(0))
    SAESweep(config, progress=SilentProgress(), folder=paths.runs_folder() / "a-sweep").train(rows)
    SweepRun.open("a-sweep").set_member(0, sae="first")
    with JobQueue.open() as queue, queue.database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job["id"]).values(run="a-sweep"))

    found = client.get(f"/jobs/{job['id']}.json").json()["sweep"]
    assert [(one["name"], one["status"], one["step"], one["front"]) for one in found] == [
        ("sound", "finished", 12, True),
        ("broken", "diverged", 1, False),
    ]
    assert "run" not in found[0]  # no path of the server leaves it
    page = client.get(f"/jobs/{job['id']}").text
    assert '<a href="/saes/first">sound</a>' in page or 'first">sound</a>' in page
    assert "diverged at step 1" in page
    assert "keep checkpoints" in page
