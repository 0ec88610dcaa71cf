"""Similarities by blocks equal a plain dense computation, and their nulls keep what they say they keep."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

from neuronmap.errors import InputError
from neuronmap.features.comparing.similarity import ABSENT, DecoderCosine, FiringSimilarity

MEASURES = ("correlation", "cosine", "jaccard")


def codes(seed: int, places: int, features: int, density: float = 0.1) -> scipy.sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    dense = rng.exponential(size=(places, features)) * (rng.random((places, features)) < density)
    return scipy.sparse.csr_matrix(dense.astype(np.float32))


def dense_similarity(a: np.ndarray, b: np.ndarray, w: np.ndarray, measure: str) -> np.ndarray:
    """By definition, pair by pair."""
    result = np.empty((a.shape[1], b.shape[1]))
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            x, y = a[:, i].astype(np.float64), b[:, j].astype(np.float64)
            if measure == "jaccard":
                result[i, j] = w[(x > 0) & (y > 0)].sum() / w[(x > 0) | (y > 0)].sum()
                continue
            if measure == "correlation":
                x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
            result[i, j] = (w * x * y).sum() / np.sqrt((w * x * x).sum() * (w * y * y).sum())
    return result


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
def test_firing_equals_the_definition(measure: str, weighted: bool) -> None:
    a, b = codes(0, 400, 9), codes(1, 400, 13)
    w = np.random.default_rng(2).random(400) + 0.1 if weighted else None
    firing = FiringSimilarity(a, b, w, measure=measure, least_firings=1)
    expected = dense_similarity(a.toarray(), b.toarray(), np.ones(400) if w is None else w, measure)
    block = firing.block(np.arange(9)).numpy()
    np.testing.assert_allclose(block, expected, atol=1e-6)
    np.testing.assert_allclose(firing.swapped().block(np.array([3, 5])).numpy(), expected.T[[3, 5]], atol=1e-6)
    a_n, b_n = np.array([0, 8, 8]), np.array([12, 1, 0])
    np.testing.assert_allclose(firing.pairs(a_n, b_n), expected[a_n, b_n], atol=1e-6)


def test_features_that_fire_too_rarely_are_not_compared() -> None:
    a, b = codes(0, 300, 5).tolil(), codes(1, 300, 6).tolil()
    a[:, 2] = 0
    b[:, 4] = 0
    a[7, 2] = b[7, 4] = 1.0  # one firing each, at the same place: they would agree perfectly
    firing = FiringSimilarity(a.tocsr(), b.tocsr(), least_firings=2)
    assert firing.usable_A.tolist() == [True, True, False, True, True]
    assert (firing.block(np.array([0]))[:, 4] == ABSENT).all()
    assert np.isnan(firing.pairs(np.array([2, 0]), np.array([4, 4]))).all()
    assert FiringSimilarity(a.tocsr(), b.tocsr(), least_firings=1).pairs(np.array([2]), np.array([4]))[
        0
    ] == pytest.approx(1)


def test_a_feature_that_always_fires_alike_has_no_correlation() -> None:
    a, b = codes(0, 300, 3).tolil(), codes(1, 300, 3)
    a[:, 1] = 0.3
    assert FiringSimilarity(a.tocsr(), b).usable_A.tolist() == [True, False, True]


@pytest.mark.parametrize("weighted", [False, True])
def test_coverage_equals_the_definition(weighted: bool) -> None:
    a, b = codes(0, 400, 9), codes(1, 400, 13, 0.3)
    w = np.random.default_rng(2).random(400) if weighted else np.ones(400)
    firing = FiringSimilarity(a, b, w if weighted else None)
    own, any_of = a.toarray()[:, 4] > 0, (b.toarray()[:, [2, 7, 11]] > 0).any(axis=1)
    common = w[own & any_of].sum()
    assert firing.coverage(4, [2, 7, 11]) == pytest.approx((common / w[own].sum(), common / w[any_of].sum()))
    own_b, any_of_a = b.toarray()[:, 4] > 0, (a.toarray()[:, [2, 7]] > 0).any(axis=1)
    expected = w[own_b & any_of_a].sum() / w[own_b].sum()
    assert firing.coverage(4, [2, 7], of_b=True)[0] == pytest.approx(expected)


def test_chance_for_firing_keeps_rates_and_runs_and_loses_the_timing() -> None:
    a = codes(0, 1000, 6)
    null = FiringSimilarity(a, a).by_chance(np.random.default_rng(0))
    before, after = a.toarray(), null.b_PB.toarray()
    shift = next(s for s in range(1000) if np.array_equal(np.roll(before, s, axis=0), after))
    assert 125 <= shift <= 875
    assert null.pairs(np.arange(6), np.arange(6)).max() < 0.3


def test_too_few_places_are_refused() -> None:
    with pytest.raises(InputError, match="63 common places"):
        FiringSimilarity(codes(0, 63, 4), codes(1, 63, 4))


def test_decoder_cosine_is_the_cosine() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(7, 5) * 3, torch.randn(11, 5)
    b[4] = 0
    cosine = DecoderCosine(a, b)
    expected = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    block = cosine.block(np.arange(7))
    kept = [j for j in range(11) if j != 4]
    torch.testing.assert_close(block[:, kept], expected[:, kept])
    assert (block[:, 4] == ABSENT).all()
    assert np.isnan(cosine.pairs(np.array([1]), np.array([4])))
    torch.testing.assert_close(cosine.swapped().block(np.array([0, 2])), expected.T[[0, 2]])


def crowded(generator: torch.Generator, features: int, width: int) -> torch.Tensor:
    """Directions that lie mostly in a few common dimensions."""
    return torch.randn(features, width, generator=generator) * torch.logspace(0, -1.5, width)


def test_resampled_directions_keep_the_spectrum_and_rotated_ones_the_angles() -> None:
    b = crowded(torch.Generator().manual_seed(0), 400, 24)
    b /= b.norm(dim=1, keepdim=True)
    one = torch.eye(24)
    resampled, rotated = (
        torch.from_numpy(DecoderCosine(one, b, kind).by_chance(np.random.default_rng(1)).block(np.arange(24)).numpy()).T
        for kind in ("resampled", "rotated")
    )
    # seen from the principal axes (of which by_chance turned the first SAE along)
    spectra = [torch.linalg.svdvals(x) for x in (b, resampled, rotated)]
    torch.testing.assert_close(spectra[1], spectra[0], rtol=0.1, atol=0.3)
    torch.testing.assert_close(spectra[2], spectra[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rotated @ rotated.T, b @ b.T, rtol=1e-4, atol=1e-4)
    assert (resampled @ resampled.T - b @ b.T).abs().max() > 0.5
