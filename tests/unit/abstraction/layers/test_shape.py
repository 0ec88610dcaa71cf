"""Procrustes, predictivity and overlap of concept subspaces against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from neuronmap.abstraction.layers import shape
from neuronmap.abstraction.layers.shape import concept_overlap, predictivity, procrustes
from neuronmap.errors import InputError


def gaussian(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def rotation(width: int, seed: int = 1) -> Tensor:
    return torch.linalg.qr(gaussian(width, width, seed=seed))[0]


def test_procrustes_of_a_rotated_scaled_moved_layer_is_one() -> None:
    x_NW = gaussian(100, 8) * torch.linspace(0.5, 2, 8)
    found_LM = procrustes([x_NW, 4 * x_NW @ rotation(8) - 3])
    torch.testing.assert_close(found_LM, torch.ones(2, 2, dtype=torch.float64), atol=1e-5, rtol=0)


def test_procrustes_is_one_minus_the_residual_of_the_best_rotation() -> None:
    x_NW, y_NW = gaussian(100, 6), gaussian(100, 6, seed=1)
    y_NW = y_NW + x_NW @ rotation(6)
    x_NW, y_NW = (z - z.mean(0) for z in (x_NW, y_NW))
    x_NW, y_NW = (z / z.norm() for z in (x_NW, y_NW))
    u, _, vt = torch.linalg.svd(x_NW.T @ y_NW)
    residual = float((x_NW @ (u @ vt) - y_NW).square().sum()) / 2
    assert float(procrustes([x_NW], [y_NW])) == pytest.approx(1 - residual, abs=1e-5)


def test_procrustes_keeps_the_leading_components_whichever_side_is_smaller() -> None:
    x_NW = gaussian(60, 90) * torch.logspace(0, -2, 90)
    cut_NW = torch.linalg.svd(x_NW - x_NW.mean(0), full_matrices=False)
    top_NW = cut_NW.U[:, :10] * cut_NW.S[:10]
    assert float(procrustes([x_NW], [top_NW], components=10)) == pytest.approx(1.0, abs=1e-4)
    tall_NW = torch.cat([x_NW, -x_NW])
    assert float(procrustes([tall_NW], [tall_NW @ rotation(90)], components=10)) == pytest.approx(1.0, abs=1e-3)


def test_predictivity_of_a_linear_map_is_one() -> None:
    x_NW = gaussian(300, 10)
    found_LM = predictivity([x_NW], [x_NW @ gaussian(10, 14, seed=1) + 5])
    assert float(found_LM) == pytest.approx(1.0, abs=1e-3)


def test_predictivity_shows_which_side_lost_information() -> None:
    x_NW = gaussian(400, 12)
    less_NW = x_NW[:, :3] @ gaussian(3, 12, seed=1)
    found_LM = predictivity(torch.stack([x_NW, less_NW]))
    assert float(found_LM[0, 1]) > 0.99
    assert float(found_LM[1, 0]) == pytest.approx(3 / 12, abs=0.05)


def test_predictivity_of_unrelated_layers_is_not_above_zero() -> None:
    found_LM = predictivity(gaussian(2, 200, 30))
    assert abs(float(found_LM[0, 1])) < 0.05


def test_predictivity_is_that_of_ridge_with_the_penalty_of_least_left_out_error() -> None:
    x_NW = gaussian(90, 40)
    y_NV = x_NW @ gaussian(40, 6, seed=1) + 5 * gaussian(90, 6, seed=2)
    train, test = (side.numpy() for side in shape._split(torch.arange(90), 1 / 3, 0))

    def scaled(z: Tensor) -> np.ndarray:
        z = z.double()
        return ((z - z[train].mean(0)) / z[train].std(0, correction=0)).numpy()

    x, y = scaled(x_NW), scaled(y_NV)
    best = (np.inf, 0.0)
    for penalty in shape.PENALTIES:
        error = 0.0
        for left in range(len(train)):
            kept = np.delete(train, left)
            model = Ridge(alpha=penalty * x.shape[1]).fit(x[kept], y[kept])
            error += float(((model.predict(x[train[left : left + 1]]) - y[train[left]]) ** 2).sum())
        best = min(best, (error, penalty))
    predicted = Ridge(alpha=best[1] * x.shape[1]).fit(x[train], y[train]).predict(x[test])
    expected = 1 - ((predicted - y[test]) ** 2).sum() / (y[test] ** 2).sum()
    assert float(predictivity([x_NW], [y_NV])) == pytest.approx(expected, abs=1e-4)


def test_contexts_are_not_split() -> None:
    context_N = torch.arange(100) // 2
    train, test = shape._split(context_N, 1 / 3, 4)
    assert not set(context_N[train].tolist()) & set(context_N[test].tolist())
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(100))


def test_constant_layers_are_undefined() -> None:
    layers = [gaussian(60, 5), torch.full((60, 5), 2.5)]
    for measure in (procrustes, predictivity):
        assert measure(layers).isnan().tolist() == [[False, True], [True, True]]


def test_too_few_rows_to_predict() -> None:
    with pytest.raises(InputError, match="16 rows"):
        predictivity(gaussian(1, 30, 4))


def test_overlap_of_spans_is_the_mean_squared_cosine_of_their_angles() -> None:
    e = torch.eye(6)
    angle = 0.3
    tilted = torch.stack([2 * e[0], torch.cos(torch.tensor(angle)) * e[1] + torch.sin(torch.tensor(angle)) * e[4]])
    found_LM = concept_overlap(torch.stack([e[:2], tilted, e[2:4], torch.stack([e[0], e[0]])]))
    expected = (1 + np.cos(angle) ** 2) / 2
    assert found_LM[0].tolist() == pytest.approx([1.0, expected, 0.0, 1.0], abs=1e-6)  # the last span has one dimension


def test_overlap_of_random_spans_and_of_missing_directions() -> None:
    directions_LCW = gaussian(20, 3, 30)
    found_LM = concept_overlap(directions_LCW)
    assert float(found_LM[~torch.eye(20, dtype=torch.bool)].mean()) == pytest.approx(3 / 30, abs=0.02)
    directions_LCW[4, 1] = torch.nan
    assert concept_overlap(directions_LCW)[4].isnan().all()
    with pytest.raises(InputError, match="width"):
        concept_overlap(directions_LCW, gaussian(2, 3, 31))
