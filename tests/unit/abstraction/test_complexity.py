"""The order of concepts, and the erasure that causal profiles use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from planted_network import bit_concept, planted_model

from neuronmap.abstraction.causal import erasure
from neuronmap.abstraction.complexity import all_reached, first_reached, ranked
from neuronmap.abstraction.measuring.scores import ScoredCurve
from neuronmap.abstraction.record import Complexity, ConceptResult, Interval
from neuronmap.abstraction.settings import TrackerConfig
from neuronmap.abstraction.tracker import AbstractionTracker
from neuronmap.progress import SilentProgress


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ConceptResult:
    config = TrackerConfig(
        permutations=20,
        resamples=20,
        random_concepts=20,
        control_labelings=0,
        mlp=False,
        complexity=False,
        untrained=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(tmp_path_factory.mktemp("complexity")))
        tracker = AbstractionTracker(planted_model(), config=config, layers=[0, 4], progress=SilentProgress())
        return tracker.measure([bit_concept(every=3)])[0]


def named(result: ConceptResult, name: str, half: tuple[float, float, float] | None, bits: float) -> ConceptResult:
    """A copy with another name, half depth (value, low, high) and code length."""
    depth = (
        Interval(value=None, reason="not detected")
        if half is None
        else Interval(value=half[0], low=half[1], high=half[2])
    )
    nothing = Interval(value=None, reason="-")
    found = Complexity(
        half_depth=depth,
        mdl_bits=Interval(value=bits),
        mdl_bits_embedding=nothing,
        compression=nothing,
        n90=nothing,
        rank90=nothing,
        mlp_gap=nothing,
        context_need=nothing,
        within_cross_gap=nothing,
    )
    return result.updated(concept={**result.concept, "name": name}, complexity=found)


def places(results: list[ConceptResult], draws: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {
        one.concept["name"]: (
            one.complexity.rank,
            one.complexity.rank_low,
            one.complexity.rank_high,
            one.complexity.tie,
        )
        for one in ranked(results, draws)
        if one.complexity is not None
    }


def test_places_go_by_half_depth_and_ties_by_overlap(result: ConceptResult) -> None:
    generator = np.random.default_rng(0)
    made = [
        named(result, "late", (20.0, 19.0, 21.0), 10),
        named(result, "early", (3.0, 2.0, 4.0), 90),
        named(result, "also early", (3.5, 2.5, 5.0), 20),
        named(result, "never", None, 5),
    ]
    draws = {
        "late": 20 + 0.5 * generator.standard_normal(300),
        "early": 3 + 0.5 * generator.standard_normal(300),
        "also early": 3.5 + 0.5 * generator.standard_normal(300),
        "never": np.full(300, np.nan),
    }
    assert places(made, draws) == {
        "early": (1, 1, 2, 1),
        "also early": (2, 1, 2, 1),
        "late": (3, 3, 3, 2),
        "never": (None, None, None, None),
    }


def test_equal_half_depths_are_put_in_order_by_bits(result: ConceptResult) -> None:
    made = [named(result, "long", (3.0, 2.0, 4.0), 90), named(result, "short", (3.0, 2.0, 4.0), 20)]
    found = places(made, {})
    assert (found["short"][0], found["long"][0]) == (1, 2)
    assert found["short"][3] == found["long"][3] == 1


def test_results_keep_their_order(result: ConceptResult) -> None:
    made = [named(result, "b", (9.0, 8.0, 9.5), 1), named(result, "a", (3.0, 2.0, 4.0), 1)]
    assert [one.concept["name"] for one in ranked(made, {})] == ["b", "a"]


def test_the_first_step_that_reaches_is_found_in_each_resample_by_its_own_goal() -> None:
    def scored(value: float, samples: list[float]) -> ScoredCurve:
        return ScoredCurve(torch.tensor([value]).double(), torch.tensor(samples).double()[:, None])

    final = scored(0.9, [0.9] * 98 + [1.0] * 2)  # goals 0.86, and 0.95 in two resamples
    steps = [scored(0.5, [0.5] * 100), scored(0.87, [0.87] * 90 + [0.6] * 10), scored(0.9, [0.9] * 100)]
    assert not all_reached(steps[:1], final)
    assert not all_reached(steps[:2], final)
    assert all_reached(steps, final)  # two of a hundred never do: beyond the interval
    found = first_reached([1, 2, 4], steps, final)
    assert (found.value, found.low, found.high) == (2, 2, 4)
    never = first_reached([1], steps[:1], final)
    assert never.value is None
    assert never.reason == "not reached at 1"
    open_end = first_reached([1, 2], steps[:2], final)
    assert (open_end.value, open_end.low, open_end.high) == (2, 2, None)


def test_components_have_intervals_around_them(result: ConceptResult) -> None:
    config = TrackerConfig(permutations=20, resamples=60, random_concepts=20, control_labelings=0, untrained=False)
    tracker = AbstractionTracker(planted_model(), config=config, layers=[0, 4, 8], progress=SilentProgress())
    found = tracker.measure([bit_concept(every=2)])[0].complexity
    assert found is not None
    for one in (found.rank90, found.mlp_gap, found.context_need, found.within_cross_gap):
        assert one.value is not None
        assert one.low is not None
        assert one.low <= one.value
        assert one.high is None or one.high >= one.value
    assert found.within_cross_gap.value == pytest.approx(0.0, abs=1e-9)
    assert found.mlp_gap.value is not None
    assert found.mlp_gap.value > 0.3  # at layer 8, where the bit is mixed with another


def test_after_an_erasure_no_linear_probe_finds_anything() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 12, generator=generator, dtype=torch.float64) * torch.linspace(0.2, 5, 12)
    y = (x[:, 3] + x[:, 7] > 0).double() * 2 - 1
    left, right = erasure(x, y[:, None])
    after = x - (x - x.mean(0)) @ right.T @ left.T
    covariance = (after - after.mean(0)).T @ (y - y.mean()) / len(y)
    before = (x - x.mean(0)).T @ (y - y.mean()) / len(y)
    assert float(covariance.norm() / before.norm()) < 1e-6  # Theorem 3.1 of the paper: no covariance, no linear probe
    moved = (after - x).norm(dim=1).mean()
    assert 0 < float(moved) < float((x - x.mean(0)).norm(dim=1).mean())


def test_an_erasure_is_the_smallest_change_that_does_it() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4000, 5, generator=generator, dtype=torch.float64) @ torch.randn(
        5, 5, generator=generator, dtype=torch.float64
    )
    y = (x[:, 0] > 0).double() * 2 - 1
    left, right = erasure(x, y[:, None])
    ours = ((x - x.mean(0)) @ right.T @ left.T).square().sum(1).mean()
    direction = (x - x.mean(0)).T @ (y - y.mean())
    direction = direction / direction.norm()
    orthogonal = (((x - x.mean(0)) @ direction)[:, None] * direction).square().sum(1).mean()
    assert float(ours) <= float(orthogonal) + 1e-9


def test_where_nothing_varies_nothing_is_erased() -> None:
    left, right = erasure(torch.ones(10, 4, dtype=torch.float64), torch.tensor([[1.0], [-1.0]] * 5).double())
    assert float((right.T @ left.T).abs().max()) == 0.0
