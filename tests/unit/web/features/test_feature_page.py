"""The page of a feature: what it shows, where it leads, and what it says of features that there is little to say of."""

from __future__ import annotations

import csv
import html
import io
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient

from neuronmap.features.storage.store import FeatureStore
from neuronmap.web.views.feature import PARTS
from neuronmap.web.views.plot_data import PLOTS

PLAIN, HOSTILE = "/sae/first/-/feature/{}?analysis=plain", "/sae/first/-/feature/{}?analysis=hostile"


def data(pages: TestClient, address: str) -> dict:
    path, _, query = address.partition("?")
    answer = pages.get(f"{path}.json?{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def links(text: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'href="([^"]+)"', text)]


def keyed(text: str, key: str) -> str | None:
    found = re.search(rf'data-key="{key}"[^>]*href="([^"]+)"', text)
    return html.unescape(found[1]) if found else None


def test_html_and_json_show_the_same(pages: TestClient) -> None:
    page, text = data(pages, PLAIN.format(6)), pages.get(PLAIN.format(6)).text
    assert (page["feature"], page["status"], page["firing_class"]) == (6, "alive", "topic")
    assert page["label"]["label"] == "cities: berlin, paris"
    assert page["label"]["label"] in text
    assert page["row"]["max"] == 9.0
    assert "0.2 %" in text  # its density
    assert "54 tokens of made-up" in text
    assert page["basis"]["tokens"] == 54


def test_the_label_says_how_well_its_rule_predicts(pages: TestClient) -> None:
    evidence = data(pages, HOSTILE.format(0))["label"]
    text = pages.get(HOSTILE.format(0)).text
    for score in evidence["scores"]:
        if score["value"] is not None:
            assert f"{score['value']:.2f}" in text
    assert "may be wrong" in text


def test_previous_next_and_random_go_to_features_that_are_alive_and_take_the_text_along(pages: TestClient) -> None:
    text = pages.get(PLAIN.format(3) + "&text=a+b&ctx=full&tab=random").text  # 2 and 5 never fired, 3 is rare
    wanted = {"analysis": ["plain"], "text": ["a b"], "ctx": ["full"]}
    for key, number in (("prev", 1), ("next", 4)):
        found = urlsplit(keyed(text, key) or "")
        assert found.path == f"/sae/first/-/feature/{number}"
        assert parse_qs(found.query) == wanted
    answer = pages.get(keyed(text, "random") or "")
    assert answer.status_code == 303
    assert answer.headers["cache-control"] == "no-store"
    target = urlsplit(answer.headers["location"])
    assert int(target.path.rsplit("/", 1)[1]) in (0, 1, 4, 6, 7)
    assert parse_qs(target.query) == wanted
    assert keyed(pages.get(PLAIN.format(0)).text, "prev") is None


def test_keys_have_their_places(pages: TestClient) -> None:
    text = pages.get(PLAIN.format(4)).text
    for mark in (
        'data-key="prev"',
        'data-key="next"',
        'data-key="random"',
        "data-go",
        "data-test-box",
        'data-compare="4"',
    ):
        assert mark in text
    assert "data-row" in pages.get(PLAIN.format(0)).text  # its examples
    assert "/sae/first/-/compare?f=4" in links(text)
    assert "/sae/first/-/steer?feature=4" in links(text)


def test_the_box_for_a_number_leads_there(pages: TestClient) -> None:
    answer = pages.get("/sae/first/-/feature?number=+%234+&analysis=plain")
    assert (answer.status_code, answer.headers["location"]) == (303, PLAIN.format(4))
    away = pages.get("/sae/first/-/feature?number=//evil.example")
    assert away.headers["location"] == "/sae/first/-/feature/%2F%2Fevil.example"


@pytest.mark.parametrize("number", ["8", "99999999999", "-1", "9" * 30, "abc", "1e3", "٣"])
def test_a_number_that_no_feature_has(pages: TestClient, number: str) -> None:
    answer = pages.get(PLAIN.format(number))
    assert answer.status_code == 404
    assert f"There is no feature {number[:40]}" in answer.text
    assert {"/sae/first/-/feature/0", "/sae/first/-/feature/7"} <= set(links(answer.text))
    problem = pages.get(f"/sae/first/-/feature/{number}.json?analysis=plain")
    assert problem.status_code == 404
    assert "features are 0 to 7" in problem.json()["error"]["message"]
    assert pages.get(f"/sae/first/-/feature/{number}/plot/histogram.csv?analysis=plain").status_code == 404


def test_a_feature_that_never_fired_explains_itself(pages: TestClient) -> None:
    text = pages.get(HOSTILE.format(1)).text
    assert "This feature never fired" in text
    assert "66 tokens that were looked at" in text
    assert "6 %" in text  # the bound on its density
    assert "Decoder neighbours" in text
    assert "Promotes" in text
    assert 'id="examples"' not in text
    assert "Measure" not in text


def test_a_rare_feature_says_so(pages: TestClient) -> None:
    text = pages.get(HOSTILE.format(2)).text
    assert "under 10 firings" in text
    assert 'class="status rare"' in text


def test_nothing_of_the_store_becomes_markup(pages: TestClient) -> None:
    for tab in ("top", "quantile", "bin", "random", "hard"):
        text = pages.get(HOSTILE.format(0) + f"&tab={tab}&ctx=full&text=<script>alert(1)</script>").text
        assert "<img" not in text
        assert "</script><b>" not in text
        assert "<script>alert" not in text
        assert "onclick='y" not in text
        assert '<a>"b"' not in text


def test_the_corpus_with_script_tags_is_shown_as_text(pages: TestClient, real: str, library) -> None:
    store = FeatureStore.open(library / "first" / "analyses" / real)
    shown = 0
    for feature in range(store.num_features):
        if any("script" in example.text for example in store.examples(feature, "top")):
            text = pages.get(f"/sae/first/-/feature/{feature}?analysis={real}&ctx=full&all=1").text
            assert "<script>alert" not in text
            shown += 1
            if shown == 3:
                break
    assert shown


def test_tabs_show_the_stored_examples(pages: TestClient) -> None:
    counts = {"top": 2, "quantile": 5, "random": 1, "hard": 1}
    for tab, count in counts.items():
        found = data(pages, HOSTILE.format(0) + f"&tab={tab}")["examples"]
        assert sum(len(group["examples"]) for group in found["groups"]) == count
        text = pages.get(HOSTILE.format(0) + f"&tab={tab}").text
        assert text.count('class="ex"') == count
    strongest = data(pages, HOSTILE.format(0))["examples"]["groups"][0]["examples"][0]
    assert (strongest["activation"], strongest["sequence"], strongest["position"]) == (4.0, 0, 5)
    assert strongest["document"] == '<a>"b".txt'
    assert strongest["pieces"][strongest["peak"]]["value"] == 4.0
    groups = data(pages, HOSTILE.format(0) + "&tab=quantile")["examples"]["groups"]
    assert [group["head"] for group in groups][::4] == ["Part 5 of 5, the strongest", "Part 1 of 5, the weakest"]


def test_a_bar_leads_to_the_examples_of_its_bin(pages: TestClient) -> None:
    page = data(pages, HOSTILE.format(0))
    text = pages.get(HOSTILE.format(0)).text
    bars = [link for link in links(text) if "tab=bin" in link and link.endswith("#examples") and "bin=" in link]
    filled = [page["histogram"]["first"] + at for at, count in enumerate(page["histogram"]["counts"]) if count]
    assert {int(parse_qs(urlsplit(bar).query)["bin"][0]) for bar in bars} == set(filled)
    seen = set()
    for number in filled:
        found = data(pages, HOSTILE.format(0) + f"&tab=bin&bin={number}")["examples"]
        low, high = next((one["low"], one["high"]) for one in found["bins"] if one["bin"] == number)
        for group in found["groups"]:
            for example in group["examples"]:
                assert low <= example["activation"] <= high
                seen.add((example["sequence"], example["position"]))
    assert (0, 5) in seen  # the strongest, which is a top example
    held = [one["bin"] for one in found["bins"] if one["examples"]]
    empty = next(at for at in range(64) if at not in held)
    address = HOSTILE.format(0) + f"&tab=bin&bin={empty}"
    nearest = data(pages, address)["examples"]["nearest"]
    assert nearest in held
    assert abs(nearest - empty) == min(abs(at - empty) for at in held)
    assert any(f"bin={nearest}" in link for link in links(pages.get(address).text))
    assert data(pages, HOSTILE.format(0) + f"&tab=bin&bin={nearest}")["examples"]["nearest"] is None
    assert pages.get(HOSTILE.format(0) + "&tab=bin&bin=64").status_code == 422


def test_more_or_less_of_the_text_is_shown(pages: TestClient, real: str) -> None:
    """By the first of the busiest features whose strongest example lies in a text longer than a window."""
    table = pages.get(f"/sae/first/-/features.json?analysis={real}&status=alive&sort=-firings").json()
    for feature in table["features"]:
        address = f"/sae/first/-/feature/{feature}?analysis={real}&ctx="
        lengths = []
        for around in ("snippet", "window", "full"):
            example = data(pages, address + around)["examples"]["groups"][0]["examples"][0]
            lengths.append(sum(len(piece["text"]) for piece in example["pieces"]))
            assert example["pieces"][example["peak"]]["value"] == pytest.approx(example["activation"], rel=1e-3)
        assert lengths == sorted(lengths)
        if lengths[0] < lengths[1] < lengths[2]:
            break
    else:
        pytest.fail("no feature has more text to show than a window")
    assert "Activations are stored for the" in pages.get(address + "full").text


def test_every_plot_has_its_data(pages: TestClient) -> None:
    for name, (columns, _) in PLOTS.items():
        answer = pages.get(f"/sae/first/-/feature/0/plot/{name}.csv?analysis=hostile")
        assert answer.status_code == 200
        assert tuple(next(csv.reader(io.StringIO(answer.text)))) == columns
    text = pages.get(HOSTILE.format(0)).text
    figures = re.findall(r'<figure class="plot".*?</figure>', text, re.DOTALL)
    assert len(figures) == 3
    for figure in figures:
        assert "About this plot" in figure
        assert ".csv?analysis=hostile" in figure
    histogram = pages.get("/sae/first/-/feature/0/plot/histogram.csv?analysis=hostile").text
    assert sum(int(row["firings"]) for row in csv.DictReader(io.StringIO(histogram))) == 10
    assert pages.get("/sae/first/-/feature/0/plot/nonsense.csv?analysis=hostile").status_code == 404


def test_an_embedded_page_has_the_parts_that_are_asked_for_and_may_be_framed(pages: TestClient) -> None:
    answer = pages.get(HOSTILE.format(0) + "&embed=1&plots=histogram,nonsense")
    assert "frame-ancestors *" in answer.headers["content-security-policy"]
    assert "x-frame-options" not in answer.headers
    assert "Firings by activation" in answer.text
    assert "Direct logits" not in answer.text
    assert 'id="examples"' not in answer.text
    assert '<header class="top">' not in answer.text
    assert "made &lt;up&gt;" in answer.text  # on what it rests
    whole = pages.get(HOSTILE.format(0))
    assert "frame-ancestors 'self'" in whole.headers["content-security-policy"]
    assert whole.headers["x-frame-options"] == "SAMEORIGIN"
    assert data(pages, HOSTILE.format(0))["parts"] == list(PARTS)


def test_the_permalink_names_the_analysis(pages: TestClient, real: str) -> None:
    page = data(pages, f"/sae/first/-/feature/3?analysis={real[:6]}&tab=quantile")
    assert page["to"]["permalink"] == f"http://localhost/sae/first/-/feature/3?analysis={real}&tab=quantile"
    frame = urlsplit(page["to"]["iframe"])
    assert parse_qs(frame.query)["embed"] == ["1"]
    text = pages.get(f"/sae/first/-/feature/3?analysis={real}").text
    assert "&lt;iframe src=" in text


def test_a_text_is_tested_without_scripts_by_a_link(pages: TestClient) -> None:
    text = pages.get(PLAIN.format(0) + "&text=hello+%26+%3Cb%3E").text
    strip = re.search(r'hx-get="([^"]+text-strip[^"]+)"', text)
    assert strip is not None
    assert parse_qs(urlsplit(html.unescape(strip[1])).query) == {
        "feature": ["0"], "text": ["hello & <b>"], "analysis": ["plain"],
    }  # fmt: skip
    assert any(link.startswith("/text?sae=first&feature=0&text=hello") for link in links(text))
    assert "hx-get" not in pages.get(PLAIN.format(0)).text


def test_every_feature_of_the_real_analysis_has_a_small_page(pages: TestClient, real: str) -> None:
    for feature in range(0, 64, 7):
        for tab in ("top", "quantile", "bin", "random", "hard"):
            answer = pages.get(f"/sae/first/-/feature/{feature}?analysis={real}&tab={tab}")
            assert answer.status_code == 200
            assert len(answer.content) < 150_000


def test_what_cannot_be_asked_is_refused(pages: TestClient) -> None:
    for query in ("tab=nonsense", "ctx=nonsense", "bin=-1", "text=" + "a" * 4001, "embed=2"):
        assert pages.get(PLAIN.format(0) + f"&{query}").status_code == 422


def test_plotly_comes_from_the_package_and_is_kept_for_ever(pages: TestClient) -> None:
    text = pages.get("/sae/first/-/features?analysis=plain").text
    address = re.search(r'data-plotly="([^"]+)"', text)
    assert address is not None
    answer = pages.get(address[1])
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "immutable" in answer.headers["cache-control"]
    assert "plotly.js v" in answer.text[:200]
    assert pages.get(address[1], headers={"accept-encoding": "identity"}).text == answer.text
    assert pages.get(address[1], headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_the_model_is_measured_without_a_feature(pages: TestClient, real: str) -> None:
    query = f"analysis={real}&where=firings%3E20&sort=-f1"
    feature = pages.get(f"/sae/first/-/features.json?{query}").json()["features"][0]
    address = data(pages, f"/sae/first/-/feature/{feature}?analysis={real}")["to"]["effects"]
    fragment = pages.post(address, headers={"hx-request": "true"})
    assert "loss per firing" in fragment.text, fragment.text
    assert "<html" not in fragment.text
    whole = pages.post(address, data={"text": ""})  # without scripts: a page of its own
    assert "<html" in whole.text
    assert "loss per firing" in whole.text
    fault = pages.post("/sae/first/-/feature/99999/effects", headers={"hx-request": "true"})
    assert 'role="alert"' in fault.text
