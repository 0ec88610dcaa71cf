"""Schedules as functions of the step."""

from __future__ import annotations

from itertools import pairwise

import pytest

from neuronmap.training import SAEConfig
from neuronmap.training.schedules import Schedule


def schedule(steps: int = 1000, k: int | None = 10, **fields) -> Schedule:
    return Schedule(SAEConfig(**fields), steps=steps, peak_rate=1.0, k=k, most_k=64)


def test_rate_rises_over_the_warm_up_holds_and_falls_over_the_last_fifth():
    rates = [schedule().learning_rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 51)
    assert all(b > a for a, b in pairwise(rates[:50]))
    assert rates[50:800] == [1.0] * 750
    assert all(b < a for a, b in pairwise(rates[800:]))
    assert 0 < rates[-1] < 0.01


def test_warm_up_is_at_most_a_thousand_steps():
    assert schedule(steps=100_000).warmup_steps == 1000


def test_one_step_has_a_rate():
    assert schedule(steps=1).learning_rate(0) > 0


def test_sparsity_rises_from_nothing_to_one():
    made = schedule()
    assert made.sparsity_scale(0) == 0.0
    assert made.sparsity_scale(50) == pytest.approx(0.5)
    assert made.sparsity_scale(100) == made.sparsity_scale(999) == 1.0


def test_an_architecture_has_its_own_warm_up_of_sparsity_unless_the_configuration_says():
    config = SAEConfig(architecture="jumprelu")
    assert Schedule(config, 1000, 1.0, None, 64, 0.3).sparsity_scale(150) == pytest.approx(0.5)
    given = SAEConfig(architecture="jumprelu", sparsity_warmup_fraction=0.1)
    assert Schedule(given, 1000, 1.0, None, 64, 0.3).sparsity_scale(50) == pytest.approx(0.5)


def test_k_falls_from_its_multiple_and_never_exceeds_the_width():
    made = schedule(k_anneal_fraction=0.1)
    assert made.active_k(0) == 40
    assert made.active_k(50) == 25
    assert made.active_k(100) == made.active_k(999) == 10
    assert schedule(k=32, k_anneal_fraction=0.1).active_k(0) == 64
    assert schedule(k=None).active_k(0) is None
    assert schedule().active_k(0) == 10
