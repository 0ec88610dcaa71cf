"""What models answer over the web is what the classes behind it find; sizes are limited, mistakes are sentences."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuronmap.errors import ConfigError, InputError, NotInLibraryError
from neuronmap.features.live.effects import FeatureEffects
from neuronmap.features.live.extractor import SAEFeatureExtractor
from neuronmap.features.live.interventions import Intervention
from neuronmap.features.live.steering import FeatureSteering
from neuronmap.hub import SAEModelHub
from neuronmap.hub.analyses import open_analysis
from neuronmap.progress import SilentProgress
from neuronmap.web.live.loaded import Loaded
from neuronmap.web.live.operations import perform
from neuronmap.web.live.process import LiveProcess
from neuronmap.web.live.protocol import ANSWERS, REQUESTS
from neuronmap.web.live.requests import (
    MOST_CHARACTERS,
    ActivationRequest,
    Change,
    EffectsRequest,
    LiveRequest,
    SteerRequest,
    TextRequest,
    WarmRequest,
)

STRANGE = 'A river <script>"x"</script> 日本 👩‍👧 é\n\tagain. '


@pytest.fixture(scope="module")
def loaded(small_home: Path) -> Loaded:
    return Loaded(small_home / "library", 1 << 30, SilentProgress())


@pytest.fixture(scope="module")
def entry(small_home: Path) -> Any:
    return SAEModelHub(small_home / "library").get("first")


@pytest.fixture(scope="module")
def extractor(entry: Any) -> SAEFeatureExtractor:
    return SAEFeatureExtractor(entry.path, store=open_analysis(entry), progress=SilentProgress())


def ask(request: LiveRequest, loaded: Loaded) -> dict[str, Any]:
    """An answer as it goes over the line: plain JSON that the answer's type takes back."""
    answer = perform(request, loaded, SilentProgress(), running=lambda: None).model_dump(mode="json")
    sent: dict[str, Any] = json.loads(json.dumps(answer, allow_nan=False))
    ANSWERS[request.operation].model_validate(sent)
    return sent


def test_a_text_is_answered_as_the_extractor_sees_it(loaded: Loaded, extractor: SAEFeatureExtractor) -> None:
    found = extractor.analyze_features(STRANGE, top=5)
    ranked = found.ranking(7)
    wanted = tuple(one.feature for one in ranked[:2])
    answer = ask(TextRequest(sae="first", text=STRANGE, features=wanted, top=5, ranking=7), loaded)
    assert answer["token_ids"] == found.token_N.tolist()
    assert answer["masked"] == found.masked_N.tolist()
    assert "".join(piece["text"] for piece in answer["pieces"]) == STRANGE
    assert [piece["shown"] for piece in answer["pieces"]] == [piece.shown for piece in found.pieces(0)]
    for token, listed in enumerate(answer["top"]):
        assert [(feature, pytest.approx(value, rel=1e-5)) for feature, value, _ in listed] == found.top_features(token)
    assert [one["feature"] for one in answer["ranking"]] == [one.feature for one in ranked]
    assert answer["ranking"][0]["relative"] == pytest.approx(ranked[0].relative, rel=1e-5)
    assert answer["ranking"][0]["label"] == ranked[0].label == answer["labels"].get(str(wanted[0]), "")
    assert answer["l0"] == pytest.approx(found.l0, rel=1e-5)
    assert answer["explained_share"] == pytest.approx(found.explained, rel=1e-5)
    for trace in answer["traces"]:
        expected = found.feature(trace["feature"]).activation_N.tolist()
        given = [math.nan if value is None else value for value in trace["activations"]]
        np.testing.assert_allclose(given, expected, rtol=1e-5)
        assert trace["known_maximum"] == pytest.approx(extractor.names.maximum(trace["feature"]), rel=1e-5)
    assert answer["rests_on"]["sae"] == "first"
    assert answer["rests_on"]["weights_digest"].startswith("sha256:")
    assert answer["rests_on"]["model"] == "tiny"  # of a folder on this machine only the name
    assert answer["rests_on"]["analysis"]
    assert answer["order"] == "relative"


def test_dense_features_are_left_out_of_the_lists_only(loaded: Loaded, extractor: SAEFeatureExtractor) -> None:
    assert extractor.names.store is not None
    density_F = extractor.names.store.tables.read("features", ["density"])["density"].to_numpy()
    everything = ask(TextRequest(sae="first", text=STRANGE, top=50, ranking=500), loaded)
    limit = float(np.median([density_F[one["feature"]] for one in everything["ranking"]]))
    some = ask(TextRequest(sae="first", text=STRANGE, top=50, ranking=500, max_density=limit), loaded)
    kept = {one["feature"] for one in everything["ranking"] if density_F[one["feature"]] <= limit}
    assert {one["feature"] for one in some["ranking"]} == kept
    assert {feature for listed in some["top"] for feature, _, _ in listed} == kept
    assert some["l0"] == everything["l0"]


