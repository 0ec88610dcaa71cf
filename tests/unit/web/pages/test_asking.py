"""Pages that need a model: text, steering, plan. The real small model runs in its own process."""

from __future__ import annotations

import html
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.unit.web.conftest import made_app


@pytest.fixture(scope="module")
def home(small_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The small library, for all tests here: none changes it."""
    folder = tmp_path_factory.mktemp("asking") / "home"
    shutil.copytree(small_home, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    """One explorer for all of them: a process for models takes ten seconds to start."""
    with TestClient(made_app(), base_url="http://localhost", follow_redirects=False) as found:
        yield found


def until_answered(client: TestClient, address: str, **query: Any) -> str:
    """The page once the model has answered; as a browser without scripts would look again."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        page = client.get(address, params=query)
        assert page.status_code == 200, page.text
        if 'aria-busy="true"' not in page.text:
            return html.unescape(page.text)
        time.sleep(0.25)
    raise AssertionError("The model did not answer within 90 seconds.")


def test_a_text_page_begins_with_a_form(client: TestClient) -> None:
    page = client.get("/text").text
    assert "<textarea" in page
    assert "<option selected>first</option>" in page.replace(' value="first"', "")
    assert 'id="result"' in page


def test_a_text_shows_tokens_features_and_what_it_rests_on(client: TestClient) -> None:
    text = "The winter <script>alert(1)</script> was long & cold 🙂."
    page = until_answered(client, "/text", sae="first", text=text)
    raw = client.get("/text", params={"sae": "first", "text": text}).text
    assert "<script>alert" not in raw
    assert "Strongest features of the text" in page
    assert "model.layers" in page or "transformer.h" in page
    document = client.get("/text.json", params={"sae": "first", "text": text}).json()
    answer = document["asked"]["answer"]
    assert "".join(piece["text"] for piece in answer["pieces"]) == text
    best = answer["ranking"][0]["feature"]
    shaded = client.get("/text.json", params={"sae": "first", "text": text, "feature": best, "token": 3}).json()
    trace = shaded["asked"]["answer"]["traces"][0]
    assert trace["feature"] == best
    peaks = [token for token in shaded["tokens"] if token["peak"]]
    assert len(peaks) == 1
    place = max(range(len(trace["activations"])), key=lambda at: trace["activations"][at] or 0)
    starts = [token["token"] for token in shaded["tokens"]]
    assert max(start for start in starts if start <= place) == peaks[0]["token"]
    listed = answer["top"][3]
    assert [one["feature"] for one in shaded["on_token"]] == [one[0] for one in listed]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"sae": "first", "text": "x", "feature": "999999"}, "no feature 999999"),
        ({"sae": "missing", "text": "x"}, "no SAE 'missing'"),
        ({"sae": "first", "text": "x", "order": "sideways"}, "order"),
        ({"sae": "second", "text": "x", "order": "relative"}, "no analysis"),
        ({"sae": "first", "text": "x", "analysis": "zzz"}, "no analysis"),
    ],
)
def test_what_cannot_be_shown_is_said_on_the_page(client: TestClient, query: dict[str, str], said: str) -> None:
    page = until_answered(client, "/text", **query)
    assert 'role="alert"' in page
    assert said in page
    assert f">{query['text']}</textarea>" in page  # nothing typed is lost


def test_a_text_that_is_too_long_is_refused(client: TestClient) -> None:
    answer = client.get("/text", params={"sae": "first", "text": "x" * 20_001}, headers={"accept": "text/html"})
    assert answer.status_code == 422
    assert "20000" in answer.text


def test_the_same_question_is_asked_once(client: TestClient) -> None:
    until_answered(client, "/text", sae="first", text="The same text.")
    first = client.get("/text.json", params={"sae": "first", "text": "The same text."}).json()
    again = client.get("/text.json", params={"sae": "first", "text": "The same text."}).json()
    assert first["asked"]["call"] == again["asked"]["call"]


def test_a_strip_for_a_features_own_page(client: TestClient) -> None:
    page = until_answered(client, "/sae/first/-/text-strip", feature=3, text="The winter river <b>froze</b>.")
    assert "<b>froze" not in client.get("/sae/first/-/text-strip", params={"feature": 3, "text": "<b>froze</b>"}).text
    assert "Largest here" in page or "does not fire" in page


def test_steering_side_by_side(client: TestClient) -> None:
    query = {"feature": "3", "value": "2", "prompt": "The winter", "max_tokens": "6", "controls": "2"}
    page = until_answered(client, "/sae/first/-/steer", **query)
    assert "As it is" in page
    assert "Steered" in page
    assert page.count("Random direction of the same length") == 2
    document = client.get("/sae/first/-/steer.json", params=query).json()
    names = [run["name"] for run in document["asked"]["answer"]["runs"]]
    assert names == ["clean", "steered", "control 1", "control 2"]


def test_steering_without_an_analysis_counts_in_activations(client: TestClient) -> None:
    page = client.get("/sae/second/-/steer?feature=3").text
    assert "its largest activation" not in page
    page = until_answered(client, "/sae/second/-/steer", feature="3", value="5", prompt="The", max_tokens="3")
    assert "Steered" in page


@pytest.mark.parametrize("query", ["value=nan", "max_tokens=9999", "kind=explode", "value=1e99", "temperature=-1"])
def test_steering_refuses_what_does_not_fit(client: TestClient, query: str) -> None:
    assert client.get(f"/sae/first/-/steer?feature=3&prompt=a&{query}").status_code == 422


def test_an_unknown_feature_is_said(client: TestClient) -> None:
    answer = client.get("/sae/first/-/steer?feature=9999&prompt=a")
    assert answer.status_code == 422
    assert "0 to 63" in answer.text
