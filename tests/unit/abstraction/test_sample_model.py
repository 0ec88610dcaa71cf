"""The table that the tracker was specified by, on SmolLM2: lexical number, number at a later word, roles that turn round, position 0."""

from __future__ import annotations

import pytest
import torch

from neuronmap.abstraction.reading import layer_hooks
from neuronmap.abstraction.record import ConceptResult
from neuronmap.abstraction.settings import TrackerConfig
from neuronmap.abstraction.tracker import AbstractionTracker
from neuronmap.models import LanguageModel, capture, list_samples, load_model
from neuronmap.progress import SilentProgress

pytestmark = [
    pytest.mark.sample,
    pytest.mark.skipif(not any(sample.path() for sample in list_samples()), reason="the sample model is not installed"),
]
LAYERS = [0, 2, 6, 14, 20, 28]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model("smollm2-135m", progress=SilentProgress())


@pytest.fixture(scope="module")
def results(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConceptResult]:
    config = TrackerConfig.preset(
        "quick", items=240, complexity=False, control_labelings=20, permutations=100, resamples=100
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(tmp_path_factory.mktemp("sample")))
        tracker = AbstractionTracker(model, config=config, layers=LAYERS, progress=SilentProgress())
        return {one.concept["name"]: one for one in tracker.measure(["grammatical_number", "syntactic_role"])}


def test_number_at_the_noun_is_lexical(results: dict[str, ConceptResult]) -> None:
    found = results["grammatical_number:lexical"]
    assert found.cross is not None
    assert all(value is not None and value > 0.97 for value in found.cross.mean.score)
    assert found.summary.present_at_embedding
    assert found.summary.emergence is None
    assert found.control is not None
    shared, heldout = found.control.shared[0], found.control.heldout[0]
    assert shared is not None
    assert heldout is not None
    assert shared > 0.9  # a linear probe learns random labels of lemmas by heart
    assert abs(heldout - 0.5) < 0.15


def test_number_of_the_subject_arises_at_a_later_equal_word(results: dict[str, ConceptResult]) -> None:
    found = results["grammatical_number:subject"]
    plain = next(level for level in found.cross.levels if level.level == "prepositional").score if found.cross else []
    assert plain[0] == 0.5  # the same word: chance by construction
    assert max(value for value in plain[1:4] if value is not None) > 0.8
    assert plain[4] is not None
    assert plain[4] > 0.75
    assert not found.summary.present_at_embedding
    assert found.summary.verdict in ("abstract", "condition-bound")  # 16 lemmas leave some levels open
    assert found.summary.half_depth.value is not None


def test_what_is_of_no_use_fades(results: dict[str, ConceptResult]) -> None:
    found = results["grammatical_number:attractor"].within.score
    assert found[0] == 0.5
    assert found[1] is not None
    assert found[1] > 0.9
    assert found[5] is not None
    assert found[5] < 0.93


def test_a_thematic_role_turns_round_with_the_voice_and_the_gap_does_not(results: dict[str, ConceptResult]) -> None:
    thematic, grammatical = results["syntactic_role:thematic"], results["syntactic_role:grammatical"]
    assert thematic.cross is not None
    assert grammatical.cross is not None
    for layer in (1, 2, 3, 4):
        assert thematic.cross.mean.score[layer] is not None
        assert thematic.cross.mean.score[layer] < 0.05
        assert grammatical.cross.mean.score[layer] is not None
        assert grammatical.cross.mean.score[layer] > 0.95
        for level in thematic.cross.levels:
            assert level.alone[layer] is not None
            assert level.alone[layer] > 0.97
    assert thematic.summary.verdict == "inverted"
    assert grammatical.summary.verdict == "abstract"


def test_position_0_is_unlike_every_other(model: LanguageModel) -> None:
    ids = torch.tensor([model.tokenizer("The lawyer that hired the teacher yesterday was late")["input_ids"]])
    hook = layer_hooks(model, [15])[0]
    norms = capture(model, ids, [hook])[hook.name][0].norm(dim=1)
    assert float(norms[0] / norms[1:].median()) > 50
