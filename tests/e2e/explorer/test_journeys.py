"""What a person does with an SAE in the browser, from the table to steering."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import expect
from tests.e2e.explorer.known import TEXT
from tests.e2e.explorer.serving import SAE, marks, whole

pytestmark = marks


def query(page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_the_table_is_filtered_and_its_address_holds_the_question(page):
    page.goto(f"/sae/{SAE}/-/features")
    page.get_by_role("combobox", name="class", exact=True).select_option("token")
    page.get_by_text("More conditions, order").click()
    page.get_by_label("density from").fill("0.001")
    page.get_by_role("combobox", name="order", exact=True).select_option("-density")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**class=token**")
    assert query(page) == {"class": ["token"], "density_min": ["0.001"], "sort": ["-density"]}
    rows = page.locator("table.features tbody tr")
    before = rows.all_inner_texts()
    assert before
    heads = page.locator("table.features thead th").all_inner_texts()
    densities = [float(row.split("\t")[heads.index("density")].removesuffix(" %")) for row in before]
    assert densities == sorted(densities, reverse=True)
    assert densities[-1] >= 0.1
    page.reload()
    assert rows.all_inner_texts() == before
    page.get_by_role("link", name=re.compile("Remove the condition class")).click()
    expect(page).not_to_have_url(re.compile("class="))
    expect(rows.nth(len(before))).to_be_attached()


def test_a_box_drawn_on_the_scatter_is_a_filter(page):
    page.goto(f"/sae/{SAE}/-/features")
    page.get_by_text("Density against largest activation").click()
    plot = page.locator("details.panel .plotly .draglayer .nsewdrag").first
    expect(plot).to_be_visible()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.8, steps=5)
    page.mouse.up()
    page.wait_for_url("**density_min=**")
    assert {"density_min", "density_max", "max_min", "max_max"} <= set(query(page))
    expect(page.locator("[aria-label='Conditions that hold'] li")).to_have_count(5)


def test_a_click_on_the_map_opens_the_feature(page):
    page.goto(f"/sae/{SAE}")
    page.locator("#plot-map").scroll_into_view_if_needed()
    expect(page.locator("[data-state]")).to_contain_text("features.")
    page.get_by_role("link", name="by cluster").click()
    expect(page).to_have_url(re.compile("colour=cluster"))
    points = page.locator("#plot-map .scatterlayer .points path")
    expect(points.first).to_be_visible()
    box = points.nth(5).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url(re.compile(r"/feature/\d+"))


def numbers(said: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", said.replace(",", ""))]


def test_a_bar_of_the_histogram_shows_examples_from_it(page, known):
    page.goto(f"/sae/{SAE}/-/feature/{known.feature}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(known.token["label"])
    bars = page.locator("svg[aria-label='Firings by activation'] a")
    said = [bar.get_attribute("aria-label") or "" for bar in bars.all()]
    fullest = max(range(len(said)), key=lambda at: numbers(said[at])[2])
    bars.nth(fullest).click()
    page.wait_for_url("**bin=**")
    expect(page.locator("svg[aria-label='Firings by activation'] .bar.mark")).to_have_count(1)
    values = [float(text) for text in page.locator("section[aria-labelledby=examples] .ex .value").all_inner_texts()]
    low, high = sorted(numbers(said[fullest])[:2])
    assert values, said[fullest]
    assert all(low * 0.99 <= value <= high * 1.01 for value in values), (said[fullest], values)


@pytest.mark.parametrize("tab", ["Quantiles", "Random", "Hard negatives"])
def test_examples_come_from_the_whole_distribution(page, known, tab):
    page.goto(f"/sae/{SAE}/-/feature/{known.feature}")
    page.locator(".tabs").get_by_role("link", name=re.compile(f"^{tab}", re.IGNORECASE)).click()
    expect(page.locator("section[aria-labelledby=examples] .ex").first).to_be_visible()
    if tab == "Hard negatives":
        assert set(whole(page).locator("section[aria-labelledby=examples] .ex .value").all_inner_texts()) == {"0"}


def test_a_text_is_tested_on_a_feature_and_goes_along_to_the_next(page, known):
    page.goto(f"/sae/{SAE}/-/feature/{known.feature}")
    page.get_by_placeholder("Type a text and see").fill(TEXT)
    page.get_by_role("button", name="Test", exact=True).click()
    fires = page.locator("section[aria-labelledby=test] .text b.t")
    expect(fires.first).to_be_visible(timeout=120_000)
    fires.first.hover()
    expect(page.locator("#tip")).to_contain_text("of the largest")
    page.get_by_role("link", name="Next ›").click()
    page.wait_for_url("**text=**")
    assert query(page)["text"] == [TEXT]
    expect(page.locator("section[aria-labelledby=test] .box")).to_contain_text(re.compile("Largest here|does not fire"))


def test_a_text_shows_the_features_of_each_token(page, known):
    page.goto("/text")
    page.get_by_label("Text", exact=True).fill(TEXT)
    page.get_by_role("button", name="Show").click()
    tokens = page.locator(".tokens a")
    expect(tokens.first).to_be_visible(timeout=120_000)
    whole(page)
    assert "".join(tokens.all_inner_texts()).strip().endswith("is over.")
    tokens.filter(has_text="union").click()
    chosen = page.locator("section[aria-labelledby=on-token]")
    expect(chosen.locator("tbody tr").first).to_be_visible()
    page.locator("section[aria-labelledby=ranking]").get_by_role("link", name="shade").first.click()
    page.wait_for_url(re.compile(r"feature=\d"))
    held = query(page)
    assert held["text"] == [TEXT]
    assert held["token"][0].isdecimal()
    expect(page.locator(".tokens a.peak")).to_have_count(1)
    expect(page.locator("#result")).to_contain_text(f"activation of feature {held['feature'][0]}")
    page.reload()
    expect(page.locator(".tokens a[aria-current]")).to_contain_text("union")


def test_steering_is_shown_beside_the_unchanged_model_and_a_control(page, known):
    page.goto(f"/sae/{SAE}/-/feature/{known.feature}")
    page.get_by_role("link", name="Steer", exact=True).click()
    page.get_by_label("Prompt").fill("The president said that")
    page.get_by_label("Strength").fill("2")
    page.get_by_label("Tokens").fill("12")
    page.get_by_role("button", name="Steer").click()
    runs = page.locator(".runs .card")
    expect(runs).to_have_count(3, timeout=120_000)
    assert runs.locator("h3").all_inner_texts() == ["As it is", "Steered", "Random direction of the same length"]
    texts = runs.locator("p.text").all_inner_texts()
    assert all(text.startswith("The president said that") for text in texts)
    assert texts[0] != texts[1]
    assert query(page)["value"] == ["2"]


def test_what_the_model_does_without_a_feature_is_measured(page, known):
    page.goto(f"/sae/{SAE}/-/feature/{known.feature}?{urlencode({'text': TEXT})}")
    page.get_by_role("button", name="Measure on the pinned text").click()
    expect(page.locator("#effects-here")).to_contain_text("loss per firing", timeout=120_000)


def test_two_features_are_put_side_by_side(page, known):
    for feature in (known.feature, known.near):
        page.goto(f"/sae/{SAE}/-/feature/{feature}")
        page.get_by_role("link", name="Compare", exact=True).click()
        expect(page.locator("#tray")).to_contain_text(str(feature))
    page.get_by_role("link", name="Compare 2").click()
    page.wait_for_url("**/compare?**")
    assert query(page) == {"f": [str(known.feature), str(known.near)]}
    assert page.locator(".beside > .card").count() == 2
    expect(page.get_by_role("region", name="Pairs").locator("tbody tr")).to_have_count(1)


def test_the_neighbourhood_follows_the_slider_and_a_click_walks_on(page, known):
    page.goto(f"/sae/{SAE}/-/similarity?feature={known.feature}&min=0")
    many = page.locator("#near tbody tr").count()
    page.evaluate("() => { window.same = true; }")
    slider = page.get_by_role("slider", name="At least")
    slider.focus()
    slider.press("End")
    expect(page.locator("#near[data-min='1.00']")).to_be_attached()
    assert page.locator("#near tbody tr").count() < many
    assert page.evaluate("() => window.same"), "the page was loaded again"
    slider.press("Home")
    expect(page.locator("#near[data-min='0.00']")).to_be_attached()
    page.locator("#near svg.graph a").nth(1).click()
    expect(page).not_to_have_url(re.compile(rf"feature={known.feature}&"))


def test_examples_are_found_by_text_and_paged_without_losing_the_place(page):
    page.goto("/examples")
    page.get_by_label("Text; war* finds wars too").fill("states")
    page.get_by_label("Kind").select_option("top")
    page.get_by_role("button", name="Show").click()
    rows = page.locator("#examples .ex")
    expect(rows.first).to_be_visible(timeout=60_000)
    whole(page)
    assert all("states" in text.lower() for text in rows.locator("p.text").all_inner_texts())
    before = rows.count()
    page.locator("#more").scroll_into_view_if_needed()
    expect(rows.nth(before)).to_be_attached()
    expect(page).to_have_url(re.compile("[?&]after="))  # the address holds the place
    rows.nth(before).locator("a").first.click()
    page.wait_for_url("**/feature/**")
    page.go_back()
    expect(rows.first).to_be_attached()


def test_features_are_found_by_token_and_by_label(page, known):
    word = known.token["top_token_text"].strip()
    page.goto("/")
    page.get_by_placeholder("Search features").fill(word)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?**")
    hit = page.locator("section[aria-labelledby=fires_on] .hits li").first
    expect(hit).to_contain_text(word)
    feature = hit.locator("a").inner_text()
    hit.locator("a").click()
    page.wait_for_url(f"**/feature/{feature}**")
    expect(page.locator("section[aria-labelledby=tokens] .related").first).to_contain_text(word)
    page.go_back()
    page.get_by_label("Token, label, text or number").fill(known.other["label"])
    page.get_by_role("button", name="Search").click()
    page.locator("section[aria-labelledby=label] .hits a", has_text=re.compile(f"^{known.near}$")).click()
    page.wait_for_url(f"**/feature/{known.near}**")


def test_an_address_that_leads_nowhere_says_what_there_is(visit):
    seen = visit()
    seen.page.goto(f"/sae/{SAE}/-/feature/99999")
    expect(seen.page.get_by_role("heading", level=1)).to_have_text("There is no feature 99999")
    seen.page.goto("/sae/nothing")
    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Not found")
    seen.page.get_by_role("link", name="All SAEs").click()
    expect(seen.page.get_by_role("link", name=SAE, exact=True)).to_be_visible()
    assert all("404" in fault for fault in seen.faults)
    seen.faults.clear()
