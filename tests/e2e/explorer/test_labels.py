"""Two people and a language model label the same features: in two browsers, disputed in the open, merged through the zoo."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.e2e.explorer.serving import Server, needs_browser, serving, sideways, visiting
from tests.e2e.explorer.targets import crowded
from tests.e2e.explorer.test_accessibility import grave
from tests.unit.web.conftest import small_home  # noqa: F401 - a fixture: a small library on a model with random weights

from neuronmap.interpretation.labels import Author, Label, Score, stamp
from neuronmap.interpretation.labels.book import LabelBook

pytestmark = needs_browser

SAE = "first"
MODEL = Author(kind="model", name="recorded-llm")


def neuronmap(home: Path, *words: str) -> Any:
    """A command's document."""
    done = subprocess.run(
        [sys.executable, "-m", "neuronmap", *words, "--json", "--quiet"],
        env={**os.environ, "NEURONMAP_HOME": str(home)}, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def a_models_labels(home: Path, weights: str, features: list[int]) -> None:
    """What a language model said, as it was recorded: labels with a score each."""
    labels = [
        Label(sae=weights, feature=one, author=MODEL, at=stamp(), text="words about the state", method="quantiles@1")
        for one in features
    ]
    scores = [
        Score(sae=weights, feature=one.feature, author=MODEL, at=stamp(), label=one.id, protocol="detection@1",
              value=0.7, low=0.6, high=0.8, figures={"parsed": 40})
        for one in labels
    ]  # fmt: skip
    with LabelBook.open(f"sqlite:///{home / 'labels.sqlite3'}") as book:
        book.add([*labels, *scores])


def introduce(page: Page, name: str) -> None:
    page.get_by_label("You speak as").fill(name)
    page.get_by_role("button", name=re.compile("Change name|That is me")).click()
    expect(page.get_by_label("You speak as")).to_have_value(name)


def call_it(page: Page, text: str) -> None:
    page.get_by_label("A label of your own").fill(text)
    page.get_by_role("button", name="Add label").click()
    expect(page.locator("#labels .card.label h3", has_text=text)).to_be_visible()


def card(page: Page, text: str) -> Any:
    return page.locator("#labels .card.label").filter(has=page.get_by_role("heading", name=text))


@pytest.fixture(scope="module")
def new_home(small_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:  # noqa: F811
    """Makes a copy of the small home."""

    def make() -> Path:
        home = tmp_path_factory.mktemp("labels-home")
        shutil.copytree(small_home, home, dirs_exist_ok=True)
        return home

    return make


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a copy of its own: nobody else's labels are in its book."""
    with serving(new_home(), tmp_path_factory.mktemp("log") / "server.log") as started:
        yield started


def test_two_people_and_a_model_label_dispute_judge_and_merge(
    visit: Callable[..., Any], server: Server, new_home: Callable[[], Path], browser: Browser, tmp_path: Path
) -> None:
    alive = server.get(f"/api/sae/features?sae={SAE}&where=status=alive&sort=-firings&limit=2")["features"]
    features = [one["feature"] for one in alive]
    weights = server.get(f"/api/sae/labels?sae={SAE}")["weights"]
    a_models_labels(server.home, weights, features)
    ada, bob = visit().page, visit(java_script_enabled=False).page
    for page, name in ((ada, "Ada"), (bob, "Bob")):
        page.goto(f"/sae/{SAE}/-/feature/{features[0]}")
        introduce(page, name)
    for number in features:
        for page, text in ((ada, f"Ada's idea of {number}"), (bob, f"Bob's idea of {number}")):
            page.goto(f"/sae/{SAE}/-/feature/{number}")
            call_it(page, text)
    # Ada's page has not moved: htmx has put the new panel in its place
    ada.goto(f"/sae/{SAE}/-/feature/{features[0]}")
    expect(ada.locator("#labels .card.label")).to_have_count(3)
    before = ada.url
    card(ada, f"Bob's idea of {features[0]}").get_by_role("button", name="Wrong").click()
    expect(card(ada, f"Bob's idea of {features[0]}")).to_contain_text("1 against")
    assert ada.url == before
    bob.goto(f"/sae/{SAE}/-/feature/{features[0]}")
    card(bob, f"Ada's idea of {features[0]}").get_by_role("button", name="Wrong").click()
    expect(bob.get_by_text("Disputed:")).to_be_visible()
    expect(card(bob, f"Ada's idea of {features[0]}")).to_contain_text("(Bob −)")
    card(bob, f"Ada's idea of {features[0]}").get_by_text("Comment, flag").click()
    remark = "It fires on <b>other</b> words, too."
    card(bob, f"Ada's idea of {features[0]}").get_by_label("Comment on this label").fill(remark)
    card(bob, f"Ada's idea of {features[0]}").get_by_role("button", name="Comment").click()
    expect(card(bob, f"Ada's idea of {features[0]}")).to_contain_text(remark)
    ada.reload()
    mine = card(ada, f"Ada's idea of {features[0]}")
    mine.get_by_text("Reword or take back").click()
    mine.get_by_role("textbox", name="Label").fill("a better idea")
    mine.get_by_role("button", name="Reword").click()
    expect(card(ada, "a better idea")).to_contain_text("0 against")
    ada.get_by_text(re.compile("^History")).click()
    expect(ada.locator(".past")).to_contain_text(f"against: Ada's idea of {features[0]}")
    ada.get_by_role("button", name="☆ Bookmark").click()
    expect(ada.get_by_role("button", name="★ Bookmarked")).to_be_visible()
    ada.goto("/labels/lists")
    expect(ada.locator(".hits")).to_contain_text(str(features[0]))
    ada.goto(f"/sae/{SAE}/-/labels?conflict=1&sort=-votes")
    expect(ada.locator("tbody tr")).to_have_count(6)
    expect(ada.locator("tbody")).to_contain_text("detection 0.70")
    ada.goto(f"/search?q=better+idea&sae={SAE}")
    expect(ada.get_by_text("called “a better idea” by Ada")).to_be_visible()

    judge_blindly(ada, ["Ada", "Bob", MODEL.name])
    judge_blindly(bob, ["Ada", "Bob", MODEL.name])
    ada.goto(f"/sae/{SAE}/-/labels/results")
    expect(ada.locator("dl.facts")).to_contain_text("6")

    merge_elsewhere(server, new_home(), browser, features[0], tmp_path)


def judge_blindly(page: Page, authors: list[str]) -> None:
    """Three answers, while the page tells nothing of whose the labels are."""
    page.goto(f"/sae/{SAE}/-/labels/blind")
    for done in range(3):
        expect(page.get_by_text(re.compile(rf"^{done} of \d+ answered"))).to_be_visible()
        label = page.locator("#task .lead strong").inner_text()
        shown = page.locator("#task form").first.inner_html().replace(label, "")
        assert not any(author in shown for author in authors)
        page.get_by_role("button", name="It fires here").click()
    expect(page.get_by_text(re.compile(r"^3 of \d+ answered"))).to_be_visible()


def merge_elsewhere(server: Server, other: Path, browser: Browser, feature: int, tmp_path: Path) -> None:
    """All that was said goes through the zoo of the server's home into another home, where Cleo had a label of her own."""
    zoo = str(server.home / "zoo")
    (cleos,) = [neuronmap(other, "sae", "labels", "add", SAE, str(feature), "Cleo's idea", "--author", "Cleo")["label"]]
    neuronmap(server.home, "zoo", "publish", SAE, "--as", "ada/first@1.0", "--licence", "MIT", "--zoo", zoo)
    labels = ("--labels", "--as", "ada/first-labels@1.0", "--licence", "CC0-1.0", "--zoo", zoo)
    neuronmap(server.home, "zoo", "publish", SAE, *labels)
    found = neuronmap(other, "sae", "labels", "merge-report", SAE, "ada/first-labels@1.0", "--zoo", zoo)
    assert feature in found["conflicts"]
    neuronmap(other, "zoo", "pull", "ada/first-labels@1.0", "--into-library", "--zoo", zoo)
    with LabelBook.open(f"sqlite:///{server.home / 'labels.sqlite3'}") as there:
        said = {act.id for act in there.acts()}
    with LabelBook.open(f"sqlite:///{other / 'labels.sqlite3'}") as here:
        assert {act.id for act in here.acts()} == said | {cleos["id"]}
    with serving(other, tmp_path / "other.log") as second, visiting(browser, second.address) as visit:
        visit.page.goto(f"/sae/{SAE}/-/feature/{feature}")
        expect(visit.page.get_by_text("Disputed:")).to_be_visible()
        for text in ("a better idea", f"Bob's idea of {feature}", "words about the state", "Cleo's idea"):
            expect(card(visit.page, text)).to_be_visible()
        expect(card(visit.page, f"Bob's idea of {feature}")).to_contain_text("(Ada −)")


@pytest.mark.parametrize(
    "address",
    [
        f"/sae/{SAE}/-/feature/3",
        f"/sae/{SAE}/-/labels",
        "/labels/lists",
        f"/sae/{SAE}/-/labels/blind",
        f"/sae/{SAE}/-/labels/results",
    ],
)
def test_no_serious_fault_on_pages_of_labels(visit: Callable[..., Any], server: Server, address: str) -> None:
    """As axe-core sees it, with all that opens, light and dark; nothing is too small or wider than a phone."""
    weights = server.get(f"/api/sae/labels?sae={SAE}")["weights"]
    a_models_labels(server.home, weights, [3])
    page = visit().page
    page.goto(f"/sae/{SAE}/-/feature/3")
    introduce(page, "Cleo")
    if not page.get_by_role("button", name="★ Bookmarked").count():
        call_it(page, f"an idea {address.count('/')}")
        page.get_by_role("button", name="☆ Bookmark").click()
        expect(page.get_by_role("button", name="★ Bookmarked")).to_be_visible()
    page.goto(address)
    page.locator("main details:not(.about)").evaluate_all("(all) => all.forEach((one) => { one.open = true; })")
    faults = grave(page)
    page.emulate_media(color_scheme="dark")
    faults += grave(page, runOnly=["color-contrast"])
    assert not faults + crowded(page, 1280) + crowded(page, 390)
    assert not sideways(page)
