"""The exported site: every link leads to a file, nothing needs a server, the numbers are those of the server's pages."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from neuronmap.cli import app
from neuronmap.cli.documents import DOCUMENTS


def typed(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.found += [value or "" for name, value in attrs if name in ("href", "src", "data-source", "data-plotly")]


def read(page: Path) -> _Links:
    links = _Links()
    links.feed(page.read_text())
    return links


@pytest.fixture
def site(library: Path, tmp_path: Path) -> Path:
    del library
    folder = tmp_path / "site"
    code, _, errors = typed("sae", "site", "first", "--out", folder, "--tab", "all", "--dead", "--limit", 12, "-q")
    assert code == 0, errors
    return folder


def test_every_link_leads_to_a_file_and_nothing_asks_a_server(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 2 + 5 * 12
    for page in pages:
        links = read(page)
        for link in links.found:
            parts = urlsplit(link)
            if parts.scheme == "https" or not parts.path:
                continue
            assert not parts.path.startswith("/"), (page, link)
            assert (page.parent / unquote(parts.path)).is_file(), (page, link)
        assert not links.attributes & {"action", "hx-get", "hx-post", "data-server"}, page
        assert "form" not in links.tags or 'method="dialog"' in page.read_text(), page


def test_the_pages_are_those_of_the_server(site: Path, client: TestClient) -> None:
    def words(text: str) -> set[str]:
        return set(re.findall(r">([^<>]{12,})<", text))

    served, written = words(client.get("/sae/first/-/feature/3").text), words((site / "feature/3.html").read_text())
    assert len(written) > 40
    assert written <= served
    written_numbers, numbers = (
        json.loads(text)
        for text in ((site / "feature/3.json").read_text(), client.get("/sae/first/-/feature/3.json").text)
    )
    addresses = [one.pop("to") for one in (written_numbers, numbers)]  # of the server
    assert all(addresses)
    assert written_numbers.pop("labels") is None  # nothing of who exports, or of what was said beside the label
    assert numbers.pop("labels")["history"] == []
    assert written_numbers == numbers
    assert "<script>alert" not in (site / "feature/3.html").read_text()
    listed = json.loads((site / "features.json").read_text())
    assert [row[0] for row in listed] == list(range(12))


def test_svg_stays_svg(site: Path) -> None:
    """Bars that are links on the server are plain bars here: no HTML elements inside a drawing."""
    for page in site.glob("feature/*.html"):
        for drawing in re.findall(r"<svg.*?</svg>", page.read_text(), re.S):
            assert "<span" not in drawing
            assert drawing.count("<g>") == drawing.count("</g>")


def test_what_is_chosen(library: Path, tmp_path: Path) -> None:
    del library
    where = ("--where", "density>=0.01", "--sort", "-density", "--limit", "5")
    code, out, _ = typed("sae", "site", "first", "--out", tmp_path / "few", *where, "--json")
    assert code == 0
    document = json.loads(out)
    DOCUMENTS["sae site"].model_validate(document)
    assert document["features"] == len(list((tmp_path / "few" / "feature").glob("*.html"))) <= 5
    density = [row[3] for row in json.loads((tmp_path / "few" / "features.json").read_text())]
    assert density == sorted(density, reverse=True)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--where", "density>=2"), 2, "nothing to export"),
        (("--where", "densty>=2"), 2, "density"),
        (("--tab", "tops"), 2, "quantile"),
        (("--limit", "0"), 2, "at least 1"),
        (("--analysis", "zzz"), 6, "no analysis"),
    ],
)
def test_what_cannot_be_exported_is_said(
    library: Path, tmp_path: Path, more: tuple[str, ...], code: int, said: str
) -> None:
    del library
    found, _, errors = typed("sae", "site", "first", "--out", tmp_path / "out", *more)
    assert found == code
    assert said in errors
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_unasked(site: Path, tmp_path: Path) -> None:
    assert typed("sae", "site", "first", "--out", site, "--limit", "1")[0] == 6
    assert len(list((site / "feature").glob("*.json"))) == 12
    assert typed("sae", "site", "first", "--out", site, "--limit", "1", "--replace")[0] == 0
    assert len(list((site / "feature").glob("*.json"))) == 1
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    assert typed("sae", "site", "first", "--out", mine, "--replace")[0] == 6
    assert (mine / "thesis.tex").read_text() == "years of work"


def test_an_sae_without_an_analysis_says_what_to_do(library: Path, tmp_path: Path) -> None:
    del library
    code, _, errors = typed("sae", "site", "second", "--out", tmp_path / "out")
    assert code == 6
    assert "neuronmap sae analyze" in errors
