"""Every page on a phone, in the dark, and with nothing wrong in its console."""

from __future__ import annotations

from playwright.sync_api import expect
from tests.e2e.explorer.serving import SAE, marks, sideways

pytestmark = marks

PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 1, "is_mobile": True, "has_touch": True}


def settle(page) -> None:
    """Until nothing is loaded or worked out any more."""
    expect(page.locator("[aria-busy=true]")).to_have_count(0, timeout=120_000)
    if page.locator("#plot-map").count():
        page.locator("#plot-map").scroll_into_view_if_needed()
        expect(page.locator("[data-state]")).to_contain_text("features.")


def test_no_page_scrolls_sideways_on_a_phone(visit, known):
    """Each page is also read without a fault: no error in the console, no failed request."""
    page = visit(**PHONE).page
    wide = {}
    for name, address in known.pages().items():
        page.goto(address)
        settle(page)
        if sideways(page) > 0:
            wide[name] = sideways(page)
    assert not wide


def test_no_page_scrolls_sideways_in_a_narrow_window(visit, known):
    page = visit(viewport={"width": 800, "height": 700}).page
    wide = {}
    for name, address in known.pages().items():
        page.goto(address)
        if sideways(page) > 0:
            wide[name] = sideways(page)
    assert not wide


def test_a_value_is_shown_at_a_touch(visit, known):
    page = visit(**PHONE).page
    page.goto(f"/sae/{SAE}/-/feature/{known.feature}")
    page.locator("section[aria-labelledby=examples] b.t").first.tap()
    expect(page.locator("#tip")).to_contain_text("of the largest")


def test_dark_is_what_the_system_says_until_another_is_chosen(visit, known):
    page = visit(color_scheme="dark").page
    page.goto(f"/sae/{SAE}")
    paper = "() => getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    assert max(int(part) for part in dark.removeprefix("rgb(").removesuffix(")").split(",")) < 60
    settle(page)
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    page.goto(f"/sae/{SAE}/-/feature/{known.feature}")
    assert page.evaluate(paper) == "rgb(255, 255, 255)", "the choice is kept"
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate(paper) == dark


def test_nothing_is_wrong_on_any_page(visit, known):
    """The fixture fails the test at an error in the console, an exception or a request that failed."""
    page = visit(color_scheme="dark").page
    for address in known.pages().values():
        page.goto(address)
        settle(page)
        expect(page.locator("h1")).to_have_count(1)


def test_an_embedded_feature_is_alone_on_its_page(visit, known):
    page = visit(viewport={"width": 640, "height": 720}).page
    page.goto(f"/sae/{SAE}/-/feature/{known.feature}?embed=1&plots=histogram,examples")
    expect(page.locator("header.top")).to_have_count(0)
    expect(page.locator(".ex").first).to_be_visible()
    expect(page.locator("svg[aria-label='Firings by activation']")).to_be_visible()
    assert sideways(page) <= 0