def test_orders_and_what_needs_an_analysis(loaded: Loaded) -> None:
    answer = ask(TextRequest(sae="second", text=STRANGE), loaded)
    assert answer["order"] == "share"
    assert answer["rests_on"]["analysis"] is None
    assert all(relative is None for listed in answer["top"] for _, _, relative in listed)
    with pytest.raises(InputError, match="maxima of its features"):
        ask(TextRequest(sae="second", text=STRANGE, order="relative"), loaded)
    with pytest.raises(InputError, match="densities of its features"):
        ask(TextRequest(sae="second", text=STRANGE, max_density=0.1), loaded)
    by_activation = ask(TextRequest(sae="first", text=STRANGE, order="activation", ranking=500), loaded)["ranking"]
    assert [one["max"] for one in by_activation] == sorted((one["max"] for one in by_activation), reverse=True)


def test_long_texts_are_cut_and_it_is_said(loaded: Loaded) -> None:
    answer = ask(TextRequest(sae="first", text="river " * 300, top=0, ranking=0), loaded)
    assert len(answer["token_ids"]) == 64  # what the model can take
    assert any("was cut after 64 of" in note for note in answer["notes"])
    assert (answer["ranking"], answer["labels"]) == ([], {})
    short = ask(TextRequest(sae="first", text="river " * 300, max_tokens=5), loaded)
    assert len(short["token_ids"]) == 5


def test_one_feature_on_a_text(loaded: Loaded, extractor: SAEFeatureExtractor) -> None:
    found = extractor.analyze_features(STRANGE)
    feature = found.ranking(1)[0].feature
    answer = ask(ActivationRequest(sae="first", text=STRANGE, feature=feature), loaded)
    expected = np.nan_to_num(found.feature(feature).activation_N)
    np.testing.assert_allclose(answer["values"], expected, rtol=1e-5)
    assert answer["max_value_index"] == int(expected.argmax())
    assert len(answer["tokens"]) == len(answer["values"])


def test_a_prompt_is_continued_as_by_the_library(loaded: Loaded, entry: Any) -> None:
    steering = FeatureSteering(entry.path, store=open_analysis(entry), progress=SilentProgress())
    request = SteerRequest(
        sae="first", prompt="The river", changes=(Change(feature=3, kind="clamp", value=2.0, unit="max"),), max_tokens=8,
        temperature=0.8, seed=5, controls=2,
    )  # fmt: skip
    made = steering.generate(
        "The river", [Intervention.clamp(3, 2.0, unit="max")], max_tokens=8, temperature=0.8, seed=5, controls=2
    )
    answer = ask(request, loaded)
    assert [run["name"] for run in answer["runs"]] == ["clean", "steered", "control 1", "control 2"]
    for run, expected in zip(answer["runs"], made.runs, strict=True):
        assert (run["text"], run["token_ids"], run["stopped"]) == (expected.text, list(expected.ids), expected.stopped)
        assert run["clean_loss"] == pytest.approx(expected.clean_loss, rel=1e-5)
        # the probabilities are those that give that loss
        assert -np.log(run["probabilities"]).mean() == pytest.approx(expected.clean_loss, rel=1e-4)
    assert answer["changes"] == list(made.interventions)


def test_a_text_is_scored_as_by_the_library(loaded: Loaded, entry: Any) -> None:
    steering = FeatureSteering(entry.path, store=open_analysis(entry), progress=SilentProgress())
    score = steering.score("The river froze.", [Intervention.remove(3)])
    answer = ask(
        SteerRequest(sae="first", text="The river froze.", changes=(Change(feature=3, kind="remove"),)), loaded
    )
    assert [token["position"] for token in answer["tokens"]] == score.position_N.tolist()
    np.testing.assert_allclose([token["steered_loss"] for token in answer["tokens"]], score.steered_N, rtol=1e-4)
    np.testing.assert_allclose([token["kl"] for token in answer["tokens"]], score.kl_N, rtol=1e-4, atol=1e-9)
    assert answer["summary"][1]["change"] == pytest.approx(score.change, rel=1e-4, abs=1e-9)
    assert answer["runs"] == []


def test_effects_are_those_of_the_library(loaded: Loaded, entry: Any, extractor: SAEFeatureExtractor) -> None:
    feature = extractor.analyze_features(STRANGE).ranking(1)[0].feature
    effects = FeatureEffects(entry.path, store=open_analysis(entry), progress=SilentProgress())
    expected = effects.ablate(feature, max_examples=3, top=4)[0]
    answer = ask(EffectsRequest(sae="first", feature=feature, max_examples=3, top=4), loaded)
    assert answer["loss_change"] == pytest.approx(expected.loss_change, rel=1e-4)
    assert answer["contexts"] == expected.contexts
    assert [one["token"] for one in answer["promoted"]] == [one.token for one in expected.promoted]
    on_text = ask(EffectsRequest(sae="second", feature=1, text=STRANGE), loaded)  # no analysis needed
    assert on_text["contexts"] == 1


