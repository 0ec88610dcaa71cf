"""The leaderboard over HTTP: table, refusals, plots with their data, and the same as JSON, on evaluations made by typing the command."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.unit.web.conftest import made_app
from typer.testing import CliRunner

from neuronmap.cli import app as commands
from neuronmap.paths import read_json, write_json

HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def measured(small_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small library with both SAEs evaluated, and two copies of one: measured on fewer tokens, and not measured."""
    home = tmp_path_factory.mktemp("measured")
    shutil.copytree(small_home, home, dirs_exist_ok=True)
    for name in ("fewer", "bare"):
        shutil.copytree(home / "library" / "first", home / "library" / name)
    (home / "library" / "bare" / "metrics.json").unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(home))
        for name, tokens in (("first", "400"), ("second", "400"), ("fewer", "100")):
            evaluate = ["sae", "evaluate", name, "--tokens", tokens, "--ce-tokens", "64"]
            done = CliRunner().invoke(commands, evaluate)
            assert done.exit_code == 0, done.output
    return home


@pytest.fixture
def compared(measured: Path, home: Path) -> Iterator[TestClient]:
    shutil.copytree(measured, home, dirs_exist_ok=True)
    with TestClient(made_app(), base_url="http://localhost", follow_redirects=False) as found:
        yield found


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_the_page_compares_and_says_what_it_refuses(compared: TestClient) -> None:
    page = compared.get("/leaderboard", headers=HTML).text
    said = words(page)
    rows = re.findall(r'<th scope="row"><a href="/sae/([^"]+)">', page)
    assert sorted(rows) == ["first", "second"]
    assert "2 SAEs measured alike by the suite core" in said
    assert "1 SAE was left out, measured otherwise" in said
    assert re.search(r"neuronmap sae evaluate fewer --tokens \d+ --ce-tokens 64", said)
    assert "neuronmap sae evaluate bare" in said
    assert "no interval" in said, "of counts"
    assert "held-out part of texts" in said
    assert str(compared.get("/leaderboard.json").text).count("/tmp") == 0
    home = compared.get("/", headers=HTML).text
    assert 'href="/leaderboard"' in home


def test_the_page_the_route_and_the_file_hold_the_same(compared: TestClient) -> None:
    page = compared.get("/leaderboard.json?sort=kl_sae&l0=0:50").json()
    board = compared.get("/api/sae/leaderboard?sort=kl_sae&l0=0:50").json()
    assert page["board"] == board
    assert next(row["rank"] for row in board["rows"]) == 1
    table = list(csv.DictReader(io.StringIO(compared.get(page["csv"]).text)))
    assert [row["sae"] for row in table] == [row["sae"] for row in board["rows"]]
    best = board["rows"][0]["figures"]["kl_sae"]
    assert float(table[0]["kl_sae"]) == best["value"]
    assert best["low"] <= best["value"] <= best["high"]
    assert table[0]["fraction_alive_low"] == "", "no interval is an empty cell"


def test_plots_have_tables_and_are_drawn_without_scripts(compared: TestClient) -> None:
    page = compared.get("/leaderboard.json").json()
    assert next(plot["name"] for plot in page["plots"]) == "front"
    html = compared.get("/leaderboard", headers=HTML).text
    assert html.count('<svg class="chart drawn') == len(page["plots"]) == 5
    for plot in page["plots"]:
        shown = compared.get(plot["figure"]).json()
        rows = list(csv.reader(io.StringIO(compared.get(plot["csv"]).text)))
        assert rows[0] == shown["columns"]
        assert len(rows) == 1 + len(shown["rows"]) == 3
        assert shown["figure"]["data"]
        json.dumps(shown["figure"], allow_nan=False)
    metric = compared.get("/api/sae/leaderboard/plots/metric-explained_variance").json()
    (trace,) = metric["figure"]["data"]
    low = trace["x"][0] - trace["error_x"]["arrayminus"][0]
    assert low == pytest.approx(metric["rows"][0][3])
    assert compared.get("/api/sae/leaderboard/plots/nonsense").status_code == 404


