"""The tracker as a user meets it: kept work, interruption, prompts, settings, bad input."""

from __future__ import annotations

from typing import Any

import pytest
from planted_network import BLOCKS, ERASED, WRITTEN, bit_concept, cue_concept, planted_model, speaking_model

import neuronmap.abstraction.tracker as tracker_module
from neuronmap.abstraction.record import TrackingReport
from neuronmap.abstraction.settings import TrackerConfig
from neuronmap.abstraction.tracker import AbstractionTracker
from neuronmap.concepts import Outcome
from neuronmap.errors import ConfigError, HookPointError, InputError
from neuronmap.models import LanguageModel
from neuronmap.progress import SilentProgress

CONFIG = TrackerConfig(
    permutations=40, resamples=40, random_concepts=20, control_labelings=0, mlp=False, complexity=False, untrained=False
)
BIT, CUE = bit_concept(every=3), cue_concept(every=3)
PROMPT = "start noun3b right filler2 now now"


def tracked(model: LanguageModel | None = None, **changes: Any) -> AbstractionTracker:
    return AbstractionTracker(model or planted_model(), config=CONFIG.updated(**changes), progress=SilentProgress())


def test_a_report_is_whole_and_reads_back() -> None:
    report = tracked().track([BIT], prompts=[PROMPT])
    assert report.blocks == BLOCKS
    assert report.layers == list(range(BLOCKS + 1))
    assert report.model["name"] == "planted"
    assert report.settings["seed"] == 0
    assert report.warnings == ["Layers were not compared: no text was given."]
    assert report.concepts[0].complexity is None
    again = TrackingReport(**report.to_dict())
    assert again == report


def test_a_prompt_shows_the_bit_where_it_is_held_and_greys_what_says_nothing() -> None:
    trajectory = tracked().track_concept_evolution(PROMPT, [BIT])
    found = trajectory.concepts[0]
    assert trajectory.tokens == PROMPT.split()
    assert found.classes == ["a", "b"]
    for layer in range(BLOCKS + 1):
        assert found.grey[0][layer] == "position 0"
        if layer < WRITTEN or layer >= ERASED:
            assert found.grey[4][layer] == "not significant"
    odds = found.log_odds[4][WRITTEN]
    assert odds is not None
    assert odds > 1
    other = tracked().track_concept_evolution(PROMPT.replace("3b", "3a"), [BIT]).concepts[0]
    assert other.log_odds[4][WRITTEN] is not None
    assert other.log_odds[4][WRITTEN] < -1
    assert found.grey[4][WRITTEN] == ""
    assert found.grey[1][WRITTEN] == "out of domain"  # the noun itself is nothing like "now"
    assert found.peak_token in (4, 5)
    assert found.peak_layer in range(WRITTEN, ERASED)
    assert found.peak_interval is not None
    assert found.peak_interval[0] <= found.peak_layer <= found.peak_interval[1]


def test_the_lens_is_what_the_model_says() -> None:
    model = speaking_model()
    trajectory = tracked(model).track_concept_evolution(PROMPT, [BIT])
    assert trajectory.lens is not None
    assert trajectory.lens[4][-1][0].strip() == "hot"
    assert trajectory.lens_probability is not None
    logits = model.logits(__import__("torch").tensor([model.tokenizer(PROMPT)["input_ids"]]))
    assert trajectory.lens_probability[4][-1] == pytest.approx(float(logits[0, 4].softmax(0).max()), rel=1e-4)


def test_what_was_measured_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tracked().measure([BIT])
    monkeypatch.setattr(tracker_module, "read_concepts", lambda *_, **__: pytest.fail("the model was run again"))
    assert tracked().measure([BIT]) == first


