"""The first journey: train an SAE from the form, watch it, and have it analysed. What comes of it is what all other journeys look at."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Page, expect
from tests.e2e.explorer.serving import SAE, Server, wait_for

SETTINGS = {
    "language model": "smollm2-135m",
    "layer": "8",
    "features": "512",
    "k, active features": "16",
    "text": "sotu",
    "tokens": "20,000",
    "context length": "64",
    "epochs": "60",
    "name": SAE,
}
MORE = {"heldout tokens": "1024", "eval every steps": "100", "dead after tokens": "120,000"}
"""AuxK comes late, so that a feature or two never fires: their page is looked at, too."""


def grow(page: Page, server: Server) -> dict[str, Any]:
    """Train ``small`` and analyse it, as a person does.

    Returns:
        What was seen on the way, for the tests to judge.
    """
    page.goto("/")
    seen: dict[str, Any] = {"first page": page.locator("main").inner_text()}
    page.get_by_role("link", name="Train an SAE").first.click()
    fill_train_form(page, SETTINGS, MORE)
    expect(page.locator("#plan")).to_contain_text("steps", timeout=240_000)
    seen["plan"] = page.locator("#plan").inner_text()
    page.get_by_role("button", name="Start training").click()

    page.wait_for_url("**/jobs/*")
    job = page.url.rsplit("/", 1)[1]
    expect(page.locator("#link")).to_have_text("Live.")
    watch_steps(page)
    expect(page.locator("#forming")).to_be_visible(timeout=240_000)
    seen["forming"] = page.locator("section[aria-labelledby=forming] .card").count()
    expect(page.locator("#link")).to_have_text("It is finished.", timeout=240_000)
    seen |= page.evaluate("() => ({steps: window.seen.steps, curves: window.seen.curves.length})")
    seen["plots"] = page.locator("#live .plot .head").all_inner_texts()
    seen["train"] = server.job(job)
    page.get_by_role("link", name="Open the SAE").click()

    expect(page.get_by_role("heading", name=SAE, exact=True)).to_be_visible()
    seen["sae page"] = page.locator("main").inner_text()
    page.get_by_role("link", name="Analyse", exact=True).click()
    page.get_by_label("Tokens").fill("20000")
    page.get_by_role("button", name="Start the analysis").click()
    page.wait_for_url("**/jobs/*")
    analysis = page.url.rsplit("/", 1)[1]
    page.get_by_role("link", name="Look at the features").click(timeout=240_000)
    expect(page.get_by_role("heading", name=f"Features of {SAE}")).to_be_visible()
    seen["analyze"] = server.job(analysis)
    return seen


def fill_train_form(page: Page, settings: dict[str, str], more: dict[str, str]) -> None:
    """Type settings into the form, by the names that it shows."""
    for name, value in settings.items():
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_label("architecture", exact=True).select_option("topk")
    page.get_by_text("More settings").click()
    for name, value in more.items():
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_label("Evaluate in the model afterwards").check()


def watch_steps(page: Page) -> None:
    """Keep every step number and every course of the loss that the page shows from now on; a reload would forget them."""
    page.evaluate(
        """() => {
          window.seen = { steps: [], curves: [] };
          const add = (list, one) => { if (one && !list.includes(one)) list.push(one); };
          setInterval(() => {
            const fact = [...document.querySelectorAll("#live .facts div")].find((one) => one.querySelector("dt").textContent === "step");
            add(window.seen.steps, fact && parseInt(fact.querySelector("dd").textContent.replaceAll(",", "")));
            add(window.seen.curves, document.querySelector("#live .chart polyline, #live .chart path")?.outerHTML);
          }, 100);
        }"""
    )


def steps_of(page: Page) -> list[int]:
    """The step numbers seen since :func:`watch_steps`."""
    return list(page.evaluate("() => window.seen.steps"))


def wait_for_step(page: Page, step: int, seconds: float = 120.0) -> int:
    """The first step number shown that is as great."""
    return int(wait_for(lambda: max((one for one in steps_of(page) if one >= step), default=None), seconds))


def job_of(page: Page) -> str:
    """The id in the address of a job's page."""
    found = re.search(r"/jobs/([0-9a-f]+)", page.url)
    assert found is not None, page.url
    return found[1]
