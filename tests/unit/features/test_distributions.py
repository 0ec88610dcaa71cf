"""Moments, quantiles, intervals and status of features against plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from feature_states import random_world, state_of
from scipy.stats import binomtest

from neuronmap.features.summary.distributions import STATUSES, histogram_quantiles, moments, status_of, wilson


def test_moments_are_those_of_the_firings() -> None:
    world = random_world()
    found = moments(state_of(world).features, world.unit)
    for feature in range(world.value_CTF.shape[2]):
        values = np.array([value for *_, value in world.firings(feature)])
        if len(values):
            assert found.mean_F[feature] == pytest.approx(values.mean(), rel=1e-12)
            assert found.std_F[feature] == pytest.approx(values.std(), rel=1e-9, abs=1e-9)
            assert found.sum_F[feature] == pytest.approx(values.sum(), rel=1e-12)
        else:
            assert np.isnan(found.mean_F[feature])
            assert np.isnan(found.std_F[feature])
            assert found.sum_F[feature] == 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_quantiles_are_within_a_bin_of_the_true_ones(share: float) -> None:
    world = random_world(contexts=60)
    features = state_of(world).features
    found_F = histogram_quantiles(features["histogram"], features["max"], world.unit, [share])[:, 0]
    for feature in range(world.value_CTF.shape[2]):
        values = [value for *_, value in world.firings(feature)]
        if values:
            true = sorted(values)[math.ceil(round(share * len(values), 6)) - 1]
            assert true / 2**0.26 <= found_F[feature] <= true * 2**0.26
            assert found_F[feature] <= max(values)
        else:
            assert np.isnan(found_F[feature])


def test_within_a_bin_firings_lie_evenly_over_the_logarithm() -> None:
    histogram = np.zeros((1, 64), np.uint32)
    histogram[0, 56] = 8  # bin 56 begins at 1 and ends at 2**(1/4)
    whole = histogram.copy()
    whole[0, 60] = 2  # the maximum is elsewhere
    found = histogram_quantiles(whole, np.array([9.0]), 2.0, [0.2, 0.4, 0.8])
    assert found[0] == pytest.approx([2 * 2**0.0625, 2 * 2**0.125, 2 * 2**0.25], rel=1e-6)
    # the bin of the maximum ends there
    found = histogram_quantiles(histogram, np.array([2.2]), 2.0, [0.5, 1.0])
    assert found[0] == pytest.approx([np.sqrt(2 * 2.2), 2.2], rel=1e-6)


def test_the_last_bin_reaches_up_to_the_maximum() -> None:
    histogram = np.zeros((1, 64), np.uint32)
    histogram[0, 63] = 4
    low = 4 * 2**-0.25
    found = histogram_quantiles(histogram, np.array([50.0]), 1.0, [0.5, 1.0])
    assert found[0] == pytest.approx([np.sqrt(low * 50), 50], rel=1e-6)


def test_wilson_solves_its_quadratic() -> None:
    z = 1.959963984540054
    for hits, tries in [(0, 10), (3, 10), (10, 10), (1, 500_000), (17, 40)]:
        for bound in wilson(hits, tries):
            if 0 < bound < 1:
                assert abs(hits / tries - bound) == pytest.approx(z * np.sqrt(bound * (1 - bound) / tries), rel=1e-6)
    low, high = wilson(0, 1000)
    assert low == 0
    assert high == pytest.approx(z**2 / (1000 + z**2))
    assert [float(end) for end in wilson(0, 0)] == [0.0, 1.0]


@pytest.mark.parametrize(("hits", "number"), [(0, 5), (5, 5), (3, 10), (120, 128), (1, 4000)])
def test_wilson_is_scipys(hits: int, number: int) -> None:
    interval = binomtest(hits, number).proportion_ci(method="wilson")
    assert wilson(hits, number) == pytest.approx((interval.low, interval.high))


def test_status_of_features() -> None:
    found = status_of(np.array([0, 1, 9, 10, 100, 101]), 1000)
    assert [STATUSES[status] for status in found] == ["never", "rare", "rare", "alive", "alive", "dense"]
