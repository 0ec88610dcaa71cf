"""Probabilities from scores: recovered from known ones, judged by closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from neuronmap.abstraction.probes.calibration import bits, calibrate, calibration_error
from neuronmap.abstraction.probes.logistic import logistic_log_odds


def test_known_log_odds_are_recovered() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 20_000, 1, generator=generator, dtype=torch.float64) * 40
    odds = 0.05 * scores + 0.7
    labels = torch.rand(20_000, 1, generator=generator, dtype=torch.float64) < torch.sigmoid(odds[0])
    found = calibrate(scores, labels)
    assert float(found.slope_LC) == pytest.approx(0.05, rel=0.05)
    assert float(found.offset_LC) == pytest.approx(0.7, abs=0.05)
    assert float(calibration_error(found.log_odds(scores), labels)) < 0.02


def test_separable_scores_stay_finite_and_short_of_certain() -> None:
    scores = torch.tensor([[[-3.0], [-2.0], [2.0], [3.0]]], dtype=torch.float64)
    found = calibrate(scores, torch.tensor([[False], [False], [True], [True]]))
    odds = found.log_odds(scores)
    assert bool(odds.isfinite().all())
    assert 0 < float(odds[0, 3, 0]) < 4
    assert float(found.low_LC) == pytest.approx(float(odds.min()))


def test_bits_are_the_entropy_less_the_log_loss() -> None:
    labels = torch.tensor([[True], [False], [True], [False]])
    sure = torch.tensor([[[30.0], [-30.0], [30.0], [-30.0]]], dtype=torch.float64)
    none = torch.zeros(1, 4, 1, dtype=torch.float64)
    half = torch.full((1, 4, 1), math.log(3), dtype=torch.float64)  # p = 3/4 for all
    assert bits(sure, labels).tolist() == pytest.approx([1.0])
    assert bits(none, labels).tolist() == pytest.approx([0.0])
    loss = -(0.5 * math.log2(0.75) + 0.5 * math.log2(0.25))
    assert bits(half, labels).tolist() == pytest.approx([1 - loss])


def test_calibration_error_of_a_constant_guess() -> None:
    labels = torch.tensor([[True], [True], [True], [False]])
    assert calibration_error(torch.zeros(1, 4, 1, dtype=torch.float64), labels).tolist() == pytest.approx([0.25])


def test_the_dual_logistic_probe_is_at_the_minimum_of_its_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    y = (x[:, 0] + 0.5 * torch.randn(60, generator=generator, dtype=torch.float64)) > 0
    gram = x @ x.T
    odds = logistic_log_odds(gram, torch.arange(60), y[:, None], 0.1)[:, 0]
    w = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    b = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w, b], max_iter=300, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        f = x @ w + b
        loss = (torch.nn.functional.softplus(f) - y.double() * f).sum() + 0.05 * w.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(odds, (x @ w + b).detach(), atol=0.02)
