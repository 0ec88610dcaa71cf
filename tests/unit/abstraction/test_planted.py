"""The tracker on a network where everything is known: written, turned, mixed with another bit, clear again, erased."""

from __future__ import annotations

import numpy as np
import pytest
from planted_network import (
    BLOCKS,
    CLEAR,
    CUE,
    ERASED,
    MIXED,
    TURNED,
    WRITTEN,
    bit_concept,
    cue_concept,
    planted_model,
    speaking_model,
)

from neuronmap.abstraction.record import ConceptResult
from neuronmap.abstraction.settings import TrackerConfig
from neuronmap.abstraction.tracker import AbstractionTracker
from neuronmap.concepts import Outcome
from neuronmap.progress import SilentProgress

CONFIG = TrackerConfig(permutations=100, resamples=100, random_concepts=40, untrained=False, similarity=False)
LINEAR = [*range(WRITTEN, MIXED), *range(CLEAR, ERASED)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConceptResult]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(tmp_path_factory.mktemp("planted")))
        tracker = AbstractionTracker(planted_model(), config=CONFIG, progress=SilentProgress())
        return {one.concept["name"]: one for one in tracker.measure([bit_concept(), cue_concept(every=2)])}


@pytest.fixture(scope="module")
def bit(results: dict[str, ConceptResult]) -> ConceptResult:
    return results["planted:bit"]


def test_the_bit_is_found_exactly_where_it_is_written_in_the_open(bit: ConceptResult) -> None:
    assert bit.cross is not None
    for score in (bit.within.score, bit.cross.mean.score, bit.cross.worst):
        for layer, value in enumerate(score):
            if layer in LINEAR:
                assert value == 1.0, layer
            elif MIXED <= layer < CLEAR:
                assert value == pytest.approx(0.5, abs=0.15), layer
            else:
                assert value == 0.5, layer
    assert bit.layers == list(range(BLOCKS + 1))


def test_the_summary_names_the_planted_layers(bit: ConceptResult) -> None:
    one = bit.summary
    assert (one.verdict, one.present_at_embedding) == ("abstract", False)
    assert one.emergence == WRITTEN
    assert one.emergence_interval == [WRITTEN, WRITTEN]
    assert one.half_depth.value == pytest.approx(WRITTEN - 0.5)
    assert one.peak == LINEAR
    assert one.decay == ERASED
    assert one.saturation == CLEAR
    assert one.expected_layer == pytest.approx(WRITTEN)


def test_only_the_mlp_finds_the_mixed_bit(bit: ConceptResult) -> None:
    assert bit.mlp is not None
    for layer in range(MIXED, CLEAR):
        assert bit.mlp[layer] is not None
        assert bit.mlp[layer] > 0.95
    assert bit.complexity is not None
    assert bit.complexity.mlp_gap.value == pytest.approx(0.5, abs=0.15)


def test_directions_transfer_within_a_code_and_not_across_the_turn(bit: ConceptResult) -> None:
    table = np.asarray(bit.transfer, dtype=float)
    first, second = list(range(WRITTEN, TURNED)), [*range(TURNED, MIXED), *range(CLEAR, ERASED)]
    assert (table[np.ix_(first, first)] == 1).all()
    assert (table[np.ix_(second, second)] == 1).all()
    assert (table[np.ix_(first, second)] == 0.5).all()
    assert (table[np.ix_(second, first)] == 0.5).all()
    assert bit.rotation[WRITTEN] == pytest.approx(1, abs=0.01)
    assert bit.rotation[TURNED - 1] == pytest.approx(0, abs=0.05)


def test_other_figures_of_the_bit(bit: ConceptResult) -> None:
    found = bit.complexity
    assert found is not None
    assert found.context_need.value in (2, 3)  # the noun is one to three words back
    assert found.mdl_bits.value is not None
    assert found.mdl_bits_embedding.value is not None
    assert found.mdl_bits.value < 0.2 * found.mdl_bits_embedding.value
    assert found.mdl_bits_embedding.value == pytest.approx(bit.items, rel=0.02)  # a bit an item: nothing to learn there
    assert found.rank == found.tie == 1
    assert bit.within_bits[WRITTEN] is not None
    assert bit.within_bits[WRITTEN] > 0.8
    assert all(value is not None and value < 0.7 for value in bit.random_concept95)
    assert bit.baselines.position_length == pytest.approx(0.5, abs=0.05)
    assert all(p == pytest.approx(1 / 101) for layer, p in enumerate(bit.p_value) if layer in LINEAR)
    assert bit.parallelism is not None
    assert bit.parallelism[WRITTEN] == pytest.approx(1, abs=0.05)


def test_a_surface_cue_that_turns_round_is_inverted(results: dict[str, ConceptResult]) -> None:
    cue = results["planted:cue"]
    assert cue.summary.verdict == "inverted"
    assert cue.summary.emergence is None
    assert cue.cross is not None
    for level in cue.cross.levels:
        assert level.score[:CUE] == [0.5] * CUE
        assert all(value == 0.0 for value in level.score[CUE:])
        assert all(value == 1.0 for value in level.alone[CUE:])
        assert f"{level.level} at layers {CUE} to {BLOCKS}" in cue.summary.statement


def test_the_behaviour_follows_the_bit_where_it_is_held() -> None:
    outcome = Outcome({"a": ("cold",), "b": ("hot",)}, "hot or cold")
    config = CONFIG.updated(causal=True, causal_layers=5, causal_directions=6, complexity=False, mlp=False)
    tracker = AbstractionTracker(speaking_model(), config=config, progress=SilentProgress())
    profile = tracker.measure([bit_concept(outcome, every=2)])[0].causal
    assert profile is not None
    assert profile.layers == [0, 1, 2, 3, 4]
    assert profile.clean == pytest.approx(4.0, abs=0.01)  # logits of +2 and -2
    for place in range(1, 5):
        swapped, erased = profile.swapped[place], profile.erased[place]
        assert swapped.value is not None
        assert erased.value is not None
        assert swapped.value == pytest.approx(-8.0, abs=0.5)  # right becomes wrong
        assert erased.value == pytest.approx(-4.0, abs=0.5)  # neither
        assert profile.random_swapped[place] is not None
        assert profile.random_swapped[place] < 6
    assert profile.swapped[0].value == pytest.approx(0.0, abs=0.05)  # the embedding of "now" holds nothing
