"""A parameter that an address does not have is told: scripts get an error, people a notice; no link of our own has one."""

from __future__ import annotations

import html
import re
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient

HTML = {"accept": "text/html"}
NOTICE = "This page has no parameter"


@pytest.mark.parametrize(
    "path", ["/", "/sae/first", "/sae/first/-/features", "/sae/first/-/feature/3", "/examples", "/jobs", "/leaderboard"]
)
def test_a_page_says_which_parameters_it_does_not_have(client: TestClient, path: str) -> None:
    assert NOTICE not in client.get(path, headers=HTML).text
    page = client.get(f"{path}?sorted=<b>&embed=1", headers=HTML)
    assert page.status_code == 200
    assert NOTICE not in page.text or f"{NOTICE} <code>sorted</code>;" in page.text
    assert NOTICE in client.get(f"{path}?sorted=1", headers=HTML).text
    assert "<code>&lt;b&gt;</code>" in client.get(f"{path}?<b>=1", headers=HTML).text


def test_json_of_a_page_refuses_them(client: TestClient) -> None:
    answer = client.get("/sae/first/-/features.json?sotr=-max")
    assert answer.status_code == 422
    assert answer.json()["error"]["fields"] == [{"field": "sotr", "message": "this address has no such parameter"}]
    assert "Did you mean sort?" in answer.json()["error"]["hint"]
    assert client.get("/sae/first/-/features.json?sort=-max").status_code == 200


def test_what_reads_its_query_by_itself_takes_any(client: TestClient) -> None:
    assert NOTICE not in client.get("/train?hidden_dim=128", headers=HTML).text
    assert client.get("/train.json?hidden_dim=128").status_code == 200


def test_no_link_or_form_of_ours_leads_to_an_unknown_parameter(client: TestClient) -> None:
    """Every kind of link on the pages of a small library, one of each set of parameters."""
    seen: set[tuple[str, ...]] = set()
    waiting, told = (
        ["/", "/sae/first?analysis=", "/text?sae=first&text=a+river", "/examples", "/sae/first/-/similarity"],
        [],
    )
    while waiting:
        address = waiting.pop()
        parts = urlsplit(address)
        names = sorted({part.partition("=")[0] for part in parts.query.split("&") if part})
        kind = (re.sub(r"\d+|first|second", "X", parts.path), *names)
        if kind in seen or len(seen) > 150:
            continue
        seen.add(kind)
        answer = client.get(address, headers=HTML, follow_redirects=True)
        if "html" in answer.headers.get("content-type", ""):
            told += [address] if NOTICE in answer.text else []
            links = re.findall(r'(?:href|hx-get)="(/[^"#]*)', answer.text)
            waiting += [html.unescape(link) for link in links if not link.startswith(("/static", "/plotly"))]
        elif answer.status_code == 422 and "no such parameter" in answer.text:
            told.append(address)
    assert len(seen) > 60
    assert not told