@pytest.mark.parametrize(
    ("request_", "error", "said"),
    [
        (TextRequest(sae="nothing", text="a"), NotInLibraryError, "no SAE 'nothing'"),
        (TextRequest(sae="../../etc", text="a"), NotInLibraryError, "no SAE"),
        (TextRequest(sae="first", analysis="nothing", text="a"), NotInLibraryError, "no analysis 'nothing'"),
        (TextRequest(sae="first", text="a", features=(64,)), InputError, "ids are 0 to 63"),
        (ActivationRequest(sae="first", text="a", feature=99), InputError, "ids are 0 to 63"),
        (SteerRequest(sae="first", prompt="a", changes=(Change(feature=70),)), InputError, "ids are 0 to 63"),
        (
            SteerRequest(sae="second", prompt="a", changes=(Change(feature=1, value=1, unit="max"),)),
            InputError,
            "no feature store",
        ),
        (SteerRequest(sae="first", prompt="river " * 99, changes=(Change(feature=1),)), InputError, "at most 64"),
        (EffectsRequest(sae="second", feature=1), InputError, "no feature store"),
    ],
)
def test_what_cannot_be_answered_is_said(
    loaded: Loaded, request_: LiveRequest, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        ask(request_, loaded)


@pytest.mark.parametrize(
    ("operation", "values"),
    [
        ("text", {"text": "a" * (MOST_CHARACTERS + 1)}),
        ("text", {"text": ""}),
        ("text", {"text": "a", "top": 257}),
        ("text", {"text": "a", "features": list(range(129))}),
        ("text", {"text": "a", "features": [-1]}),
        ("text", {"text": "a", "unknown": 1}),
        ("text", {"text": "\ud800"}),
        ("steer", {"prompt": "a", "changes": []}),
        ("steer", {"prompt": "a", "text": "a", "changes": [{"feature": 1}]}),
        ("steer", {"changes": [{"feature": 1}]}),
        ("steer", {"prompt": "a", "changes": [{"feature": 1, "value": math.inf}]}),
        ("steer", {"prompt": "a", "changes": [{"feature": 1}], "max_tokens": 201}),
        ("effects", {"feature": 2**40}),
    ],
)
def test_sizes_are_limited(operation: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        REQUESTS[operation].from_dict({"sae": "first", **values})


def test_models_are_shared_and_memory_is_bounded(small_home: Path) -> None:
    told: list[str] = []
    loaded = Loaded(small_home / "library", 1 << 30, SilentProgress(), lambda: told.append("loading"))
    first, second = loaded.sae("first"), loaded.sae("second")
    assert first.attached.model is second.attached.model
    assert loaded.num_models == 1
    assert loaded.sae("first").attached is first.attached
    assert len(told) == 4  # two SAEs, and each one's analysis or none
    loaded.read(first, STRANGE, 64)
    assert loaded.read(first, STRANGE, 64) is loaded.read(first, STRANGE, 64)
    tight = Loaded(small_home / "library", 1, SilentProgress())
    tight.sae("first")
    tight.sae("second")
    assert (tight.num_saes, tight.num_models) == (1, 1)  # what is in use stays, however large


def test_another_sae_under_the_same_name_is_read_anew(library: Path) -> None:
    loaded = Loaded(library, 1 << 30, SilentProgress())
    before = loaded.sae("second")
    hub = SAEModelHub(library)
    hub.register(hub.get("first").path, name="second", replace=True)
    after = loaded.sae("second")
    assert after.attached.digest == loaded.sae("first").attached.digest != before.attached.digest


def test_answers_come_over_the_line(during: Any) -> None:
    """The same through the process, with states and errors."""

    async def journey(live: LiveProcess) -> None:
        warm = live.submit(WarmRequest(sae="first"))
        text = live.submit(TextRequest(sae="first", text=STRANGE))
        bad = live.submit(TextRequest(sae="nothing", text="a"))
        states = set()
        while not warm.finished:
            states.add(warm.state)
            await asyncio.sleep(0.005)
        assert "loading" in states
        assert warm.result()["loaded_saes"] == 1
        await text.wait()
        assert "".join(piece["text"] for piece in text.result()["pieces"]) == STRANGE
        await bad.wait()
        assert bad.to_dict()["error"]["code"] == "not_in_library"
        assert bad.fault is not None
        assert bad.fault.to_error().status == 404
        assert text.to_dict()["seconds"] is not None

    during(journey)
