"""The density histogram: every feature in one bin, "never" in its own, and a picture that a terminal can show."""

from __future__ import annotations

import numpy as np
import pytest

from neuronmap.evaluation import dead_density_bound, density_histogram, density_text


def test_every_feature_is_counted_once() -> None:
    fired_F = np.array([0, 0, 1, 9, 10, 11, 99, 500, 1000])
    histogram = density_histogram(fired_F, 1000)
    assert histogram.never == 2
    assert sum(histogram.counts) == 7
    assert histogram.tokens == 1000
    assert histogram.edges[-1] == 0.0


def test_bins_hold_their_upper_edge() -> None:
    tokens = 10_000
    for fired, decade in ((10, -3.0), (100, -2.0), (1000, -1.0), (10_000, 0.0)):
        histogram = density_histogram(np.array([fired]), tokens)
        (place,) = np.flatnonzero(histogram.counts)
        assert histogram.edges[place + 1] == decade
        above = density_histogram(np.array([min(fired + 1, tokens)]), tokens)
        (place_above,) = np.flatnonzero(above.counts)
        assert place_above == (place if fired == tokens else place + 1)


def test_a_single_firing_has_a_bin_at_any_number_of_tokens() -> None:
    for tokens in (1, 2, 7, 1000, 12_345):
        assert sum(density_histogram(np.array([1]), tokens).counts) == 1


def test_the_bound_is_three_over_n() -> None:
    assert dead_density_bound(3000) == pytest.approx(1e-3)
    assert dead_density_bound(1) == 1.0


def test_the_picture_has_a_line_a_bin_and_bars_in_proportion() -> None:
    histogram = density_histogram(np.array([0] * 40 + [10] * 20 + [1000] * 1), 1000)
    lines = density_text(histogram, width=40).splitlines()
    assert len(lines) == len(histogram.counts) + 1
    assert "never in 1,000" in lines[0]
    assert lines[0].count("█") == 40
    assert max(line.count("█") for line in lines[1:]) == 20
    assert lines[-1].count("█") == 1
    assert lines[0].split()[3] == "40"
    assert "65.6%" in lines[0]


def test_a_rare_bin_is_never_invisible() -> None:
    lines = density_text(density_histogram(np.array([0] * 100_000 + [5]), 1000), width=10).splitlines()
    assert any(line.endswith("▏") for line in lines)


def test_nothing_but_dead_features_can_be_shown() -> None:
    assert density_text(density_histogram(np.zeros(5, int), 100)).splitlines()[0].endswith("█")
