"""Pages of a stored report: every figure, readable without scripts, as JSON and CSV, with what is not there said."""

from __future__ import annotations

import csv
import html
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.unit.web.concepts.made import DIGEST, LAYERS, QUESTION, SUBJECT, TAG, flow, report, similarity

from neuronmap.abstraction.record import TrackingReport
from neuronmap.hub.reports import reports_folder, store_report

PAGES = {
    "/concepts": None,
    "/concepts/tried": None,
    f"/concepts/tried/concept/{SUBJECT}": None,
    f"/concepts/tried/concept/{QUESTION}": None,
    "/concepts/tried/prompt/0": f"concept={SUBJECT}&token=1",
    "/concepts/tried/prompt/1": f"concept={QUESTION}",
    "/concepts/tried/layers": "measure=predictivity",
    "/concepts/tried/flow": "kind=split&pair=0",
    "/concepts/tried/complexity": "sort=mdl_bits",
    "/concepts/compare": f"reports=tried,again&concept={SUBJECT}",
}


def text_of(page: str) -> str:
    """What a reader sees, without tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.fixture
def two(reader: TestClient) -> TestClient:
    """With a second report."""
    store_report(report(preset="full", flow=None, trajectories=[]), "again")
    return reader


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_there_as_page_and_as_json(two: TestClient, path: str) -> None:
    query = f"?{PAGES[path]}" if PAGES[path] else ""
    for address in {path, path + query}:
        page = two.get(address, headers={"Accept": "text/html"})
        assert page.status_code == 200, page.text
        assert TAG not in page.text
        assert "style=" not in page.text
        assert len(page.content) < 150_000
        assert len(re.findall("<h1[ >]", page.text)) == 1
        for csv_address in set(re.findall(r'href="([^"]+\.csv[^"]*)"', page.text)):
            rows = list(csv.reader(io.StringIO(two.get(html.unescape(csv_address)).text)))
            assert len(rows) > 1
            assert {len(row) for row in rows} == {len(rows[0])}
        for figure in set(re.findall(r'data-figure="([^"]+)"', page.text)):
            found = two.get(html.unescape(figure)).json()
            assert found["about"]
            assert found["figure"]["data"]
    assert two.get(f"{path}.json{query}").status_code == 200


def test_the_report_says_what_was_found_and_on_what_it_rests(reader: TestClient) -> None:
    page = reader.get("/concepts/tried", headers={"Accept": "text/html"}).text
    said = text_of(page)
    assert "1.8 (1.5 to 2.2) 0.45 of the depth" in said
    assert "not established: present at the embedding" in said
    assert "2 (1 to 2) 3–4" in said
    assert "The whole run is small." in said
    assert "quick, seed 7, NeuronMap 0.1.0" in said
    assert DIGEST[7:15] in said
    assert "112 items" in said
    assert "/somewhere" not in page  # where a model lies on this machine is nobody's business
    shown = reader.get("/concepts/tried.json").json()
    assert [one["name"] for one in shown["concepts"]] == [SUBJECT, QUESTION]
    assert shown["concepts"][0]["curve"] == [0.5, 0.55, 0.75, 0.95, 0.94]
    assert shown["basis"]["model"] == "tiny"


def test_a_concept_is_drawn_and_tabled_without_scripts(reader: TestClient) -> None:
    page = reader.get(f"/concepts/tried/concept/{SUBJECT}", headers={"Accept": "text/html"}).text
    drawn = re.search(
        r'<svg class="chart drawn" [^>]*aria-label="Number of the subject: by layer.*?</svg>', page, re.DOTALL
    )
    assert drawn is not None
    assert "<polygon" in drawn[0]  # bands
    assert "null: 95" in drawn[0]
    said = text_of(page)
    assert "2 0.750 0.65 to 0.85 0.700" in said
    assert "trained at 0 1 2 3 4 0 .50 .45 .40 .35 .30" in said
    assert "The keys <script>alert(1)</script> probably plural distant" in said
    assert "<mark>probably</mark>" in page
    assert (
        "Is or are after the subject; without a change the right continuation is ahead by 1.25 nats, on 16 texts"
        in said
    )
    assert "selectivity" in said
    assert "Number of the subject: 112 items, data 123456781234" in said
    other = text_of(reader.get(f"/concepts/tried/concept/{QUESTION}", headers={"Accept": "text/html"}).text)
    assert "No causal profile" in other
    assert "at the embedding" in other
    shown = reader.get(f"/concepts/tried/concept/{SUBJECT}.json").json()
    assert shown["result"]["transfer"][2][2] == pytest.approx(0.6)
    assert (shown["previous"], shown["following"]) == (None, QUESTION)


def test_a_prompt_is_a_table_of_values_and_of_reasons_why_there_is_none(reader: TestClient) -> None:
    page = reader.get("/concepts/tried/prompt/0", headers={"Accept": "text/html"}).text
    said = text_of(page)
    assert "·key n +0.5 −1.0 +2.5 +2.0" in said
    assert "d d d d −0.5" in said
    assert "0 position 0 (5 cells)" in said
    assert "d out of domain (4 cells)" in said
    assert "Strongest at ·key (token 1), layer 3; layers 3 to 4 cannot be told from it." in said
    assert "layer 0 layer 1" in said  # the lens
    assert "↵" in said
    silent = text_of(reader.get(f"/concepts/tried/prompt/0?concept={QUESTION}", headers={"Accept": "text/html"}).text)
    assert "No cell says anything" in silent


def test_a_long_prompt_is_read_page_by_page(empty: TestClient) -> None:
    made = report()
    one = made.trajectories[0]
    concepts = [
        part.updated(log_odds=[part.log_odds[1]] * 100, grey=[[""] * 5] * 100, peak_token=60) for part in one.concepts
    ]
    long = one.updated(tokens=[f" t{at}" for at in range(100)], concepts=concepts, lens=None, lens_probability=None)
    store_report(made.updated(trajectories=[long]), "long")
    first = empty.get("/concepts/long/prompt/0.json").json()
    assert (len(first["rows"]), first["earlier"], first["later"]) == (48, None, 48)
    last = empty.get("/concepts/long/prompt/0.json?from=96").json()
    assert ([row["position"] for row in last["rows"]], last["later"]) == ([96, 97, 98, 99], None)
    page = empty.get("/concepts/long/prompt/0", headers={"Accept": "text/html"}).text
    assert "Later tokens" in page
    assert "No logit lens" in page
    assert empty.get("/concepts/long/prompt/0?from=100").status_code == 404


def test_layers_by_every_measure(reader: TestClient) -> None:
    said = text_of(reader.get("/concepts/tried/layers", headers={"Accept": "text/html"}).text)
    assert "256 tokens of speeches" in said
    assert "2 blocks of alike ones: 0–1, 2–4 (boundary in 80 % of the resamples)" in said
    assert "0 1.00 .80 .60 .40 .20" in said
    assert "12.0 10.0 to 14.0 10 10 10 0.1" in said
    shown = reader.get("/concepts/tried/layers.json?measure=predictivity").json()
    assert shown["values"][0] == [None] * 5
    assert "concept-overlap" not in shown["measures"]
    assert reader.get("/concepts/tried/layers?measure=concept-overlap").status_code == 200
    assert reader.get("/concepts/tried/layers?measure=nonsense").status_code == 422


def test_layers_of_two_models(empty: TestClient) -> None:
    made = similarity()
    row = [0.9, 0.7, 0.5]
    squares = dict.fromkeys(
        ("cka", "cka_standardized", "cka_error", "mutual_knn", "procrustes", "predictivity"), [row] * 5
    )
    store_report(
        report(between=made.updated(other_model="/where/it/is/second", other_layers=[0, 1, 2], **squares)), "two"
    )
    own = empty.get("/concepts/two/layers.json").json()
    assert (own["other_model"], own["second"]) == (None, "second")
    page = empty.get("/concepts/two/layers?beside=true&measure=cka", headers={"Accept": "text/html"}).text
    assert "rows are layers of tiny, columns of second" in text_of(page)
    assert "layer 0 1 2 0 .90 .70 .50 1 .90 .70 .50" in text_of(page)
    assert "/where" not in page + empty.get("/api/sae/reports/two").text
    table = empty.get("/api/sae/reports/two/plots/between-cka.csv").text.splitlines()
    assert len(table) == 5 * 3 + 1
    store_report(report(similarity=None, between=made.updated(other_model="b")), "alone")
    assert empty.get("/concepts/alone/layers.json").json()["other_model"] == "b"


def test_a_deep_model_has_tables_of_some_of_its_layers(empty: TestClient) -> None:
    layers = list(range(97))
    row = [0.5] * 97
    made = similarity()
    lines = dict.fromkeys(("participation_ratio", "mean_norm", "isotropy", "first_position_norm"), row)
    squares = {
        name: [row] * 97
        for name in ("cka", "cka_standardized", "cka_error", "mutual_knn", "procrustes", "predictivity")
    }
    dimension = [made.intrinsic_dimension[0]] * 97
    deep = made.updated(layers=layers, other_layers=layers, intrinsic_dimension=dimension, **squares, **lines)
    store_report(report(similarity=deep), "deep")
    page = empty.get("/concepts/deep/layers", headers={"Accept": "text/html"})
    assert len(page.content) < 150_000
    head = re.search(r"<thead><tr>.*?</tr>", page.text, re.DOTALL)
    assert head is not None
    assert re.findall(r">(\d+)<", head[0])[-1] == "96"
    assert "all of them are in the CSV" in page.text
    assert len(empty.get("/api/sae/reports/deep/plots/layers-cka.csv").text.splitlines()) == 97 * 97 + 1


def test_features_lead_to_their_pages_where_the_library_has_their_sae(client: TestClient) -> None:
    store_report(report(flow=flow("first", "elsewhere", edges=130)), "tried")
    page = client.get("/concepts/tried/flow", headers={"Accept": "text/html"}).text
    assert 'href="/sae/first/-/feature/3"' in page
    assert "/sae/elsewhere" not in page
    said = text_of(page)
    assert "elsewhere is not in this library" in said
    assert "1 to 60 of 130" in said
    assert f"3 layer 1 ends in {TAG} split" in said
    assert "75 %" in said
    last = client.get("/concepts/tried/flow.json?from=120&pair=0").json()
    assert (len(last["lines"]), last["later"]) == (10, None)
    only = client.get("/concepts/tried/flow.json?kind=pass-through").json()
    assert {line["kind"] for line in only["lines"]} == {"pass-through"}
    assert only["carriers"][0]["auc"] == 0.91
    assert client.get("/concepts/tried/flow?pair=1").status_code == 404


def test_complexity_is_sorted_by_any_component(reader: TestClient) -> None:
    page = text_of(reader.get("/concepts/tried/complexity", headers={"Accept": "text/html"}).text)
    assert "1 1 to 2 1.8 1.5 to 2.2 85 77 to 94" in page
    assert "not measured" in page
    for name in ("half_depth", "mdl_bits", "context_need"):
        rows = reader.get(f"/concepts/tried/complexity.json?sort={name}").json()["rows"]
        assert [row["name"] for row in rows] == [SUBJECT, QUESTION]


def test_several_models_are_laid_over_each_other(two: TestClient) -> None:
    shown = two.get("/concepts/compare.json?reports=tried&reports=again").json()
    assert shown["reports"] == ["tried", "again"]
    assert shown["concept"] == SUBJECT
    assert shown["same_items"]
    rows = list(csv.DictReader(io.StringIO(two.get(shown["plot"]["csv"]).text)))
    assert {row["depth"] for row in rows} == {"0.0", "0.25", "0.5", "0.75", "1.0"}
    assert len(rows) == 2 * len(LAYERS)
    store_report(report(concepts=report().concepts[1:]), "less")
    page = text_of(
        two.get(f"/concepts/compare?reports=tried,less&concept={SUBJECT}", headers={"Accept": "text/html"}).text
    )
    assert "less does not have grammatical_number:subject" in page
    names = ",".join(f"r{at}" for at in range(7))
    assert two.get(f"/concepts/compare?reports={names}").status_code == 422
    assert two.get("/concepts/compare?reports=tried&concept=nothing").status_code == 404
    assert two.get("/concepts/compare?reports=nobody").status_code == 404
    assert "Tick two reports" in two.get("/concepts/compare", headers={"Accept": "text/html"}).text


def test_what_was_not_measured_is_said(empty: TestClient) -> None:
    bare = report(similarity=None, flow=None, trajectories=[], concepts=[], warnings=[])
    store_report(bare, "bare")
    for part, words in (
        ("layers", "not compared"),
        ("flow", "No features were followed"),
        ("complexity", "not worked out"),
    ):
        page = empty.get(f"/concepts/bare/{part}", headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert words in page.text
        assert empty.get(f"/concepts/bare/{part}.json").status_code == 200
    assert "no concepts" in empty.get("/concepts/bare", headers={"Accept": "text/html"}).text


@pytest.mark.parametrize(
    "path",
    [
        "/concepts/nobody",
        "/concepts/tried/concept/nothing",
        "/concepts/tried/prompt/2",
        f"/concepts/tried/prompt/0?concept={TAG}",
        "/concepts/tried/prompt/0?token=3",
        "/api/sae/reports/nobody",
        "/api/sae/reports/tried/plots/nothing",
        "/api/sae/reports/tried/plots/nothing.csv",
        "/api/sae/compare_reports?reports=tried&concept=nothing",
        "/api/sae/compare_reports?reports=nobody&concept=question",
    ],
)
def test_what_does_not_exist_is_not_found(reader: TestClient, path: str) -> None:
    page = reader.get(path, headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert TAG not in page.text
    assert reader.get(path).json()["error"]["code"] in ("not_found", "not_in_library")


@pytest.mark.parametrize("name", ["..", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc", "tried%2f..%2ftried", ".hidden"])
def test_no_path_is_taken_for_a_report(reader: TestClient, name: str) -> None:
    assert reader.get(f"/api/sae/reports/{name}").status_code in (404, 405)
    assert reader.get(f"/concepts/{name}/complexity").status_code == 404


def test_a_damaged_report_is_shown_as_one(reader: TestClient, home: Path) -> None:
    (reports_folder() / "broken").mkdir()
    (reports_folder() / "broken" / "report.json").write_text("{")
    for page in ("/concepts", "/"):
        said = reader.get(page, headers={"Accept": "text/html"}).text
        assert "cannot be read" in said
        assert str(home) not in said
    answer = reader.get("/api/sae/reports/broken")
    assert answer.status_code == 409
    assert str(home) not in answer.text
    assert reader.get("/api/sae/reports/tried").status_code == 200


def test_the_record_is_sent_whole_with_an_etag(reader: TestClient) -> None:
    answer = reader.get("/api/sae/reports/tried")
    found = TrackingReport(**answer.json())
    assert found.updated(name="", model=report().model) == report()
    assert found.model["name"] == "tiny"
    again = reader.get("/api/sae/reports/tried", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    store_report(report(preset="full"), "tried", replace=True)
    assert reader.get("/api/sae/reports/tried").json()["preset"] == "full"


def test_the_list_of_reports(two: TestClient) -> None:
    found = two.get("/api/sae/reports").json()["reports"]
    assert {one["name"] for one in found} == {"tried", "again"}
    one = next(one for one in found if one["name"] == "tried")
    assert one["verdicts"] == {"abstract": 1, "within-only": 1}
    assert (one["model"], one["prompts"], one["flow"]) == ("tiny", 2, True)
    assert "path" not in one
    home_page = text_of(two.get("/", headers={"Accept": "text/html"}).text)
    assert "tried tiny · 2 concepts, quick · 2026-01-02 1 abstract 1 within-only" in home_page


def test_reports_are_read_without_torch(reader: TestClient, home: Path) -> None:
    program = """
import sys
from fastapi.testclient import TestClient
from neuronmap.web.app import create_app
from neuronmap.web.settings import ServerSettings
with TestClient(create_app(ServerSettings(supervise=False)), base_url="http://localhost") as client:
    for path in sys.argv[1:]:
        assert client.get(path).status_code == 200, path
assert "torch" not in sys.modules
"""
    paths = [
        "/concepts",
        "/concepts/tried",
        f"/concepts/tried/concept/{SUBJECT}",
        "/concepts/tried/layers",
        "/concepts/tried/flow",
    ]
    ran = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
