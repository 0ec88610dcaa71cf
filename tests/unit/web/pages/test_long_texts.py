"""Texts of any length on the text page and pinned to features: the address holds them, or the digest under which they are kept."""

from __future__ import annotations

import html
import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from tests.unit.web.conftest import made_app

LONG = "The winter river froze. <script>alert(1)</script> " * 60
HERE = "/sae/first/-/feature/3"


def led_to(answer: object) -> tuple[str, dict[str, list[str]]]:
    """Path and query of where a form leads."""
    assert answer.status_code == 303, answer.text  # type: ignore[attr-defined]
    parts = urlsplit(answer.headers["location"])  # type: ignore[attr-defined]
    return parts.path, parse_qs(parts.query)


def until_answered(client: TestClient, address: str, query: dict[str, list[str]]) -> str:
    """The part of the page, once the model has answered."""
    deadline = time.monotonic() + 120
    while 'aria-busy="true"' in (page := client.get(address, params=query).text):
        assert time.monotonic() < deadline
        time.sleep(0.25)
    return page


def test_a_short_text_stands_in_the_address(client: TestClient) -> None:
    sent = {"text": "The river\r\nfroze & <b>", "sae": "first", "feature": "3", "order": "", "max_density": ""}
    assert led_to(client.post("/text", data=sent)) == (
        "/text",
        {"text": ["The river\nfroze & <b>"], "sae": ["first"], "feature": ["3"]},
    )


def test_a_long_text_is_shown_under_an_address_that_is_short(client: TestClient) -> None:
    answer = client.post("/text", data={"text": LONG, "sae": "second"})
    path, query = led_to(answer)
    assert len(answer.headers["location"]) < 100
    assert set(query) == {"sae", "kept"}
    page = client.get(path, params=query)
    assert page.status_code == 200
    assert f">{html.escape(LONG).replace('&#x27;', '&#39;')}</textarea>" in page.text
    assert "<script>alert" not in page.text
    assert "too long for an address" in page.text
    document = client.get("/text.json", params=query).json()
    assert (document["text"], document["kept"]) == (LONG, query["kept"][0])


def test_the_result_names_a_long_text_by_its_digest_everywhere(client: TestClient) -> None:
    _, query = led_to(client.post("/text", data={"text": LONG, "sae": "first"}))
    page = until_answered(client, "/text/result", query)
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) > 30
    assert "alert(1)" not in "".join(links)
    assert all(f"kept={query['kept'][0]}" in link for link in links)
    assert any("token=" in link for link in links)
    assert any(link.startswith("/sae/first/-/feature/") for link in links)
    assert len(page.encode()) < 700_000


def test_a_long_text_is_pinned_and_follows_from_feature_to_feature(client: TestClient) -> None:
    address = f"{HERE}?tab=random"
    box = client.get(address).text
    form = re.search(
        r'<form class="test" action="([^"]+)" method="post">\s*<input type="hidden" name="to" value="([^"]+)"', box
    )
    assert form is not None
    to = html.unescape(form[2])
    assert to == address
    path, query = led_to(client.post(form[1], data={"text": LONG, "to": to}))
    assert path == HERE
    assert set(query) == {"tab", "kept"}
    page = client.get(path, params=query).text
    kept = f"kept={query['kept'][0]}"
    strip = re.search(r'hx-get="([^"]+/text-strip[^"]+)"', page)
    assert strip is not None
    assert kept in strip[1]
    beside = [
        link for link in re.findall(r'href="([^"]+)"', page) if re.match(r"/sae/first/-/feature/(\d+|random)\?", link)
    ]
    assert beside
    assert all(kept in link for link in beside if "tab=" not in link)
    assert "Unpin the text" in page
    assert client.get(html.unescape(strip[1])).status_code == 200
    assert client.get(f"/sae/first/-/feature?number=5&{kept}").headers["location"] == f"/sae/first/-/feature/5?{kept}"
    assert kept in client.get(f"/sae/first/-/feature/random?{kept}").headers["location"]


def test_pinning_again_takes_the_place_of_the_text_and_nothing_unpins(client: TestClient) -> None:
    page = client.get(f"{HERE}?text=old&tab=random").text
    to = re.search(r'name="to" value="([^"]+)"', page)
    assert to is not None
    assert led_to(client.post("/text/pin", data={"text": "new", "to": html.unescape(to[1])})) == (
        HERE,
        {"tab": ["random"], "text": ["new"]},
    )
    assert led_to(client.post("/text/pin", data={"text": "", "to": HERE})) == (HERE, {})


def test_a_text_that_is_not_kept_here_is_said_and_the_feature_is_shown_without_it(client: TestClient) -> None:
    gone = "0" * 40
    answer = client.get("/text", params={"kept": gone}, headers={"accept": "text/html"})
    assert answer.status_code == 404
    assert "not kept here" in answer.text
    assert "Paste it again" in answer.text
    assert client.get("/text.json", params={"kept": gone}).json()["error"]["code"] == "text_not_kept"
    feature = client.get(HERE, params={"kept": gone})
    assert feature.status_code == 200
    assert "not kept here" in feature.text
    beside = re.findall(r'href="(/sae/first/-/feature/(?!3[.?"])[^"]+)"', feature.text)
    assert beside
    assert gone not in "".join(beside)


@pytest.mark.parametrize("kept", ["../../jobs", "x" * 40, "0" * 39, "0" * 4_000, "%00"])
@pytest.mark.parametrize("path", ["/text", "/text.json", HERE, f"{HERE}.json", "/sae/first/-/feature"])
def test_what_is_no_digest_is_refused(client: TestClient, path: str, kept: str) -> None:
    assert client.get(path, params={"kept": kept}).status_code == 422


@pytest.mark.parametrize(
    "to", ["//elsewhere.example/", "https://elsewhere.example/", "/\\elsewhere.example", "text", "/ x"]
)
def test_a_text_is_pinned_to_pages_of_this_server_only(client: TestClient, to: str) -> None:
    answer = client.post("/text/pin", data={"text": "a", "to": to})
    assert answer.status_code == 422
    assert "location" not in answer.headers


def test_a_text_that_is_too_long_to_run_stays_in_the_form(client: TestClient, home: Path) -> None:
    text = "<b>word</b> " * 2_000
    answer = client.post("/text", data={"text": text, "sae": "first"}, headers={"accept": "text/html"})
    assert answer.status_code == 422
    assert "The text has 24,000 characters; at most 20,000 are taken." in answer.text
    assert answer.text.count("&lt;b&gt;word") == 2_000
    assert client.post("/text/pin", data={"text": text, "to": HERE}).json()["error"]["code"] == "text_too_long"
    assert not (home / "typed").exists()


def test_a_form_of_another_site_keeps_nothing(client: TestClient, home: Path) -> None:
    for path in ("/text", "/text/pin"):
        answer = client.post(path, data={"text": LONG}, headers={"origin": "https://elsewhere.example"})
        assert answer.status_code == 403
    assert not (home / "typed").exists()


def test_a_kept_text_counts_as_a_request_to_the_model(library: Path) -> None:
    del library
    with TestClient(made_app(inferences_per_minute=2), base_url="http://localhost") as found:
        asked = [found.get("/text.json", params={"kept": "0" * 40}).status_code for _ in range(3)]
    assert asked == [404, 404, 429]
