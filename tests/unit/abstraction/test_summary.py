"""Summaries of curves whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuronmap.abstraction.summary import CurveEvidence, LevelEvidence, rising, summarize

LAYERS = list(range(9))


def evidence(score: list[float], error: float = 0.01, null95: float | None = 0.6, seed: int = 0) -> CurveEvidence:
    """A curve with independent errors."""
    s = np.asarray(score)
    samples = np.clip(s + error * np.random.default_rng(seed).standard_normal((400, len(s))), 0, 1)
    return CurveEvidence(s, samples, s - 3 * error, s + 3 * error, null95)


def found(score: list[float], cross: list[float] | None = None, levels: Any = None, **changes: Any) -> Any:
    """The summary of a curve; of two levels that are like the mean, where none are given."""
    layers = list(range(len(score)))
    crossed = None if cross is None else evidence(cross, **changes)
    if levels is None and cross is not None:
        levels = [np.asarray(cross)] * 2
    parts = [LevelEvidence(f"level{at}", level - 0.03, level < 0.4) for at, level in enumerate(levels or [])]
    return summarize(
        layers,
        len(layers) - 1,
        evidence(score, **changes),
        crossed,
        parts,
        [0.5] * len(layers),
        crossed=None if cross is None else "voice",
        nuisances=("voice", "word"),
    )


STEP = [0.5, 0.5, 0.5, 0.7, 0.9, 1.0, 1.0, 1.0, 1.0]


def test_a_rise_emerges_where_it_is_sure_and_a_quarter_up() -> None:
    one = found(STEP, STEP)
    assert (one.verdict, one.score, one.present_at_embedding) == ("abstract", "cross", False)
    assert one.emergence == 3
    assert one.emergence_interval == [3, 3]
    assert one.half_depth.value == pytest.approx(3.25, abs=0.1)
    assert one.half_depth.low < 3.25 < one.half_depth.high
    assert one.depth90.value == pytest.approx(4.5, abs=0.15)
    assert one.half_depth_relative == pytest.approx(one.half_depth.value / 8)
    assert one.peak[-1] == 8
    assert one.peak[0] >= 5
    assert one.saturation == 5
    assert one.decay is None
    assert one.expected_layer == pytest.approx((3 * 0.2 + 4 * 0.2 + 5 * 0.1) / 0.5, abs=0.1)
    assert "voice, word" in one.statement


def test_what_the_embedding_has_does_not_emerge() -> None:
    one = found([0.99] * 9, [0.98] * 9)
    assert one.present_at_embedding
    assert one.emergence is None
    assert one.half_depth.value is None
    assert one.half_depth.reason == "present at the embedding"
    assert one.verdict == "abstract"


def test_without_a_crossing_the_claim_is_within_only() -> None:
    one = found(STEP)
    assert (one.verdict, one.score) == ("within-only", "within")
    assert one.half_depth.value is not None
    assert "no condition to cross" in one.statement


def test_found_within_but_not_across_is_bound_to_the_condition() -> None:
    one = found(STEP, [0.5] * 9)
    assert one.verdict == "condition-bound"
    assert one.emergence is None
    assert one.peak == []
    assert one.best is None


def test_one_failing_level_is_enough_to_deny_abstraction() -> None:
    one = found(STEP, STEP, [np.asarray(STEP), np.full(9, 0.5)])
    assert one.verdict == "condition-bound"
    assert "on average, but not on every level (level1)" in one.statement
    assert one.half_depth.value is not None  # of the average


def test_a_level_below_chance_is_inverted_and_named() -> None:
    low = np.asarray([0.5, 0.5, 0.1, 0.0, 0.0, 0.0, 0.1, 0.5, 0.5])
    one = found(STEP, [0.5] * 9, [np.asarray(STEP), low])
    assert one.verdict == "inverted"
    assert "level1 at layers 2 to 6" in one.statement


def test_one_layer_above_the_null_is_not_enough() -> None:
    spike = [0.5, 0.5, 0.5, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert found(spike, spike).verdict == "not-detected"


def test_nothing_is_not_detected() -> None:
    one = found([0.52, 0.5, 0.48, 0.5, 0.51, 0.5, 0.5, 0.5, 0.5], [0.5] * 9)
    assert one.verdict == "not-detected"
    assert one.emergence is None
    assert one.half_depth.reason


def test_a_fall_decays_after_the_peak_and_a_dip_within_it_does_not() -> None:
    fall = [0.5, 0.8, 1.0, 1.0, 1.0, 1.0, 0.85, 0.8, 0.8]
    assert found(fall, fall).decay == 6
    dip = [0.5, 1.0, 1.0, 0.5, 0.5, 1.0, 1.0, 0.6, 0.6]
    one = found(dip, dip)
    assert one.decay == 7
    assert one.saturation == 5


def test_the_rising_fit_is_the_isotonic_regression() -> None:
    from sklearn.isotonic import IsotonicRegression

    curves = np.random.default_rng(0).random((20, 7))
    for curve in curves:
        top = int(np.argmax(curve))
        expected = IsotonicRegression().fit_transform(np.arange(top + 1), curve[: top + 1])
        fitted = rising(curve[None], top)[0]
        assert fitted[: top + 1] == pytest.approx(expected)
        assert fitted[top:] == pytest.approx(np.full(7 - top, expected[-1]))
