"""Debiased CKA: invariances, known populations, agreement of its two formulas, batches and leave-one-out values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuronmap.abstraction.layers.cka import DebiasedCKA, PairwiseCKA, cka, grams, hsic1
from neuronmap.errors import InputError
from neuronmap.statistics.resampling import draw_clusters


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(width: int, seed: int = 1) -> Tensor:
    return torch.linalg.qr(gaussian(width, width, seed=seed))[0]


def pairwise(x_LNW: Tensor, y_MNV: Tensor | None = None, batch: int | None = None) -> PairwiseCKA:
    pairs = DebiasedCKA()
    rows = x_LNW.shape[1]
    for start in range(0, rows, batch or rows):
        part = slice(start, start + (batch or rows))
        pairs.add(x_LNW[:, part], None if y_MNV is None else y_MNV[:, part])
    return pairs.result()


def by_grams(x_NW: Tensor, y_NV: Tensor) -> float:
    """HSIC1 as Song et al. write it."""
    n = len(x_NW)
    k, q = ((z @ z.T).fill_diagonal_(0) for z in (x_NW, y_NV))
    one = torch.ones(n, dtype=k.dtype)
    total = (
        (k @ q).trace() + (one @ k @ one) * (one @ q @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ q @ one)
    )
    return float(total / (n * (n - 3)))


def biased(x_NW: Tensor, y_NV: Tensor) -> float:
    x_NW, y_NV = x_NW - x_NW.mean(0), y_NV - y_NV.mean(0)
    return float((x_NW.T @ y_NV).norm() ** 2 / ((x_NW.T @ x_NW).norm() * (y_NV.T @ y_NV).norm()))


def test_rotation_scale_and_translation_change_nothing() -> None:
    x_NW = gaussian(100, 12) * torch.linspace(0.1, 3, 12)
    moved_NW = 7.5 * x_NW @ rotation(12) + gaussian(12, seed=5)
    assert cka(x_NW, moved_NW) == pytest.approx(1.0, abs=1e-12)
    value_LM = pairwise(torch.stack([x_NW, moved_NW])).value_LM
    torch.testing.assert_close(value_LM, torch.ones(2, 2, dtype=torch.float64), atol=1e-5, rtol=0)


def test_an_arbitrary_linear_map_changes_it() -> None:
    x_NW = gaussian(200, 12)
    found = cka(x_NW, x_NW @ torch.diag(torch.logspace(-2, 1, 12, dtype=torch.float64)))
    assert found is not None
    assert found < 0.6


def test_independent_gaussians_of_many_dimensions() -> None:
    x_NW, y_NV = gaussian(500, 576), gaussian(500, 576, seed=3)
    assert biased(x_NW, y_NV) == pytest.approx(0.533, abs=0.01)
    assert cka(x_NW, y_NV) == pytest.approx(0.0, abs=0.02)


def test_a_population_of_one_half_whole_and_in_batches() -> None:
    # y shares half of its variance with x in every dimension: |cov|^2 / (|cov x| |cov y|) = rho^2 = 0.5
    values = {None: [], 64: []}
    for seed in range(6):
        x_NW, noise_NW = gaussian(768, 40, seed=seed), gaussian(768, 40, seed=100 + seed)
        y_NV = (0.5**0.5 * x_NW + 0.5**0.5 * noise_NW) @ rotation(40, seed)
        for batch, found in values.items():
            found.append(float(pairwise(x_NW[None], y_NV[None], batch).value_LM))
    for found in values.values():
        assert sum(found) / len(found) == pytest.approx(0.5, abs=0.01)


def test_the_formulas_agree() -> None:
    x_NW, y_NV = gaussian(60, 7) + 2, gaussian(60, 9, seed=4)
    y_NV[:, :7] += x_NW
    assert hsic1(x_NW, y_NV) == pytest.approx(by_grams(x_NW, y_NV), rel=1e-9)
    found = pairwise(x_NW[None], y_NV[None])
    assert float(found.value_LM) == pytest.approx(cka(x_NW, y_NV), abs=1e-6)
    assert float(found.own_L) == pytest.approx(hsic1(x_NW, x_NW), rel=1e-5)


def test_the_order_of_rows_does_not_matter() -> None:
    x_LNW = gaussian(3, 80, 6)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(pairwise(x_LNW).value_LM, pairwise(x_LNW[:, order]).value_LM, atol=1e-6, rtol=0)


def test_widths_may_differ_and_each_pair_is_that_of_the_two_matrices() -> None:
    x_LNW, y_MNV = gaussian(2, 70, 6), gaussian(3, 70, 11, seed=8)
    y_MNV[1, :, :6] += x_LNW[1]
    value_LM = pairwise(x_LNW, y_MNV).value_LM
    assert value_LM.shape == (2, 3)
    for row in range(2):
        for column in range(3):
            assert float(value_LM[row, column]) == pytest.approx(cka(x_LNW[row], y_MNV[column]), abs=1e-5)


@pytest.mark.parametrize("batch", [None, 20])
def test_jackknife_values_are_those_of_leaving_rows_out(batch: int | None) -> None:
    x_LNW, y_MNV = gaussian(2, 40, 5), gaussian(2, 40, 4, seed=9)
    y_MNV[:, :, 0] += x_LNW[:, :, 0]
    found = pairwise(x_LNW, y_MNV, batch)
    for left in (0, 13, 39):
        pairs = DebiasedCKA()
        for start in range(0, 40, batch or 40):
            kept = [row for row in range(start, start + (batch or 40)) if row != left]
            pairs.add(x_LNW[:, kept], y_MNV[:, kept])
        expected_LM = 39 * (found.value_LM - pairs.result().value_LM)
        torch.testing.assert_close(found.jackknife_NLM[left].double(), expected_LM, atol=1e-4, rtol=1e-3)


def test_the_standard_error_is_that_of_new_samples() -> None:
    values, errors = [], []
    weights_RC = draw_clusters(["all"] * 150, 300, 0).weights_RG
    for seed in range(40):
        x_NW = gaussian(150, 8, seed=seed)
        y_NV = x_NW + gaussian(150, 8, seed=1000 + seed)
        found = pairwise(x_NW[None], y_NV[None])
        values.append(float(found.value_LM))
        errors.append(float(found.resampled(weights_RC, torch.arange(150)).std(0)))
    assert sum(errors) / 40 == pytest.approx(float(torch.tensor(values).std()), rel=0.35)


def test_a_resample_of_every_row_once_is_the_estimate_and_contexts_go_together() -> None:
    found = pairwise(gaussian(2, 20, 4))
    context_N = torch.arange(20) // 2
    torch.testing.assert_close(
        found.resampled(torch.ones(1, 10, dtype=torch.float64), context_N)[0], found.value_LM, atol=1e-12, rtol=0
    )
    weights_1C = torch.ones(1, 10, dtype=torch.float64)
    weights_1C[0, 3], weights_1C[0, 4] = 2, 0
    moved = found.jackknife_NLM[6:8].sum(0) - found.jackknife_NLM[8:10].sum(0)
    torch.testing.assert_close(
        found.resampled(weights_1C, context_N)[0], found.value_LM + moved.double() / 20, atol=1e-9, rtol=0
    )


def test_a_constant_layer_is_undefined() -> None:
    x_LNW = gaussian(2, 30, 4)
    x_LNW[1] = 3.0
    value_LM = pairwise(x_LNW).value_LM
    assert value_LM.isnan().tolist() == [[False, True], [True, True]]
    assert cka(x_LNW[0], x_LNW[1]) is None


def test_grams_have_no_diagonal_and_centred_rows() -> None:
    k_Lnn = grams(gaussian(1, 10, 3) + 100)
    assert k_Lnn.diagonal(dim1=1, dim2=2).abs().max() == 0
    assert k_Lnn.abs().max() < 50


def test_too_few_rows_different_rows_and_nothing() -> None:
    with pytest.raises(InputError, match="at least 5"):
        pairwise(gaussian(1, 4, 3))
    with pytest.raises(InputError, match="same tokens"):
        pairwise(gaussian(1, 10, 3), gaussian(1, 9, 3))
    with pytest.raises(InputError, match="at least one batch"):
        DebiasedCKA().result()
