"""Errors by resampling: right size against theory, reproducible, null with a reason where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuronmap.errors import ConfigError
from neuronmap.evaluation.bootstrap import Resampler, Totals, ratio

GENERATOR = torch.Generator().manual_seed(0)


def mean(totals: Totals) -> torch.Tensor:
    return ratio(totals["x"], totals["n"])


def test_standard_error_of_a_mean_is_that_of_theory() -> None:
    values_C = torch.randn(400, generator=GENERATOR, dtype=torch.float64) * 3 + 10
    resampler = Resampler.draw(400, 4000, seed=1)
    totals = resampler.totals({"x": values_C, "n": torch.ones(400, dtype=torch.float64)})
    estimate = resampler.estimate(totals, mean, 400, undefined="")
    theory = float(values_C.std() / 20)
    assert estimate.value == pytest.approx(float(values_C.mean()))
    assert estimate.error == pytest.approx(theory, rel=0.05)
    assert estimate.low == pytest.approx(estimate.value - 1.96 * theory, abs=0.2 * theory)
    assert estimate.high == pytest.approx(estimate.value + 1.96 * theory, abs=0.2 * theory)


def test_dependence_inside_a_context_widens_the_error() -> None:
    """Tokens of a context that are all alike: the error is that of 50 contexts, not of 5,000 tokens."""
    context_C = torch.randn(50, generator=GENERATOR, dtype=torch.float64)
    resampler = Resampler.draw(50, 4000, seed=0)
    totals = resampler.totals({"x": context_C * 100, "n": torch.full((50,), 100.0, dtype=torch.float64)})
    estimate = resampler.estimate(totals, mean, 5000, undefined="")
    assert estimate.error == pytest.approx(float(context_C.std() / 50**0.5), rel=0.1)


def test_a_ratio_is_one_of_totals_in_every_resample() -> None:
    top_C, bottom_C = torch.rand(30, dtype=torch.float64), torch.rand(30, dtype=torch.float64) + 0.5
    resampler = Resampler.draw(30, 500, seed=3)
    _, drawn = resampler.totals({"x": top_C, "n": bottom_C})
    naive = []
    for weights_C in resampler.weights_RC:
        chosen = np.repeat(np.arange(30), weights_C.long().numpy())
        naive.append(float(top_C[chosen].sum() / bottom_C[chosen].sum()))
    torch.testing.assert_close(mean(drawn), torch.tensor(naive, dtype=torch.float64))


def test_the_seed_decides_everything() -> None:
    one, same, other = (Resampler.draw(20, 100, seed).weights_RC for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert bool((one.sum(1) == 20).all())


def test_one_unit_has_no_error_and_says_so() -> None:
    resampler = Resampler.draw(1, 1000, seed=0)
    totals = resampler.totals({"x": torch.ones(1, dtype=torch.float64), "n": torch.ones(1, dtype=torch.float64)})
    estimate = resampler.estimate(totals, mean, 1, undefined="")
    assert estimate.value == 1.0
    assert estimate.error is None
    assert "only 1 unit" in (estimate.reason or "")


def test_no_resamples_give_no_error() -> None:
    resampler = Resampler.draw(9, 0, seed=0)
    ones_C = torch.ones(9, dtype=torch.float64)
    estimate = resampler.estimate(resampler.totals({"x": ones_C, "n": ones_C}), mean, 9, undefined="")
    assert (estimate.value, estimate.error) == (1.0, None)


def test_an_undefined_figure_is_null_with_its_reason() -> None:
    resampler = Resampler.draw(5, 100, seed=0)
    zeros_C = torch.zeros(5, dtype=torch.float64)
    estimate = resampler.estimate(resampler.totals({"x": zeros_C, "n": zeros_C}), mean, 0, undefined="no tokens")
    assert (estimate.value, estimate.error, estimate.reason) == (None, None, "no tokens")


def test_a_figure_that_most_resamples_leave_undefined_has_no_error() -> None:
    """Only one of ten contexts has anything in the denominator: a third of the resamples miss it."""
    n_C = torch.zeros(10, dtype=torch.float64)
    n_C[0] = 4.0
    resampler = Resampler.draw(10, 1000, seed=0)
    estimate = resampler.estimate(resampler.totals({"x": n_C * 2, "n": n_C}), mean, 4, undefined="nothing there")
    assert estimate.value == 2.0
    assert estimate.error is None
    assert "of 1000 resamples" in (estimate.reason or "")


def test_a_negative_number_of_resamples_is_refused() -> None:
    with pytest.raises(ConfigError, match="bootstrap = -1"):
        Resampler.draw(5, -1, seed=0)
