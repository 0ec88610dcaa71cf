"""One SAE: page and JSON, files, plots, states."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from neuronmap.features.storage.queries import FeatureQueries, Rows
from neuronmap.hub import SAEModelHub
from neuronmap.hub.analyses import open_analysis
from neuronmap.web.app import create_app
from neuronmap.web.settings import ServerSettings
from neuronmap.web.views.card import card_html

HTML = {"accept": "text/html"}


def test_page_and_json_say_the_same(client: TestClient, library: Path) -> None:
    found = client.get("/sae/first.json").json()
    page = client.get("/sae/first", headers=HTML).text
    store = open_analysis(SAEModelHub().get("first"))
    assert found["dictionary"]["status"] == store.overview["status"]
    assert found["dictionary"]["basis"]["tokens"] == store.manifest["rows"]
    assert f"{store.manifest['rows']:,} tokens" in page
    for status, count in found["dictionary"]["status"].items():
        assert f">{count:,} {status}</a>" in page
    for plot in found["dictionary"]["plots"] + found["curves"]:
        assert f'id="{plot["name"]}"' in page
    assert client.get("/api/sae/model", params={"sae": "first"}).json() == found
    assert client.get("/api/sae/overview", params={"sae": "first"}).json()["dictionary"] == found["dictionary"]


def test_every_plot_has_its_numbers_as_csv(client: TestClient) -> None:
    found = client.get("/sae/first.json").json()
    plots = found["dictionary"]["plots"] + found["curves"]
    assert len(plots) >= 8
    for plot in plots:
        answer = client.get(f"/sae/first/-/plot/{plot['name']}.csv")
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.reader(io.StringIO(answer.text)))
        assert rows[0] == plot["columns"]
        assert len(rows) - 1 == len(plot["rows"]) + (plot["apart"] is not None)
        last = [None if cell == "" else float(cell) for cell in rows[-1]]
        assert last == pytest.approx(plot["rows"][-1], nan_ok=True)
    assert client.get("/sae/second/-/plot/density.csv").status_code == 404  # no analysis
    assert client.get("/sae/second/-/plot/curve-loss.csv").status_code == 200


def test_density_histogram_counts_every_feature(client: TestClient) -> None:
    plot = next(one for one in client.get("/sae/first.json").json()["dictionary"]["plots"] if one["name"] == "density")
    assert sum(row[2] for row in plot["rows"]) + plot["apart"] == 64


def test_an_sae_without_analysis_says_how_to_make_one(client: TestClient) -> None:
    page = client.get("/sae/second", headers=HTML)
    assert page.status_code == 200
    assert "Not analysed yet" in page.text
    assert 'href="/sae/second/-/analyze"' in page.text
    found = client.get("/sae/second.json").json()
    assert found["dictionary"] is None
    assert found["tensors"]
    assert found["curves"]
    assert client.get("/sae/second?analysis=nope", headers=HTML).status_code == 404


def test_a_damaged_sae_says_its_problem(client: TestClient, library: Path) -> None:
    weights = library / "second" / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    page = client.get("/sae/second", headers=HTML)
    assert page.status_code == 200
    assert "cannot be used" in page.text
    assert "cut off" in page.text
    assert str(library) not in page.text
    assert client.get("/sae/second.json").json()["sae"]["problem"]


def test_a_damaged_history_leaves_the_rest(client: TestClient, library: Path) -> None:
    (library / "first" / "history.parquet").write_bytes(b"PAR1 nothing PAR1")
    found = client.get("/sae/first.json").json()
    assert found["curves"] == []
    assert found["notes"] == ["history.parquet cannot be read (" + found["notes"][0].partition("(")[2]]
    assert found["dictionary"] is not None


def test_not_found_names_near_ids(client: TestClient) -> None:
    for path in ("/sae/frist", "/sae/frist/-/similarity"):
        page = client.get(path, headers=HTML)
        assert page.status_code == 404
        assert "Did you mean first" in page.text
    error = client.get("/api/sae/model", params={"sae": "frist"}).json()["error"]
    assert "Did you mean first" in error["hint"]
    assert client.get("/sae/first/-/no-such-page", headers=HTML).status_code == 404


def test_an_id_with_slashes(client: TestClient, library: Path) -> None:
    shutil.copytree(library / "first", library / "group" / "deep" / "sae")
    for tail in ("", "/-/similarity", "/-/compare?f=1", "/-/plot/density.csv", "/-/file/cfg.json"):
        assert client.get(f"/sae/group/deep/sae{tail}", headers=HTML).status_code == 200, tail
    assert client.get("/sae/group/deep/sae.json").json()["sae"]["id"] == "group/deep/sae"
    assert 'href="/sae/group/deep/sae/-/features' in client.get("/sae/group/deep/sae", headers=HTML).text
    beside = client.get("/sae/first/-/compare.json", params={"f": ["1", "group/deep/sae:1"]}).json()
    assert beside["pairs"][0]["cosine"] == pytest.approx(1.0)


def test_below_a_base_path(library: Path) -> None:
    app = create_app(ServerSettings(supervise=False, base_path="/proxied"))
    with TestClient(app, base_url="http://localhost", root_path="/proxied") as behind:
        for path in (
            "/sae/first",
            "/sae/first/-/similarity",
            "/examples",
            "/search?q=winter",
            "/compare?a=first&b=second",
            "/api",
        ):
            page = behind.get(f"/proxied{path}", headers=HTML)
            assert page.status_code == 200, path
            addresses = re.findall(r'(?:href|action|hx-get|data-source)="(/[^"]*)"', page.text)
            assert addresses
            assert all(address.startswith("/proxied/") for address in addresses), path


def test_only_the_bundles_own_files_are_sent(client: TestClient, library: Path) -> None:
    for name in ("cfg.json", "sae_weights.safetensors", "README.md", "history.parquet"):
        answer = client.get(f"/sae/first/-/file/{name}")
        assert answer.content == (library / "first" / name).read_bytes()
        assert "attachment" in answer.headers["content-disposition"]
    (library / "first" / "secret.txt").write_text("secret")
    (library / "secret.txt").write_text("secret")
    for name in (
        "secret.txt",
        "analyses",
        "..%2fsecret.txt",
        "../secret.txt",
        "%2e%2e/secret.txt",
        "cfg.json%00",
        "CFG.JSON",
    ):
        answer = client.get(f"/sae/first/-/file/{name}")
        assert answer.status_code in (404, 422), name
        assert b"secret" not in answer.content.replace(b"secret.txt", b"")
    assert client.get("/sae/..%2ffirst/-/file/cfg.json").status_code == 404
    (library / "first" / "metrics.json").unlink(missing_ok=True)
    (library / "first" / "metrics.json").symlink_to(library / "secret.txt")
    assert client.get("/sae/first/-/file/metrics.json").status_code == 404


def test_fit_against_another_sae(client: TestClient, library: Path) -> None:
    assert client.get("/sae/first.json", params={"fits": "second"}).json()["fit"]["differences"] == []
    config = library / "second" / "cfg.json"
    content = json.loads(config.read_text())
    content["metadata"]["neuronmap"]["hook"]["module_path"] = "transformer.h.0"
    config.write_text(json.dumps(content))
    fit = client.get("/sae/first.json", params={"fits": "second"}).json()["fit"]
    assert [one["severity"] for one in fit["differences"]] == ["wrong"]
    assert "Shapes fit" in client.get("/sae/first?fits=second", headers=HTML).text


def test_the_card_is_text_not_html(client: TestClient, library: Path) -> None:
    card = library / "first" / "README.md"
    card.write_text(
        "---\ntags: x\n---\n# Title\n<script>alert(1)</script> <img src=x onerror=alert(2)>\n\n"
        "[run](javascript:alert(3)) [out](https://example.org) [near](../../etc/passwd) ![pic](https://example.org/x.png)\n\n"
        "| a | b |\n|:-:|--:|\n| 1 | 2 |\n\n```\nlong = '<pre>'\n```\n"
    )
    page = client.get("/sae/first", headers=HTML).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<img" not in page
    assert 'href="javascript' not in page
    assert 'rel="nofollow noopener"' in page
    shown = card_html(card.read_text())
    assert "passwd" not in shown
    assert "style=" not in shown
    assert "<h3>Title</h3>" in shown
    assert "tags: x" not in shown
    assert "<pre tabindex=\"0\"><code>long = '&lt;pre&gt;'" in shown


def test_map_needs_a_map(client: TestClient) -> None:
    answer = client.get("/api/sae/map", params={"sae": "first"})
    assert answer.status_code == 422
    assert "no map" in answer.json()["error"]["message"]
    assert "plot-map" not in client.get("/sae/first", headers=HTML).text


def test_map_in_columns(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = FeatureQueries.select

    def with_places(self: FeatureQueries, where: Any = (), **more: Any) -> Rows:
        table = plain(self, **more).to_arrow()
        for name, values in (
            ("map_x", np.arange(64) / 10),
            ("map_y", -np.arange(64.0)),
            ("cluster", np.arange(64) % 3 - 1),
        ):
            at = table.column_names.index(name)
            table = table.set_column(
                at, name, pa.array(values, table.schema.field(name).type, from_pandas=True, safe=False)
            )
        return Rows(table)

    monkeypatch.setattr(FeatureQueries, "select", with_places)
    found = client.get("/api/sae/map", params={"sae": "first"}).json()
    assert found["total"] == 64
    assert found["feature"] == list(range(64))
    assert found["x"][10] == 1.0
    assert found["cluster"][:4] == [-1, 0, 1, -1]
    store = open_analysis(SAEModelHub().get("first"))
    classes = [row["class"] for row in plain(store.queries, limit=None, columns=["class"])]
    assert [found["classes"][number] for number in found["firing_class"]] == classes
    few = client.get("/api/sae/map", params={"sae": "first", "limit": 10}).json()
    assert len(few["feature"]) == len(set(few["feature"])) == 10
    assert few == client.get("/api/sae/map", params={"sae": "first", "limit": 10}).json()
    rows = list(csv.DictReader(io.StringIO(client.get("/sae/first/-/plot/map.csv").text)))
    assert [int(row["feature"]) for row in rows] == list(range(64))
    assert client.get("/api/sae/map", params={"sae": "first", "limit": 0}).status_code == 422


def test_api_page_lists_every_route(client: TestClient) -> None:
    document = client.get("/api/openapi.json").json()
    page = client.get("/api", headers=HTML).text
    for path in document["paths"]:
        assert path in page
    curl = [route["curl"] for group in client.get("/api.json").json()["groups"] for route in group["routes"]]
    assert any("/api/sae/search?q=0" in line for line in curl)
    assert client.get("/about", headers=HTML).status_code == 200


def test_two_saes(client: TestClient, library: Path) -> None:
    found = client.get("/compare.json", params={"a": "first", "b": "second"}).json()
    assert found["glance"]["looked_at"] == 64
    assert found["comparison"] is None
    shares = [found["glance"]["at_least"][level] for level in ("0.5", "0.7", "0.9")]
    assert shares == sorted(shares, reverse=True)
    page = client.get("/compare?a=first&b=second", headers=HTML).text
    assert '<form method="post" action="/compare">' in page
    assert "one SAE twice" in client.get("/compare?a=first&b=first", headers=HTML).text
    assert client.get("/compare?a=first&b=nope", headers=HTML).status_code == 404
    shutil.rmtree(library / "second")
    assert "Two SAEs are needed" in client.get("/compare", headers=HTML).text
