"""The abstraction tracker in a browser: started from its form, read with a mouse, on a phone, in the dark, without scripts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from tests.e2e.explorer.serving import Server, Visit, browsing, needs_browser, serving, sideways, visiting, whole
from tests.e2e.explorer.test_accessibility import grave
from tests.unit.web.concepts.made import QUESTION, SUBJECT, report

from neuronmap.hub.reports import store_report

pytestmark = needs_browser

PROMPT = "Did the daughter see the explorer"
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 1, "is_mobile": True, "has_touch": True}
MADE = "/concepts/made"
PAGES = {
    "home": "/",
    "start": "/concepts",
    "report": MADE,
    "concept": f"{MADE}/concept/{SUBJECT}",
    "prompt": "/concepts/first-look/prompt/0?concept=question&token=2",
    "silent prompt": f"{MADE}/prompt/1?concept={QUESTION}",
    "layers": f"{MADE}/layers",
    "flow": f"{MADE}/flow",
    "complexity": f"{MADE}/complexity",
    "compare": f"/concepts/compare?reports=made,first-look&concept={QUESTION}",
    "not measured": "/concepts/first-look/flow",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Server]:
    """A server that may use the small model, and has one report that was written by hand."""
    home = tmp_path_factory.mktemp("concepts")
    shutil.copytree(model_folder, home / "models" / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(home))
        store_report(report(), "made")
    with serving(home, home / "server.log", options=("--model-folder", str(home / "models"))) as started:
        yield started


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[Browser]:
    """A browser, closed with the module."""
    with browsing() as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Callable[..., Visit]]:
    """Opens pages with other options; their faults fail the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(visiting(browser, server.address, **options))


@pytest.fixture(scope="module")
def seen(browser: Browser, server: Server) -> dict[str, Any]:
    """The first journey, and what was seen on it: choose, start, wait, open the report."""
    found: dict[str, Any] = {}
    with visiting(browser, server.address) as visit:
        page = visit.page
        page.goto("/")
        page.get_by_role("link", name="Concepts", exact=True).click()
        page.get_by_label("language model or encoder").fill("tiny")
        for family in ("grammatical number", "syntactic role"):  # what the form begins with
            page.get_by_role("checkbox", name=family).uncheck()
        page.get_by_label("Question", exact=True).check()
        page.get_by_label("Definiteness", exact=True).check()
        page.get_by_label("Texts to follow").fill(PROMPT)
        page.get_by_label("name", exact=True).fill("first-look")
        page.get_by_role("button", name="Start tracking").click()
        page.wait_for_url("**/jobs/*")
        found["title"] = page.get_by_role("heading", level=1).inner_text()
        page.goto("/concepts")
        found["running"] = page.locator("#running .card").count()
        page.go_back()
        page.get_by_role("link", name="Open the report").click(timeout=240_000)
        expect(page.get_by_role("heading", name="first-look")).to_be_visible()
        found["report"] = whole(page).locator("main").inner_text()
    return found


def settle(page: Page) -> None:
    """Until every picture that comes into view is drawn."""
    for box in page.locator("[data-when=seen]").all():
        if box.is_visible():
            box.scroll_into_view_if_needed()
            expect(box.locator(".main-svg").first).to_be_visible()


def test_a_tracking_is_started_from_the_form_and_ends_in_a_report(seen):
    assert seen["title"] == "Tracking definiteness and question in tiny"
    assert seen["running"] <= 1
    for name in ("Question", "Definiteness", "question", "quick"):
        assert name in seen["report"]


