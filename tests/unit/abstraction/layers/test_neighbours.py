"""Mutual nearest neighbours against brute force, with ties and with rows of one context."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuronmap.abstraction.layers.neighbours import mutual_neighbours
from neuronmap.errors import InputError


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def brute(x_NW: np.ndarray, k: int) -> list[set[int]]:
    x_NW = x_NW - x_NW.mean(0)
    found = []
    for at, row in enumerate(x_NW):
        cosine = x_NW @ row / np.linalg.norm(x_NW, axis=1) / np.linalg.norm(row)
        cosine[at] = -np.inf
        found.append(set(np.argsort(-cosine)[:k].tolist()))
    return found


def test_against_brute_force_for_two_models() -> None:
    x_LNW, y_MNV = gaussian(2, 90, 5), gaussian(3, 90, 8, seed=1)
    y_MNV[0, :, :5] += 2 * x_LNW[0]
    overlap_LM = mutual_neighbours(x_LNW, y_MNV, k=7)
    for row in range(2):
        for column in range(3):
            sides = zip(brute(x_LNW[row].double().numpy(), 7), brute(y_MNV[column].double().numpy(), 7), strict=True)
            expected = np.mean([len(one & other) / 7 for one, other in sides])
            assert float(overlap_LM[row, column]) == pytest.approx(expected, abs=1e-6)


def test_a_layer_is_its_own_neighbour_however_it_is_turned_scaled_and_moved() -> None:
    x_NW = gaussian(80, 6)
    turned_NW = 3 * x_NW @ torch.linalg.qr(gaussian(6, 6, seed=2))[0] + 10
    overlap_LM = mutual_neighbours([x_NW, turned_NW], k=10)
    torch.testing.assert_close(overlap_LM, torch.ones(2, 2, dtype=torch.float64), atol=1e-3, rtol=0)


def test_unrelated_layers_overlap_by_chance() -> None:
    overlap_LM = mutual_neighbours(gaussian(2, 400, 10), k=10)
    assert float(overlap_LM[0, 1]) == pytest.approx(10 / 399, abs=0.01)


def test_tied_rows_share_the_places_in_any_order() -> None:
    kinds = gaussian(6, 5)[torch.arange(90) % 6]  # 6 different rows, 15 times each, as at the embedding
    layers = [kinds, gaussian(90, 5, seed=3) * 0.3 + kinds]
    overlap_LM = mutual_neighbours(layers, k=4)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(1))
    again_LM = mutual_neighbours([x[order] for x in layers], k=4)
    assert float(overlap_LM[0, 0]) == pytest.approx(1.0)
    assert float(overlap_LM[0, 1]) == pytest.approx(float(again_LM[0, 1]), abs=1e-6)


def test_rows_of_one_context_are_no_neighbours() -> None:
    base = gaussian(30, 4).repeat_interleave(2, 0)
    near, other = base + 0.001 * gaussian(60, 4, seed=1), base + 0.001 * gaussian(60, 4, seed=2)
    far = torch.randn(60, 4, generator=torch.Generator().manual_seed(5)) * 0.001 + gaussian(
        30, 4, seed=9
    ).repeat_interleave(2, 0)
    context_N = torch.arange(60) // 2
    assert float(mutual_neighbours([near, other], k=1)[0, 1]) > 0.9
    assert float(mutual_neighbours([near, far], k=1)[0, 1]) > 0.9  # only the twin is shared
    assert float(mutual_neighbours([near, far], k=1, context_N=context_N)[0, 1]) < 0.3


def test_constant_layers_and_too_few_rows() -> None:
    overlap_LM = mutual_neighbours([gaussian(30, 4), torch.ones(30, 4)], k=3)
    assert overlap_LM.isnan().tolist() == [[False, True], [True, True]]
    with pytest.raises(InputError, match="3 neighbours in other contexts"):
        mutual_neighbours([gaussian(4, 4)], k=3, context_N=torch.tensor([0, 0, 1, 1]))
    with pytest.raises(InputError, match="same tokens"):
        mutual_neighbours([gaussian(20, 4)], [gaussian(21, 4)], k=3)
