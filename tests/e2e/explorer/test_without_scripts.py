"""The explorer with JavaScript switched off."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from tests.e2e.explorer.known import TEXT
from tests.e2e.explorer.serving import SAE, marks, wait_for

pytestmark = marks


@pytest.fixture
def plain(visit) -> Page:
    """A page of a browser that runs no script."""
    return visit(java_script_enabled=False).page


def again(page: Page, found: str) -> None:
    """Ask for the page until it has the answer, as a reader does who is told to look again."""
    answer, link = page.locator(found), page.get_by_role("link", name="Look again")

    def look() -> bool:
        # After a click the next page may be there only in part, or not yet: with neither of the two.
        expect(answer.or_(link).first).to_be_visible()
        if answer.count():
            return True
        with suppress(PlaywrightTimeout):
            link.click(timeout=2_000)
        return False

    wait_for(look)


def test_pages_are_read_and_lead_to_each_other(plain):
    plain.goto("/")
    plain.get_by_role("link", name=SAE, exact=True).click()
    expect(plain.locator("#density svg.chart, figure#density svg").first).to_be_visible()
    expect(plain.get_by_text("The map itself needs scripts")).to_be_visible()
    plain.get_by_role("link", name="All features").click()
    plain.get_by_role("combobox", name="class", exact=True).select_option("token")
    plain.get_by_role("button", name="Filter").click()
    plain.wait_for_url("**class=token**")
    rows = plain.locator("table.features tbody tr")
    assert all("token" in text for text in rows.all_inner_texts())
    rows.first.locator("th a").click()
    expect(plain.locator(".ex").first).to_be_visible()
    plain.locator(".tabs").get_by_role("link", name=re.compile("^Quantiles", re.IGNORECASE)).click()
    expect(plain.locator(".tabs [aria-current=page]")).to_contain_text(re.compile("quantiles", re.IGNORECASE))
    expect(plain.locator(".ex").first).to_be_visible()
    plain.locator("svg[aria-label='Firings by activation'] a").first.click()
    plain.wait_for_url("**bin=**")


def test_more_cards_and_more_examples_are_links(plain):
    plain.goto(f"/sae/{SAE}/-/cards")
    first = plain.locator(".feature-card h2").first.inner_text()
    plain.get_by_role("link", name=re.compile("Load more|Next")).first.click()
    expect(plain.locator(".feature-card h2").first).not_to_have_text(first)
    plain.goto("/examples?text=states&kind=top")
    again(plain, "#examples .ex")
    plain.get_by_role("link", name="More examples").click()
    expect(plain.locator("#examples .ex").first).to_be_visible()
    expect(plain.get_by_role("link", name="From the beginning")).to_be_visible()


def test_a_text_is_answered_by_looking_again(plain):
    plain.goto("/text")
    plain.get_by_label("Text", exact=True).fill(TEXT)
    plain.get_by_role("button", name="Show").click()
    again(plain, ".tokens a")
    plain.locator(".tokens a", has_text="union").click()
    again(plain, "section[aria-labelledby=on-token]")


def test_steering_and_effects_are_answered_by_looking_again(plain, known):
    plain.goto(f"/sae/{SAE}/-/steer?feature={known.feature}")
    plain.get_by_label("Tokens").fill("6")
    plain.get_by_role("button", name="Steer").click()
    again(plain, ".runs .card")
    expect(plain.locator(".runs .card")).to_have_count(3)
    plain.goto(f"/sae/{SAE}/-/feature/{known.feature}?{urlencode({'text': TEXT})}")
    plain.get_by_role("button", name="Measure on the pinned text").click()
    expect(plain.locator("main")).to_contain_text("loss per firing")


def test_a_training_is_started_stopped_and_gone_on_with(plain, server):
    plain.goto("/train")
    plain.get_by_label("layer", exact=True).fill("8")
    plain.get_by_label("features", exact=True).fill("128")
    plain.get_by_label("tokens", exact=True).fill("20,000")
    plain.get_by_label("context length", exact=True).fill("64")
    plain.get_by_label("epochs", exact=True).fill("100000")
    plain.get_by_label("name", exact=True).fill("never-there")
    plain.get_by_role("button", name="Start training").click()
    plain.wait_for_url("**/jobs/*")
    job = plain.url.rsplit("/", 1)[1]
    plain.get_by_role("link", name="Look again").click()
    expect(plain.locator(".status")).to_have_text(re.compile("queued|running"))
    plain.get_by_role("button", name="Stop").click()
    wait_for(lambda: server.job(job)["state"] == "cancelled")
    plain.reload()
    expect(plain.locator(".status")).to_have_text("cancelled")
    expect(plain.get_by_role("button", name="Go on")).to_be_visible()


def test_a_wrong_setting_is_named_beside_its_field(visit):
    seen = visit(java_script_enabled=False)
    plain = seen.page
    plain.goto("/train")
    plain.get_by_label("features", exact=True).fill("-3")
    plain.get_by_role("button", name="Start training").click()
    expect(plain.get_by_role("alert")).to_contain_text("hidden_dim")
    expect(plain.get_by_label("features", exact=True)).to_have_value("-3")
    assert all("422" in fault for fault in seen.faults)
    seen.faults.clear()