def test_from_the_report_to_a_prompt(seen, visit):
    page = visit().page
    page.goto("/concepts/first-look")
    page.get_by_role("link", name="Question", exact=True).click()
    expect(page.locator("svg[aria-label^='Question: by layer']")).to_be_visible()
    page.get_by_role("button", name="Make this plot interactive: Question: by layer").click()
    expect(page.locator("figure[id^=curve] .js-plotly-plot .main-svg").first).to_be_visible()
    page.get_by_text("Every layer as a table").click()
    expect(page.get_by_role("region", name="Scores at every layer")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_label("Data of this plot as CSV: Question: by layer").click()
    assert download.value.path().read_text().startswith("layer,depth,cross,")
    page.get_by_role("link", name="Prompts").click()
    settle(page)
    page.get_by_role("link", name="Definiteness", exact=True).click()
    expect(page.get_by_role("heading", name="Definiteness")).to_be_visible()
    page.get_by_role("link", name="Layers", exact=True).click()
    page.wait_for_url("**/layers")


def test_a_click_before_the_scripts_have_come_is_done_when_they_have(seen, visit):
    """The page is there to be read and clicked long before what draws."""
    page, held = visit().page, list[Route]()
    page.route(re.compile("(figures|explorer)[^/]*[.]js"), lambda route: held.append(route))
    page.goto("/concepts/first-look/concept/question", wait_until="commit")
    page.get_by_role("button", name="Make this plot interactive: Question: by layer").click()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    expect(page.locator("dialog#help")).to_be_hidden()
    while len(held) < 2:
        page.wait_for_timeout(20)
    for route in held:
        route.continue_()
    expect(page.locator("figure[id^=curve] .js-plotly-plot .main-svg").first).to_be_visible()
    expect(page.locator("dialog#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Keyboard shortcuts").click()  # and from then on as always
    expect(page.locator("dialog#help")).to_be_visible()


def test_pictures_are_drawn_within_the_policy_and_follow_the_theme(seen, visit):
    """The fixture fails the test at a refusal by the content policy."""
    page = visit().page
    page.goto(f"{MADE}/layers")
    settle(page)
    expect(page.locator(".js-plotly-plot .cbfill").first).to_be_attached()
    ink = "() => getComputedStyle(document.querySelector('.js-plotly-plot .xtitle')).fill"
    light = page.evaluate(ink)
    page.get_by_role("button", name="Light or dark").click()
    page.wait_for_function(f"(before) => ({ink})() !== before", arg=light)
    page.get_by_role("link", name="CKA, raw").click()
    page.wait_for_url("**measure=cka")
    settle(page)
    names = """() => document.querySelector(".js-plotly-plot").data
      .filter((one) => one.type === "heatmap" && one.visible === true).map((one) => one.name)"""
    assert page.evaluate(names) == ["raw"]


def test_a_click_in_the_flow_goes_to_the_feature(seen, visit):
    visited = visit()
    page = visited.page
    page.goto(f"{MADE}/flow")
    settle(page)
    page.locator(".sankey-node .node-rect").first.click(force=True)
    page.wait_for_url(re.compile(r"/sae/(first|later/sae)/-/feature/\d+$"))
    assert all("404" in fault for fault in visited.faults)  # the library of this server has no SAE
    visited.faults.clear()


@pytest.mark.parametrize("name", PAGES)
def test_no_serious_fault(seen, visit, name):
    page = visit().page
    page.goto(PAGES[name])
    page.locator("main details:not(.about)").evaluate_all("(all) => all.forEach((one) => { one.open = true; })")
    settle(page)
    faults = grave(page)
    page.emulate_media(color_scheme="dark")
    assert not faults + grave(page, runOnly=["color-contrast"])


@pytest.mark.parametrize("options", [PHONE, {"viewport": {"width": 800, "height": 700}, "java_script_enabled": False}])
def test_no_page_scrolls_sideways(seen, visit, options):
    page = visit(**options).page
    wide = {}
    for name, address in PAGES.items():
        page.goto(address)
        if options is PHONE:
            settle(page)
        if sideways(page) > 0:
            wide[name] = sideways(page)
    assert not wide


def test_everything_is_read_without_scripts(seen, visit):
    page = visit(java_script_enabled=False).page
    page.goto(f"{MADE}/concept/{SUBJECT}")
    expect(page.locator("svg[aria-label^='Number of the subject: by layer'] polygon").first).to_be_visible()
    expect(page.get_by_role("button", name="Make this plot interactive")).to_have_count(0)
    page.goto(f"{MADE}/prompt/0?concept={SUBJECT}")
    row = page.locator("table.tokens-by-layers tbody tr").nth(1)
    assert row.inner_text().split() == ["·key", "n", "+0.5", "−1.0", "+2.5", "+2.0"]
    expect(page.get_by_text("The picture needs scripts").first).to_be_visible()
    page.goto("/concepts")
    page.get_by_label("Compare made").check()
    page.get_by_label("Compare first-look").check()
    page.get_by_role("button", name="Compare the ticked ones").click()
    page.locator("select[name=concept]").select_option(QUESTION)
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator("table.concepts tbody tr")).to_have_count(2)


def test_a_wrong_name_is_said_and_what_was_typed_is_kept(seen, visit):
    visited = visit()
    page = visited.page
    page.goto("/concepts")
    page.get_by_label("language model or encoder").fill("nowhere")
    page.get_by_label("Texts to follow").fill(PROMPT)
    page.get_by_role("button", name="Start tracking").click()
    expect(page.get_by_role("alert")).to_contain_text("is no model that this server may use")
    expect(page.get_by_label("Texts to follow")).to_have_value(PROMPT)
    assert all("422" in fault for fault in visited.faults)
    visited.faults.clear()
