"""Blocks: planted ones are found, and steady drift or a flat matrix has none."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from neuronmap.abstraction.layers.changepoints import _segmentations, find_blocks
from neuronmap.errors import InputError


def planted(*sizes: int, within: float = 0.95, across: float = 0.5) -> np.ndarray:
    block = np.repeat(np.arange(len(sizes)), sizes)
    matrix = np.where(block[:, None] == block, within, across)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def noisy(matrix: np.ndarray, scale: float, count: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, scale, (count, *matrix.shape))
    return matrix + (noise + noise.transpose(0, 2, 1)) / 2


@pytest.mark.parametrize("sizes", [(6, 6), (4, 4, 4), (1, 11), (3, 9, 5), (2, 12, 10, 7), (1, 20, 9, 1)])
def test_planted_blocks_are_found(sizes: tuple[int, ...]) -> None:
    matrix = planted(*sizes)
    found = find_blocks(matrix, noisy(matrix, 0.02, 50))
    assert found.starts == [0, *np.cumsum(sizes)[:-1].tolist()]
    assert min(found.support) > 0.9


def test_planted_blocks_on_top_of_drift() -> None:
    place = np.concatenate([np.linspace(0, 0.3, 10), np.linspace(1.0, 1.3, 12), np.linspace(2.0, 2.3, 9)])
    matrix = np.exp(-np.abs(place[:, None] - place))
    assert find_blocks(matrix, noisy(matrix, 0.01, 50)).starts == [0, 10, 22]


@pytest.mark.parametrize("reach", [1.0, 5.0, 30.0, 1e9])
@pytest.mark.parametrize("layers", [2, 7, 31])
def test_steady_drift_has_none(reach: float, layers: int) -> None:
    at = np.arange(layers)
    matrix = np.exp(-np.abs(at[:, None] - at) / reach)
    assert find_blocks(matrix) == ([0], [1.0])
    assert find_blocks(matrix, noisy(matrix, 0.02, 50)).starts == [0]


def test_noise_has_none_in_most_draws() -> None:
    at = np.arange(25)
    drift = np.exp(-np.abs(at[:, None] - at) / 20)
    found = [find_blocks(sample, noisy(sample, 0.03, 60, seed=9)).starts for sample in noisy(drift, 0.03, 40, seed=1)]
    assert sum(starts == [0] for starts in found) >= 36


def test_one_layer_is_one_block() -> None:
    assert find_blocks(np.ones((1, 1))) == ([0], [1.0])


def test_dynamic_programming_finds_the_best_segmentation() -> None:
    excess = noisy(np.zeros((7, 7)), 1.0, 1)[0]
    cost_RKE, _ = _segmentations(excess[None])
    for boundaries in range(7):
        best = np.inf
        for inner in combinations(range(1, 7), boundaries):
            edges = [0, *inner, 7]
            worth = sum(excess[a:b, a:b].sum() / (b - a) for a, b in pairwise(edges))
            best = min(best, -worth)
        assert cost_RKE[0, boundaries, 7] == pytest.approx(best)


def test_support_falls_where_resamples_disagree() -> None:
    matrix = planted(8, 8, across=0.8)
    moved = noisy(planted(12, 4, across=0.5), 0.001, 3, seed=3)
    found = find_blocks(matrix, np.concatenate([noisy(matrix, 0.001, 97), moved]))
    assert found == ([0, 8], [1.0, 0.97])


def test_what_is_no_similarity_matrix() -> None:
    with pytest.raises(InputError, match="square"):
        find_blocks(np.ones((2, 3)))
    with pytest.raises(InputError, match="finite"):
        find_blocks(np.full((3, 3), np.nan))
    with pytest.raises(InputError, match="symmetric"):
        find_blocks(np.triu(np.ones((3, 3))))
