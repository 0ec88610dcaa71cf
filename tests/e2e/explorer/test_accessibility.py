"""axe-core finds nothing serious on any page, with all that it opens, light and dark; what can be pointed at is large enough."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from tests.e2e.explorer.serving import SAE, marks, serving, visiting
from tests.e2e.explorer.targets import crowded

pytestmark = [pytest.mark.slow, *marks]

NAMES = (
    "home", "SAE", "features", "cards", "feature", "dead feature", "similarity", "compare features", "compare SAEs", "leaderboard",
    "examples", "search", "text", "steer", "analyse", "concepts", "train", "jobs", "job", "runs", "about", "api",
)  # fmt: skip


def grave(page: Page, **options: Any) -> list[str]:
    """What axe-core calls serious or critical, one line each."""
    found: dict[str, Any] = Axe().run(page, options={"resultTypes": ["violations"], **options}).response
    return [
        f"{fault['id']} ({fault['impact']}): {node['target']} {node['html'][:160]} {node.get('failureSummary', '')[:300]}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"][:4]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_serious_fault(visit, known, name):
    page = visit().page
    page.goto(known.pages()[name])
    expect(page.locator("[aria-busy=true]")).to_have_count(0, timeout=120_000)
    page.locator("main details:not(.about)").evaluate_all("(all) => all.forEach((one) => { one.open = true; })")
    faults = grave(page)
    page.emulate_media(color_scheme="dark")
    faults += grave(page, runOnly=["color-contrast"])
    faults += crowded(page, 1280) + crowded(page, 390)
    faults += grave(page, runOnly=["scrollable-region-focusable"])  # what fits a wide window scrolls on a phone
    assert not faults


def test_the_measure_of_targets_sees_what_is_too_small(page):
    page.goto("/about")
    two = (
        "<p><a href='/a'>x</a> <a href='/b'>y</a></p><p>A word, <a href='/c'>z</a>, in a <a href='/d'>sentence</a>.</p>"
    )
    page.evaluate("(two) => document.querySelector('main').insertAdjacentHTML('beforeend', two)", two)
    assert ["/a" in one or "/b" in one for one in crowded(page, 1280)] == [True, True]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_on_pages_of_errors(visit, scheme):
    seen = visit(color_scheme=scheme)
    for address in ("/sae/nothing", f"/sae/{SAE}/-/feature/99999", "/nowhere"):
        seen.page.goto(address)
        assert not grave(seen.page), address
    assert all("404" in fault for fault in seen.faults)
    seen.faults.clear()


def test_the_help_has_no_serious_fault(page):
    page.goto("/")
    page.keyboard.press("?")
    assert not grave(page)


def test_signing_in(browser, tmp_path):
    """A server with a token: the page that refuses, the form, a wrong token, the right one."""
    token = "a-token-of-this-test-alone"
    with (
        serving(tmp_path, tmp_path / "server.log", token) as guarded,
        visiting(browser, guarded.address) as seen,
    ):
        page = seen.page
        page.goto("/")
        assert not grave(page)
        page.goto("/sign-in")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert not grave(page)
        page.get_by_label("Token").fill("not this one")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not the server's token")
        assert all("401" in fault for fault in seen.faults)
        seen.faults.clear()
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("No SAE yet")).to_be_visible()