def test_other_evaluations_of_an_sae_are_shown_and_chosen(compared: TestClient, home: Path) -> None:
    library = home / "library"
    for name, tokens in (("first", "200"), ("first", "300"), ("second", "300")):
        asked = ["sae", "evaluate", name, "--suite", "core", "--tokens", tokens, "--ce-tokens", "64"]
        done = CliRunner().invoke(commands, asked)
        assert done.exit_code == 0, done.output
    files = [read_json(file) for file in (library / "first" / "evaluations").glob("core-*.json")]
    tokens_of = {
        f"evaluations/core-{one['key'][7:19]}.json": one["result"]["sae"]["protocol"]["tokens"] for one in files
    }
    stored, shown = (Path(file) for file in sorted(tokens_of, key=lambda file: tokens_of[file]))
    html = compared.get("/leaderboard", headers=HTML).text
    assert 'href="#others">1 other</a>' in html
    assert stored.stem in html
    said = words(html)
    assert "Other evaluations of these SAEs" in said
    page = compared.get("/leaderboard.json").json()["board"]
    (other,) = next(row["others"] for row in page["rows"] if row["sae"] == "first")
    assert (other["file"], "scored tokens" in other["said"]) == (str(stored), True)
    assert f"group={other['key']}" in html
    assert f'<option value="{other["key"]}">' in html
    chosen = compared.get("/leaderboard.json", params={"group": other["key"]}).json()["board"]
    assert [row["file"] for row in chosen["rows"] if row["sae"] == "first"] == [other["file"]]
    told = CliRunner().invoke(commands, ["sae", "leaderboard"], env={"COLUMNS": "300"}).output
    assert f"first: {shown.stem} (and 1 more, below)" in told
    assert f"first: {stored.stem}, scored tokens" in told
    assert f"neuronmap sae leaderboard --group {other['key']}" in told


def test_figures_that_are_not_there_are_shown_as_that(compared: TestClient, home: Path) -> None:
    file = home / "library" / "first" / "metrics.json"
    content: dict[str, Any] = read_json(file)
    nothing = {"value": None, "error": None, "low": None, "high": None, "count": 0, "reason": "<b>constant</b>"}
    content["core"]["reconstruction"]["explained_variance"] = nothing
    write_json(file, content)
    html = compared.get("/leaderboard", headers=HTML).text
    assert "not established" in html
    assert 'title="&lt;b&gt;constant&lt;/b&gt;"' in html
    assert "1 without a figure has no point" in html
    rows = compared.get("/api/sae/leaderboard").json()["rows"]
    assert [(row["sae"], row["rank"]) for row in rows] == [("second", 1), ("first", None)]


def test_filters(compared: TestClient) -> None:
    assert compared.get("/leaderboard?model=&hook=&architecture=&features=&l0=&tag=", headers=HTML).status_code == 200
    refused = compared.get("/leaderboard.json").json()["board"]["left_out"][0]["key"]
    shown = compared.get("/api/sae/leaderboard", params={"group": refused}).json()
    assert [row["sae"] for row in shown["rows"]] == ["fewer"]
    assert compared.get("/api/sae/leaderboard?architecture=gated").json()["rows"] == []
    empty = words(compared.get("/leaderboard?suite=probing", headers=HTML).text)
    assert "Nothing to compare yet" in empty
    assert "neuronmap sae evaluate first --suite probing" in empty
    assert compared.get("/api/sae/leaderboard?layer=2&features=64&metric=mse").json()["metrics"][0]["name"] == "mse"


@pytest.mark.parametrize(
    "query", ["l0=9:1", "sort=beauty", "metric=beauty", "suite=all", "group=zz", "features=many", "layer=-1", "limit=3"]
)
def test_what_cannot_be_asked_is_refused(compared: TestClient, query: str) -> None:
    answer = compared.get(f"/api/sae/leaderboard?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]["message"]


def test_below_a_base_path(compared: TestClient) -> None:
    with TestClient(made_app(base_path="/proxied"), base_url="http://localhost", root_path="/proxied") as behind:
        page = behind.get("/proxied/leaderboard", headers=HTML)
        assert page.status_code == 200
        addresses = re.findall(r'(?:href|action|data-figure|data-plotly)="(/[^"]*)"', page.text)
        assert all(address.startswith("/proxied/") for address in addresses)
