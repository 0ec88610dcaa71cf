"""A report as a page that needs nothing, as one long table, and in words."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from subprocess import run

import pyarrow.parquet as pq
import pytest
from report_by_hand import LAYERS, bare_concept, concept, flow, full_report, trajectory

from neuronmap.abstraction.export import report_arrow, report_html, report_parquet
from neuronmap.abstraction.export.words import (
    complexity_cells,
    depth_words,
    flow_cells,
    layer_words,
    prompt_cells,
    summary_cells,
)
from neuronmap.abstraction.plots import report_plots
from neuronmap.abstraction.record import Interval

REPORT = full_report()
PAGE = report_html(REPORT)
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Balanced(HTMLParser):
    """Elements are closed in order, ids are unique, links inside the page lead somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def page() -> Balanced:
    parser = Balanced()
    parser.feed(PAGE)
    parser.close()
    return parser


def test_the_page_is_whole_and_loads_nothing(page: Balanced) -> None:
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    assert page.addresses
    assert all(address.startswith("#") and address[1:] in page.ids for address in page.addresses)
    assert "default-src 'none'" in PAGE


def test_everything_can_be_read_without_scripts(page: Balanced) -> None:
    for words in (
        "Found across every level of construction.",
        "A warning <of> the run.",
        "Only 8 clusters in the test split.",
        "1.5 (1.0 to 2.5)",
        "– (not detected)",
        "at the embedding",
        "Plots need JavaScript.",
        "“keys” (token 1)",
        "nothing: no probe is significant",
        "80 %",
    ):
        assert words in page.text, words
    for plot in report_plots(REPORT):
        assert plot.about in page.text
        assert plot.csv().splitlines()[1] in page.text.splitlines()


def test_the_word_that_is_read_is_marked() -> None:
    assert "So &lt;it&gt; is <b>here</b>" in PAGE


def test_figures_are_in_the_page_as_they_are() -> None:
    found = re.findall(
        r'<figure data-plot="([^"]+)">.*?<script type="application/json">(.*?)</script>', PAGE, re.DOTALL
    )
    assert [name for name, _ in found] == [plot.name for plot in report_plots(REPORT)]
    for (_, text), plot in zip(found, report_plots(REPORT), strict=True):
        assert json.loads(text) == json.loads(json.dumps(plot.figure))


@pytest.mark.skipif(shutil.which("node") is None, reason="node, which parses the script, is not installed")
def test_the_script_of_the_page_parses(tmp_path: Path) -> None:
    file = tmp_path / "page.js"
    file.write_text(PAGE.rpartition("<script>")[2].partition("</script>")[0])
    assert run(["node", "--check", str(file)], capture_output=True).returncode == 0


def test_a_report_with_nothing_is_a_page_too() -> None:
    parser = Balanced()
    parser.feed(
        report_html(full_report(concepts=[], similarity=None, between=None, trajectories=[], flow=None, warnings=[]))
    )
    assert parser.open == []
    assert "Abstraction report: tiny" in parser.text


# --- the long table --------------------------------------------------------------------------------------------------


def test_every_figure_is_a_row_with_its_interval(tmp_path: Path) -> None:
    path = report_parquet(REPORT, tmp_path / "report.parquet")
    table = pq.read_table(path)
    assert table.column_names == ["concept", "layer", "other_layer", "depth", "measure", "value", "low", "high"]
    rows = table.to_pylist()

    def find(**wanted: object) -> list[dict]:
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]

    (one,) = find(concept="family:one", measure="cross", layer=4)
    assert (one["value"], one["low"]) == (0.9, 0.8)
    assert one["depth"] == pytest.approx(4 / 6)
    (gap,) = find(concept="family:one", measure="within", layer=4)
    assert (gap["value"], gap["low"], gap["high"]) == (None, None, None)
    (half,) = find(concept="family:one", measure="half_depth")
    assert (half["layer"], half["value"], half["low"], half["high"]) == (None, 1.5, 1.0, 2.5)
    (emergence,) = find(concept="surface", measure="emergence")
    assert (emergence["value"], emergence["low"]) == (None, None)
    (rank,) = find(concept="three", measure="rank")
    assert (rank["value"], rank["low"], rank["high"]) == (2, 1, 2)
    assert len(find(concept="family:one", measure="transfer")) == 16
    assert find(concept=None, measure="cka", layer=0, other_layer=2)[0]["value"] == 0.5
    assert find(measure="between_procrustes", layer=4, other_layer=1)[0]["value"] == 0.7
    assert find(concept=None, measure="intrinsic_dimension", layer=0)[0]["high"] == 9.0
    assert [row["value"] for row in find(concept="family:one", measure="cross:b")] == [0.5, 0.8, 0.9, None]
    assert len(find(concept="family:one", measure="causal_swapped")) == 2
    about = json.loads(table.schema.metadata[b"neuronmap"])
    assert about["settings"] == {"seed": 3}
    assert about["datasets"]["none"] == "sha256:" + "ab" * 32


def test_the_table_of_nothing_has_its_columns() -> None:
    table = report_arrow(full_report(concepts=[], similarity=None, between=None))
    assert (table.num_rows, len(table.column_names)) == (0, 8)


def test_no_null_becomes_a_number() -> None:
    rows = report_arrow(full_report(concepts=[bare_concept("none")], similarity=None, between=None)).to_pylist()
    assert {row["value"] for row in rows} == {None}


# --- words -----------------------------------------------------------------------------------------------------------


def test_figures_in_words() -> None:
    assert depth_words(Interval(value=5.25, low=4.0, high=6.8)) == "5.2 (4.0 to 6.8)"
    assert depth_words(Interval(value=5.0)) == "5.0"
    assert (
        depth_words(Interval(value=None, reason="no effect of layers: the best is 0.01 above"))
        == "– (no effect of layers)"
    )
    assert depth_words(Interval(value=None, reason="not detected"), why=False) == "–"
    assert layer_words([0, 2, 6], LAYERS) == "0 to 2, 6"
    assert layer_words([], LAYERS) == "–"


def test_rows_in_words() -> None:
    assert summary_cells(concept("a")) == ["a", "abstract", "1.5 (1.0 to 2.5)", "2 (2 to 4)", "4 to 6", "0.950", "0.90"]
    assert summary_cells(bare_concept("n")) == ["n", "not-detected", "– (not detected)", "–", "–", "–", "–"]
    first, second, third = complexity_cells(REPORT)
    assert first[:4] == ["1 (1 to 2)", "family:one", "1.5 (1.0 to 2.5)", "40 bits"]
    assert second[1] == "three"
    assert third[0] == "–"
    assert flow_cells(flow()) == [["early", "late", "5", "0", "1", "0", "2", "3", "–", "4", "80 %"]]
    assert prompt_cells(trajectory())[0] == ["family:one", "“keys” (token 1)", "4 (2 to 4)", "2.5", "yes"]
