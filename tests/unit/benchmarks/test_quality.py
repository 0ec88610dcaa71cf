"""The quality benchmark's own arithmetic: equal L0, thresholds, the peers' inference rules."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from quality_measure import AtCommonL0, PeerSAE, at_common_l0, measure, next_knob


def run(l0: float, ev: float, auc: float | None = None) -> dict[str, float | None]:
    return {"l0": l0, "explained_variance": ev, "explained_variance_median": ev / 2, "auc_5": auc}


def at(target: float, *runs: dict[str, float | None]) -> AtCommonL0:
    found = at_common_l0(runs, target)
    assert found is not None
    return found


def test_interpolation_is_linear_in_the_logarithm_of_l0() -> None:
    found = at(32, run(16, 0.5, 0.8), run(64, 0.7, 0.9), run(200, 0.9, 1.0))
    assert found.how == "interpolated"
    assert found.explained_variance == pytest.approx(0.6)
    assert found.figures["explained_variance_median"] == pytest.approx(0.3)
    assert found.figures["auc_5"] == pytest.approx(0.85)
    assert found.l0 == (16, 64)


def test_a_figure_that_one_of_the_two_runs_lacks_is_not_made_up() -> None:
    assert at(32, run(16, 0.5, None), run(64, 0.7, 0.9)).figures["auc_5"] is None


def test_a_run_at_the_target_is_taken_as_measured() -> None:
    assert at(32, run(16, 0.5), run(32.1, 0.61)).how == "measured"


def test_a_target_that_is_not_bracketed_is_said_so() -> None:
    found = at(32, run(40, 0.5), run(60, 0.6))
    assert (found.how, found.explained_variance) == ("nearest", 0.5)


def test_runs_in_which_nothing_fires_do_not_count() -> None:
    assert at_common_l0([run(0.0, 0.0)], 32) is None
    assert at(32, run(0.0, 0.0), run(60, 0.6)).how == "nearest"


@pytest.mark.parametrize("exponent", [-0.5, -1.0, -2.5, 0.7, 1.0])
@pytest.mark.parametrize("start", [0.001, 0.04, 3.0])
def test_the_search_brackets_the_target_in_a_few_runs(exponent: float, start: float) -> None:
    """L0 = 30 (knob / 0.05)^exponent, over four orders of magnitude of a bad first guess."""
    tried: list[tuple[float, float]] = []
    while (knob := next_knob(tried, 32.0, exponent > 0, start)) is not None:
        tried.append((knob, min(2048.0, 30.0 * (knob / 0.05) ** exponent)))
        assert len(tried) <= 8
    logs = [math.log(l0 / 32.0) for _, l0 in tried]
    near = min(abs(value) for value in logs) <= 0.02
    assert near or (min(logs) < 0 < max(logs))


def peer(rule: str, threshold: float | None = None) -> PeerSAE:
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(40, 12, generator=generator), dim=1)
    threshold_F = None if threshold is None else torch.full((40,), threshold)
    return PeerSAE(W_dec.T.clone(), torch.zeros(40), W_dec, torch.zeros(12), rule, threshold_F, 4, True)


def test_recalibration_gives_the_wanted_l0() -> None:
    rows_ND = torch.randn(3000, 12, generator=torch.Generator().manual_seed(1))
    for stale in (0.0, 5.0):
        sae = peer("jumprelu", stale).recalibrated(rows_ND)
        assert measure(sae, rows_ND)["l0"] == pytest.approx(4.0, abs=1e-3)


def test_the_rules() -> None:
    rows_ND = torch.randn(50, 12, generator=torch.Generator().manual_seed(2))
    pre_NF = rows_ND @ peer("relu").W_enc
    assert torch.equal(peer("relu").encode(rows_ND), pre_NF.relu())
    assert torch.equal(peer("jumprelu", 0.5).encode(rows_ND), torch.where(pre_NF > 0.5, pre_NF, 0.0))
    top_NF = peer("topk").encode(rows_ND)
    assert bool(((top_NF > 0).sum(1) <= 4).all())
    torch.testing.assert_close(top_NF.sum(1), pre_NF.topk(4, dim=1).values.relu().sum(1))
