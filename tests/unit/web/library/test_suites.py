"""What evaluation suites found stands on the page of an SAE and in its JSON, as measured by typing the command."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.unit.web.conftest import made_app
from typer.testing import CliRunner

from neuronmap.cli import app as commands
from neuronmap.hub import SAEModelHub
from neuronmap.hub.evaluating import list_evaluations
from neuronmap.paths import read_json, write_json

HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def measured(small_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small library, its first SAE measured by three suites."""
    home = tmp_path_factory.mktemp("suites")
    shutil.copytree(small_home, home, dirs_exist_ok=True)
    asked = ["--suite", "core,structure,stability", "--against", "second", "--tokens", "400", "--ce-tokens", "64"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(home))
        done = CliRunner().invoke(commands, ["sae", "evaluate", "first", *asked])
        assert done.exit_code == 0, done.output
    return home


@pytest.fixture
def client(measured: Path, home: Path) -> Iterator[TestClient]:
    shutil.copytree(measured, home, dirs_exist_ok=True)
    with TestClient(made_app(), base_url="http://localhost", follow_redirects=False) as found:
        yield found


def words(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_figures_stand_beside_those_of_the_baselines(client: TestClient) -> None:
    found = client.get("/sae/first.json").json()["suites"]
    assert [one["suite"] for one in found["shown"]] == ["core", "structure", "stability"]
    assert found["missing"] == ["probing", "absorption"]
    core, structure, stability = found["shown"]
    stored = {record.result.suite: record for record in list_evaluations(SAEModelHub().get("first"))}
    figure = next(one for one in core["figures"] if one["name"] == "explained_variance")
    assert list(figure["values"]) == core["columns"] == ["sae", "identity", "pca", "random", "neurons"]
    result = stored["core"].to_dict()["result"]
    for who, value in figure["values"].items():
        exact = (result["sae"] if who == "sae" else result["baselines"][who])["reconstruction"]["explained_variance"]
        assert {name: value[name] for name in ("value", "error", "low", "high")} == {
            name: exact[name] for name in ("value", "error", "low", "high")
        }
    assert structure["columns"] == ["sae", "random", "matched"]
    assert stability["columns"] == ["sae", "chance"]
    for one in found["shown"]:
        assert one["created"] == stored[one["suite"]].created
        assert all(line["about"] for line in one["figures"])
        assert (SAEModelHub().get("first").path / one["file"]).is_file()


def test_the_page_shows_them_without_scripts_and_says_what_they_rest_on(client: TestClient) -> None:
    found = client.get("/sae/first.json").json()["suites"]["shown"]
    page = client.get("/sae/first", headers=HTML).text
    (section,) = re.findall(r'<section aria-labelledby="suites">.*?</section>', page, re.S)
    said = words(section)
    value = next(one for one in found[0]["figures"] if one["name"] == "explained_variance")["values"]["sae"]
    assert f"explained variance {value['value']:.3g} {value['low']:.3g} to {value['high']:.3g}" in said
    assert "Text: held-out part of texts" in said
    assert "random directions" in said
    assert "neuronmap sae evaluate first --suite probing,absorption" in said
    for one in found:
        for fact in one["measured_on"]:
            assert f"{fact['name']} {fact['value']}" in said
    assert client.get("/sae/second.json").json()["suites"] is None
    assert "No suite with baselines has measured it" in client.get("/sae/second", headers=HTML).text


def test_each_leads_to_the_saes_that_were_measured_alike(client: TestClient) -> None:
    for one in client.get("/sae/first.json").json()["suites"]["shown"]:
        path, query = one["leaderboard"].split("?")
        board = client.get(f"{path}.json?{query}").json()["board"]
        assert board["suite"] == one["suite"]
        assert [row["sae"] for row in board["rows"]] == ["first"]
        assert board["rows"][0]["file"] == one["file"]


def test_a_record_that_cannot_be_read_is_named_and_the_rest_is_shown(client: TestClient, home: Path) -> None:
    folder = home / "library" / "first" / "evaluations"
    broken = next(folder.glob("structure-*.json"))
    broken.write_text("{")
    found = client.get("/sae/first.json").json()
    assert [one["suite"] for one in found["suites"]["shown"]] == ["core", "stability"]
    assert any(broken.name in note for note in found["notes"])
    assert str(home) not in str(found["notes"])


def test_a_figure_that_was_not_established_has_its_reason(client: TestClient, home: Path) -> None:
    file = next((home / "library" / "first" / "evaluations").glob("core-*.json"))
    content = read_json(file)
    content["result"]["sae"]["reconstruction"]["cosine"] |= {"value": None, "error": None, "low": None, "high": None}
    content["result"]["sae"]["reconstruction"]["cosine"]["reason"] = "too <few> tokens"
    write_json(file, content)
    page = client.get("/sae/first", headers=HTML).text
    assert "Not established: too &lt;few&gt; tokens." in page
    shown = client.get("/sae/first.json").json()["suites"]["shown"][0]
    assert shown["unestablished"] == ["too <few> tokens"]
