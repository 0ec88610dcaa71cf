"""The explorer without a mouse."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect
from tests.e2e.explorer.serving import SAE, marks

pytestmark = marks


def ring(page: Page) -> str:
    """How the outline of what has the focus is drawn."""
    return str(page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle"))


def test_from_the_first_page_to_an_example_by_keys_alone(page, known):
    page.goto("/")
    page.keyboard.press("/")
    expect(page.get_by_placeholder("Search features")).to_be_focused()
    assert ring(page) == "solid"
    page.keyboard.press("Escape")
    expect(page.get_by_placeholder("Search features")).not_to_be_focused()
    for _ in range(page.locator("main .card").count()):  # jobs come first
        page.keyboard.press("j")
        assert ring(page) == "solid"
    expect(page.get_by_role("link", name=SAE, exact=True)).to_be_focused()
    assert ring(page) == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/sae/{SAE}")

    page.goto(f"/sae/{SAE}/-/features")
    rows = page.locator("table.features tbody tr th a")
    page.keyboard.press("j")
    expect(rows.nth(0)).to_be_focused()
    page.keyboard.press("j")
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press("k")
    expect(rows.nth(0)).to_be_focused()
    assert ring(page) == "solid"
    number = rows.nth(0).inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/feature/{number}**")


def test_from_feature_to_feature(page, known):
    page.goto(f"/sae/{SAE}/-/feature/{known.feature}")
    there = re.compile(r"/feature/\d+$")
    page.keyboard.press("ArrowRight")
    expect(page).not_to_have_url(re.compile(rf"/feature/{known.feature}$"))
    expect(page).to_have_url(there)
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile(rf"/feature/{known.feature}$"))
    page.keyboard.press("r")
    expect(page).not_to_have_url(re.compile(rf"/feature/{known.feature}$"))
    page.keyboard.press("g")
    page.keyboard.press("i")
    expect(page.get_by_label("Go to feature number")).to_be_focused()
    page.keyboard.type(str(known.near))
    page.keyboard.press("Enter")
    expect(page.locator("h1 .number")).to_have_text(str(known.near))
    page.keyboard.press("c")
    expect(page.locator("#tray")).to_contain_text(str(known.near))
    page.keyboard.press("t")
    expect(page.locator("[data-test-box]")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect(page.locator(".ex").first).to_be_focused()


def test_the_help_opens_and_closes(page):
    page.goto("/")
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Keyboard")
    expect(help_).to_be_visible()
    page.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("h")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Sparse autoencoders")


def test_values_of_tokens_are_reached_by_tab(page, known):
    page.goto(f"/sae/{SAE}/-/feature/{known.feature}")
    token = page.locator("section[aria-labelledby=examples] b.t[tabindex]").first
    token.focus()
    expect(page.locator("#tip")).to_contain_text("of the largest")
    page.keyboard.press("Escape")
    expect(page.locator("#tip")).to_be_hidden()


@pytest.mark.parametrize("name", ["home", "features", "feature", "train", "text", "steer"])
def test_every_stop_of_the_tab_key_is_seen(page, known, name):
    """The first twenty-five: each has an outline, and lies in the window."""
    page.goto(known.pages()[name])
    for _ in range(25):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
              const one = document.activeElement;
              if (one === document.body) return null;
              const box = one.getBoundingClientRect(), drawn = getComputedStyle(one);
              return { name: one.outerHTML.slice(0, 120), drawn: drawn.outlineStyle !== "none" && parseFloat(drawn.outlineWidth) >= 1,
                       seen: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth };
            }"""
        )
        if found is None:  # past the last one
            break
        assert found["drawn"], found["name"]
        assert found["seen"], found["name"]