@pytest.mark.parametrize("change", [{"seed": 1}, {"permutations": 41}, {"items": 100}])
def test_other_settings_are_another_measurement(change: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    tracked().measure([BIT])
    ran = []
    real = tracker_module.read_concepts
    monkeypatch.setattr(
        tracker_module, "read_concepts", lambda *args, **kwargs: (ran.append(1), real(*args, **kwargs))[1]
    )
    tracked(**change).measure([BIT])
    assert ran == [1]


def test_a_damaged_entry_of_the_cache_is_made_again(home: Any) -> None:
    first = tracked().measure([BIT])
    for file in (home / "cache" / "concepts").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert tracked().measure([BIT]) == first


def test_ctrl_c_loses_at_most_the_concept_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    real = tracker_module.measure_concept
    done: list[str] = []

    def stopped(concept: Any, *args: Any, **kwargs: Any) -> Any:
        if concept.name == "planted:cue":
            raise KeyboardInterrupt
        done.append(concept.name)
        return real(concept, *args, **kwargs)

    monkeypatch.setattr(tracker_module, "measure_concept", stopped)
    with pytest.raises(KeyboardInterrupt):
        tracked().measure([BIT, CUE])
    monkeypatch.setattr(
        tracker_module,
        "measure_concept",
        lambda concept, *args, **kwargs: (done.append(concept.name), real(concept, *args, **kwargs))[1],
    )
    found = tracked().measure([BIT, CUE])
    assert done == ["planted:bit", "planted:cue"]
    assert [one.concept["name"] for one in found] == done


def test_nothing_is_kept_when_the_fence_has_fallen(home: Any) -> None:
    class Fenced(Exception):
        pass

    def fence() -> None:
        raise Fenced

    with pytest.raises(Fenced):
        tracked().measure([BIT], fence=fence)
    folder = home / "cache" / "concepts"
    assert not folder.exists() or not list(folder.iterdir())


def test_the_same_seed_gives_the_same_report() -> None:
    reports = []
    for _ in range(2):
        found = tracked()
        found._kept.clear()
        reports.append(found.measure([CUE])[0].to_dict())
    assert reports[0] == reports[1]


def test_random_weights_are_a_baseline_of_their_own(tiny_llama: LanguageModel) -> None:
    config = CONFIG.updated(untrained=True, items=32, seed=5)
    result = AbstractionTracker(tiny_llama, config=config, progress=SilentProgress()).measure(
        ["grammatical_number:subject"]
    )[0]
    assert result.baselines.random_cross is not None
    assert result.baselines.random_cross[0] == pytest.approx(0.5, abs=0.2)
    assert result.cross is not None
    assert result.baselines.random_within != result.within.score
    assert result.summary.verdict == "not-detected"  # it has random weights itself


def test_bad_input_is_said_before_the_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "read_concepts", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(ConfigError, match="no concept named 'gramatical_number'") as caught:
        tracked().track(["gramatical_number"])
    assert "grammatical_number" in caught.value.hint
    with pytest.raises(ConfigError, match="No concept was named"):
        tracked().track([])
    with pytest.raises(ConfigError, match="permutations"):
        TrackerConfig.preset("quick", permutations=3)
    with pytest.raises(HookPointError, match="layers 0"):
        AbstractionTracker(planted_model(), layers=[0, 99], progress=SilentProgress())


def test_a_prompt_of_one_token_is_refused_with_the_reason_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracker_module, "read_concepts", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(InputError, match="position 0 says nothing"):
        tracked().track_concept_evolution("start", [BIT])
    with pytest.raises(InputError, match="1 token"):
        tracked().track([BIT], prompts=[PROMPT, "start"])


def test_what_keeps_a_causal_profile_from_being_made_is_a_warning_and_nothing_is_lost() -> None:
    twice = bit_concept(Outcome({"a": ("hot",), "b": ("hot",)}, "hot or hot"), every=3)
    result = tracked(speaking_model(), causal=True).measure([twice])[0]
    assert result.causal is None
    assert any("begin with the same token" in warning for warning in result.warnings)
    silent = tracked(causal=True).measure([BIT])[0]  # no language-model head
    assert any("predicts no next token" in warning for warning in silent.warnings)


def test_a_report_with_lists_of_other_lengths_is_refused() -> None:
    document = tracked().track([BIT]).to_dict()
    document["concepts"][0]["within"]["score"] = [0.5, 0.6]
    with pytest.raises(ConfigError, match=r"within has 2 values for 15 layers"):
        TrackingReport(**document)


def test_the_best_layer_of_an_inverted_concept_is_the_one_within() -> None:
    result = tracked(complexity=True).measure([cue_concept(every=2)])[0]
    assert result.summary.verdict == "inverted"
    assert result.complexity is not None
    gap = result.complexity.within_cross_gap
    assert gap.value is not None
    assert gap.value >= 0.4
    assert gap.low is not None
    assert gap.low > 0
