"""Dual ridge against the primal formula and against refitting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuronmap.abstraction.probes.ridge import RIDGES, fit_ridge, standardize

L, N, T, W = 2, 30, 20, 50


@pytest.fixture
def x_LNW() -> Tensor:  # noqa: N802 (as the tensors are named)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(L, N, W, generator=generator) * torch.linspace(1, 30, W) + 5


@pytest.fixture
def targets_T() -> Tensor:  # noqa: N802
    return (torch.arange(T) % 2).double() * 2 - 1


def primal(x_LNW: Tensor, rows: Tensor, y: Tensor, ridge: Tensor) -> Tensor:
    """Scores [L, N] by (Z'Z + c I)^-1 Z'(y - mean)."""
    scores = []
    for x_NW, lam in zip(x_LNW.double(), ridge, strict=True):
        z = (x_NW - x_NW[rows].mean(0)) / x_NW[rows].std(0, correction=0)
        z_T = z[rows]
        size = z_T.square().sum(1).mean()
        w = torch.linalg.solve(z_T.T @ z_T + lam * size * torch.eye(W), z_T.T @ (y - y.mean()))
        scores.append(z @ w + y.mean())
    return torch.stack(scores)


def test_the_dual_is_the_primal(x_LNW: Tensor, targets_T: Tensor) -> None:
    rows = torch.arange(T)
    fit = fit_ridge(x_LNW, rows, targets_T[:, None], torch.arange(T) // 2)
    expected = primal(x_LNW, rows, targets_T, fit.ridge_L)
    assert torch.allclose(fit.scores(targets_T[:, None])[..., 0], expected, atol=1e-4)
    directions = fit.directions(targets_T[:, None])
    by_direction = (fit.space.z_LNW @ directions.w_LCW.transpose(1, 2) + directions.b_LC[:, None])[..., 0]
    assert torch.allclose(by_direction.double(), expected, atol=1e-3)


def test_other_labels_need_no_other_fit(x_LNW: Tensor, targets_T: Tensor) -> None:
    rows, generator = torch.arange(T), torch.Generator().manual_seed(1)
    fit = fit_ridge(x_LNW, rows, targets_T[:, None], torch.arange(T) // 2)
    others = (torch.rand(T, 3, generator=generator) > 0.5).double() * 2 - 1
    found = fit.scores(others, torch.arange(T, N))
    for column in range(3):
        expected = primal(x_LNW, rows, others[:, column], fit.ridge_L)[:, T:]
        assert torch.allclose(found[..., column], expected, atol=1e-4)


def test_the_ridge_is_the_one_that_predicts_left_out_clusters_best() -> None:
    generator = torch.Generator().manual_seed(2)
    clusters = torch.arange(24) // 3
    y = (torch.arange(24) % 2).double() * 2 - 1
    x = torch.randn(3, 24, 12, generator=generator)
    x[:, :, 0] += torch.tensor([0.1, 1.0, 6.0])[:, None] * y.float()
    rows = torch.arange(24)
    z = standardize(x, rows).z_LNW.double()
    fit = fit_ridge(x, rows, y[:, None], clusters)
    for layer in range(3):
        size = z[layer].square().sum(1).mean()
        errors = []
        for ridge in RIDGES:
            error = 0.0
            for cluster in range(8):
                kept = clusters != cluster
                gram = z[layer][kept].T @ z[layer][kept] + ridge * size * torch.eye(12)
                w = torch.linalg.solve(gram, z[layer][kept].T @ (y - y.mean())[kept])
                error += float(((z[layer][~kept] @ w - (y - y.mean())[~kept]) ** 2).sum())
            errors.append(error)
        assert float(fit.ridge_L[layer]) == RIDGES[min(range(len(RIDGES)), key=errors.__getitem__)]


def test_scores_do_not_depend_on_scale_or_shift_of_dimensions(x_LNW: Tensor, targets_T: Tensor) -> None:
    rows = torch.arange(T)
    other = x_LNW * torch.linspace(100, 2, W) - 300
    found = [
        fit_ridge(x, rows, targets_T[:, None], torch.arange(T) // 2).scores(targets_T[:, None]) for x in (x_LNW, other)
    ]
    assert torch.allclose(found[0], found[1], atol=1e-2)


def test_differences_of_means(x_LNW: Tensor, targets_T: Tensor) -> None:
    rows = torch.arange(T)
    fit = fit_ridge(x_LNW, rows, targets_T[:, None], torch.arange(T) // 2)
    z = fit.space.z_LNW[:, :T]
    delta = z[:, targets_T > 0].mean(1) - z[:, targets_T < 0].mean(1)
    assert torch.allclose(fit.differences(targets_T[:, None])[:, 0], delta, atol=1e-4)
    scores = fit.difference_scores(targets_T[:, None])[..., 0]
    expected = (fit.space.z_LNW @ delta[..., None])[..., 0].double()
    ratio = scores / expected
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-2)


def test_equal_rows_give_equal_scores_and_nothing_breaks() -> None:
    fit = fit_ridge(
        torch.ones(1, 8, 5), torch.arange(8), torch.tensor([[1.0], [-1.0]] * 4).double(), torch.arange(8) // 2
    )
    found = fit.scores(torch.tensor([[1.0], [-1.0]] * 4).double())
    assert bool(found.isfinite().all())
    assert float(found.max() - found.min()) < 1e-9
