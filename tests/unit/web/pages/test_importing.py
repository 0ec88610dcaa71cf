"""Taking in SAEs through the browser, and publishing them from there: what is queued, and what is refused with nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from neuronmap.jobs.kinds.import_sae import incoming_folder


def job_of(client: TestClient, answer: Response) -> dict:
    """The job that a form led to."""
    assert answer.status_code == 303, answer.text
    path = answer.headers["location"]
    return dict(client.get(f"/api{path}").json())


def test_files_are_kept_below_a_folder_of_their_own_until_they_are_imported(client: TestClient) -> None:
    files = [("files", ("sae/layer/ae.pt", b"weights")), ("files", ("sae/layer/config.json", b"{}"))]
    job = job_of(client, client.post("/import", files=files, data={"name": "taken", "format": "dictionary_learning"}))
    assert (job["kind"], job["title"]) == ("import", "importing taken")
    [folder] = incoming_folder().iterdir()
    kept = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert kept == ["sae/layer/ae.pt", "sae/layer/config.json"]


@pytest.mark.parametrize(
    ("names", "title"),
    [(["sae/layer/ae.pt", "sae/layer/config.json"], "importing sae"), (["ae.pt"], "importing ae.pt")],
)
def test_a_job_is_called_as_what_was_dropped(client: TestClient, names: list[str], title: str) -> None:
    """The folder on disk has a random name, which says nothing."""
    job = job_of(client, client.post("/import", files=[("files", (name, b"weights")) for name in names]))
    assert job["title"] == title


@pytest.mark.parametrize(
    "name", ["../../evil.json", "/etc/passwd/..", "a/../../b.json", "con.json", ".hidden", "a\\..\\b.json", "x" * 600]
)
def test_hostile_names_leave_nothing(client: TestClient, name: str) -> None:
    answer = client.post("/import", files=[("files", (name, b"x"))], headers={"accept": "text/html"})
    assert answer.status_code == 422
    assert not list(incoming_folder().rglob("*")) if incoming_folder().exists() else True


def test_two_files_of_one_name_are_refused(client: TestClient) -> None:
    files = [("files", ("a/Cfg.json", b"1")), ("files", ("a/cfg.json", b"2"))]
    answer = client.post("/import", files=files, headers={"accept": "text/html"})
    assert answer.status_code == 422
    assert "same name" in answer.text


@pytest.mark.parametrize("source", ["/etc", "./here", "../up", "library", "~/x"])
def test_no_path_of_this_machine_is_opened(client: TestClient, source: str) -> None:
    answer = client.post("/import", data={"source": source}, headers={"accept": "text/html"})
    assert answer.status_code == 422
    assert "names no repository" in answer.text


def test_a_repository_or_a_zoo_reference_is_queued(client: TestClient) -> None:
    job = job_of(client, client.post("/import", data={"source": "zoo:ada/demo@1.0"}))
    assert job["args"]["source"] == "zoo:ada/demo@1.0"
    assert not job["args"]["remove_source"]


def test_neither_or_both_is_refused(client: TestClient) -> None:
    files = [("files", ("cfg.json", b"{}"))]
    for answer in (client.post("/import", data={}), client.post("/import", data={"source": "a/b"}, files=files)):
        assert answer.status_code == 422
        assert "one of the two" in answer.text


def test_publishing_is_queued_with_its_analyses(client: TestClient, library: Path) -> None:
    del library
    form = client.get("/sae/first/-/publish", headers={"accept": "text/html"}).text
    assert 'value="local/first@1.0"' in form
    [analysis] = [one["name"] for one in client.get("/sae/first/-/publish.json").json()["sae"]["analyses"]]
    values = {"reference": "ada/first@1.0", "licence": "mit", "tags": "Demo, two words", "analysis": analysis}
    job = job_of(client, client.post("/sae/first/-/publish", data=values))
    assert job["args"]["licence"] == "MIT"
    assert json.loads(json.dumps(job["args"]["tags"])) == ["demo", "two words"]
    assert job["args"]["analyses"] == [analysis]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"reference": "ada/first@1.0", "licence": ""}, "A licence is needed"),
        ({"reference": "ada/first", "licence": "MIT"}, "has no version"),
        ({"reference": "ada/first@1.0", "licence": "Mine"}, "no SPDX licence"),
        ({"reference": "A/b@1", "licence": "MIT"}, "cannot be a namespace"),
        ({"reference": "ada/first@1.0", "licence": "MIT", "analysis": "none"}, "has no analysis none"),
    ],
)
def test_what_cannot_be_published_is_said_in_the_form(client: TestClient, values: dict[str, str], said: str) -> None:
    answer = client.post("/sae/first/-/publish", data=values, headers={"accept": "text/html"})
    assert answer.status_code == 422
    assert said in answer.text


def test_every_fault_of_a_publication_is_said_at_once(client: TestClient) -> None:
    values = {"reference": "A/b", "licence": "WTF", "tags": "BAD_TAG!", "authors": "<none>"}
    answer = client.post("/sae/first/-/publish", data=values, headers={"accept": "text/html"})
    for said in ("cannot be a namespace", "no SPDX licence", "cannot be a tag", "names no author"):
        assert said in answer.text
