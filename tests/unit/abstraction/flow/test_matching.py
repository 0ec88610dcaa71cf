"""Scores equal their definitions on dense matrices; nulls are what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
import torch
from planted_flow import directions, random_code, shared

from neuronmap.abstraction.flow import matching
from neuronmap.abstraction.flow.matching import (
    Coactivation,
    best_by_correlation,
    best_by_cosine,
    correlation_null,
    cosine_null,
    overlap,
    usable_features,
)


@pytest.fixture
def dense() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a_NA, b_NB = random_code(17, 1, rate=0.1, rows=400), random_code(23, 2, rate=0.1, rows=400)
    b_NB[:, 4] = a_NA[:, 3] * rng.uniform(0.5, 2, 400)
    b_NB[:, 9] = 0.0  # never active
    a_NA[:, 5] = 2.0  # always, and always alike
    return a_NA, b_NB


def pair_of(a_NA: np.ndarray, b_NB: np.ndarray) -> Coactivation:
    return Coactivation(scipy.sparse.csr_matrix(a_NA), scipy.sparse.csr_matrix(b_NB))


def plain(a_NA: np.ndarray, b_NB: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef(a_NA.T.astype(np.float64), b_NB.T.astype(np.float64))[: a_NA.shape[1], a_NA.shape[1] :]
    result: np.ndarray = np.nan_to_num(r)
    return result


def test_scores_equal_their_definitions(dense: tuple[np.ndarray, np.ndarray]) -> None:
    a_NA, b_NB = dense
    pair, every = pair_of(a_NA, b_NB), np.arange(17)
    np.testing.assert_allclose(pair.correlation(every), plain(a_NA, b_NB), atol=1e-10)
    both = (a_NA > 0).T.astype(int) @ (b_NB > 0).astype(int)
    np.testing.assert_array_equal(pair.both(every), both)
    np.testing.assert_array_equal(pair.firings_A, (a_NA > 0).sum(0))
    either = ((a_NA[:, 3] > 0) | (b_NB[:, 4] > 0)).sum()
    jaccard, b_given_a, a_given_b = overlap(int(both[3, 4]), int(pair.firings_A[3]), int(pair.firings_B[4]))
    assert jaccard == pytest.approx(both[3, 4] / either)
    assert b_given_a == pytest.approx((b_NB[a_NA[:, 3] > 0, 4] > 0).mean())
    assert a_given_b == pytest.approx((a_NA[b_NB[:, 4] > 0, 3] > 0).mean())
    assert overlap(0, 0, 0) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("numbers", [1, 50, 1 << 22])
def test_best_matches_do_not_depend_on_the_chunks(
    dense: tuple[np.ndarray, np.ndarray], numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "_CHUNK_NUMBERS", numbers)
    a_NA, b_NB = dense
    r_AB = plain(a_NA, b_NB)
    best = best_by_correlation(pair_of(a_NA, b_NB))
    np.testing.assert_allclose(best.value_A, r_AB.max(1), atol=1e-6)
    np.testing.assert_allclose(best.value_B, r_AB.max(0), atol=1e-6)
    alive = np.delete(np.arange(17), 5)
    np.testing.assert_array_equal(best.index_A[alive], r_AB.argmax(1)[alive])
    both_AB = (a_NA > 0).T.astype(int) @ (b_NB > 0).astype(int)
    np.testing.assert_array_equal(best.both_A, both_AB[np.arange(17), best.index_A])
    np.testing.assert_array_equal(best.both_B, both_AB[best.index_B, np.arange(23)])
    assert best.mutual_A[3]
    assert best.index_A[3] == 4
    W_A, W_B = directions(17, 0), 3.0 * directions(23, 1)
    cosine_AB = (W_A @ W_B.T).numpy() / 3.0
    by_cosine = best_by_cosine(W_A, W_B)
    np.testing.assert_allclose(by_cosine.value_A, cosine_AB.max(1), atol=1e-6)
    np.testing.assert_array_equal(by_cosine.index_B, cosine_AB.argmax(0))


def test_rare_and_dense_features_are_not_usable() -> None:
    f_NF = np.zeros((1000, 5), np.float32)
    for feature, firings in enumerate((19, 20, 100, 101, 0)):
        f_NF[:firings, feature] = 1.0
    np.testing.assert_array_equal(usable_features(scipy.sparse.csr_matrix(f_NF)), [1, 2])


def test_the_null_of_directions_is_what_theory_says() -> None:
    W_A, W_B = directions(400, 0, 128), directions(500, 1, 128)
    null = cosine_null(W_A, W_B, seed=0)
    # the 99th percentile of the best of m lies a little above the typical sqrt(2 ln m / D)
    assert math.sqrt(2 * math.log(500) / 128) < null < 1.4 * math.sqrt(2 * math.log(500) / 128)
    same = cosine_null(W_A, W_A, seed=0)
    assert same < 0.5  # a rotated copy is a stranger
    zero = torch.zeros(3, 128)
    assert cosine_null(zero, zero, seed=0) == 0.0


def test_a_shift_pairs_the_same_place_of_other_contexts() -> None:
    codes = shared([random_code(3, 0, rows=6 * 4)], contexts=6, length=5)
    keep = np.ones(24, bool)
    keep[[2, 9]] = False  # special tokens somewhere
    part = type(codes)([codes.codes[0][keep]], codes.context_N[keep], codes.place_N[keep], 6, 5)
    rows_n, other_n = part.shifted(2)
    np.testing.assert_array_equal(part.place_N[rows_n], part.place_N[other_n])
    np.testing.assert_array_equal((part.context_N[rows_n] + 2) % 6, part.context_N[other_n])
    assert len(rows_n) == 20  # each missing row costs its own pair and its partner's
    assert len(np.unique(other_n)) == 20


def test_the_null_keeps_what_depends_on_the_place_in_the_context() -> None:
    """Two features that fire at place 5 are alike by place alone: the null says so, and an independent pair's does not."""
    rng = np.random.default_rng(0)
    codes = shared([random_code(2, 0), random_code(2, 1)])
    at_five = (codes.place_N == 5)[:, None] * rng.gamma(9.0, 1.0, (codes.rows, 2)).astype(np.float32)
    a_NA, b_NB = scipy.sparse.csr_matrix(at_five[:, :1]), scipy.sparse.csr_matrix(at_five[:, 1:])
    assert correlation_null(codes, a_NA, b_NB, seed=0) > 0.7
    assert correlation_null(codes, *codes.codes, seed=0) < 0.1


def test_the_null_of_firing_loses_the_timing() -> None:
    a_NA = random_code(30, 0)
    codes = shared([a_NA, a_NA])
    assert correlation_null(codes, *codes.codes, seed=0) < 0.2
    assert correlation_null(codes, *codes.codes, seed=0) == correlation_null(codes, *codes.codes, seed=0)


def test_nothing_passes_where_there_is_nothing_to_draw_from() -> None:
    codes = shared([random_code(2, 0, rows=4)], contexts=1, length=5)
    lonely = type(codes)(codes.codes, codes.context_N[:0], codes.place_N[:0], 1, 5)
    empty = codes.codes[0][:0]
    assert correlation_null(lonely, empty, empty, seed=0) == 1.0
