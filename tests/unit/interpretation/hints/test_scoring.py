"""Intervals against closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest

from neuronmap.interpretation.hints.scoring import effective_number, precision_and_f1, score_rates


def test_the_figures_are_their_definitions() -> None:
    precision, f1 = precision_and_f1(0.5, 0.1, 100, 900)  # 50 true calls, 90 false, 50 missed
    assert float(precision) == pytest.approx(50 / 140)
    assert float(f1) == pytest.approx(2 * 50 / (2 * 50 + 90 + 50))


def test_undefined_figures_are_nan_and_only_those() -> None:
    def scores(found: float, positives: float, negatives: float) -> tuple[float, ...]:
        one = score_rates(*(np.array([value]) for value in (found, positives, 0.0, negatives, 10.0, 90.0)))
        return float(one.precision[0]), float(one.recall[0]), float(one.f1[0])

    assert np.isnan(scores(0.0, 0.0, 50.0)).all()  # no held-out firings
    assert np.isnan(scores(1.0, 5.0, 0.0)).tolist() == [True, False, True]  # no silent rows
    assert np.isnan(scores(0.0, 5.0, 50.0)).tolist() == [True, False, False]  # the rule is never called
    assert scores(0.0, 5.0, 50.0)[2] == 0.0


def test_one_row_a_unit_is_worth_its_number() -> None:
    hits = np.array([30.0])
    number = effective_number(hits, np.array([100.0]), hits, hits, np.array([100.0]), np.array([100.0]))
    assert number == pytest.approx(99.0)  # deff 100 / 99: the n - 1 of a variance


def test_units_that_agree_within_count_as_one_row_each() -> None:
    """20 documents of 10 rows, all rows of a document alike: 200 rows know as much as about 20."""
    number = effective_number(
        np.array([80.0]), np.array([200.0]), np.array([800.0]), np.array([800.0]), np.array([2000.0]), np.array([20.0])
    )
    assert number == pytest.approx(19.0)


def test_rows_of_one_unit_count_as_one() -> None:
    ten = np.array([10.0])
    assert effective_number(ten, ten, ten**2, ten**2, ten**2, np.array([1.0])) == 1.0


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    draws, firings, silent = 4000, 2000.0, 98000.0
    recall, rate = 0.7, 0.01
    found, false = rng.binomial(128, recall, draws) / 128, rng.binomial(5000, rate, draws) / 5000
    full = np.full(draws, 1.0)
    scores = score_rates(found, 128 * full, false, 5000 * full, firings * full, silent * full)
    precision, f1 = (float(figure) for figure in precision_and_f1(recall, rate, firings, silent))
    for truth, low, high in (
        (precision, scores.precision_low, scores.precision_high),
        (f1, scores.f1_low, scores.f1_high),
    ):
        assert 0.935 <= ((low <= truth) & (truth <= high)).mean() <= 0.97
