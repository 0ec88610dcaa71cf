"""Matching by blocks equals plain definitions, one-to-one equals scipy's dense answer, and the null keeps its rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from neuronmap.features.comparing import matching
from neuronmap.features.comparing.matching import Chance, best_of, match, one_to_one, search, what_chance_gives
from neuronmap.features.comparing.similarity import ABSENT, DecoderCosine, FiringSimilarity


@dataclass
class Given:
    """A similarity whose whole matrix is known; NaN where nothing can be compared."""

    matrix: np.ndarray
    measure: str = "given"
    block_cost: int = 1

    def __post_init__(self) -> None:
        self.usable_A, self.usable_B = ~np.isnan(self.matrix).all(axis=1), ~np.isnan(self.matrix).all(axis=0)

    def block(self, features_n: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.nan_to_num(self.matrix[features_n], nan=ABSENT).astype(np.float32))

    def pairs(self, a_n: np.ndarray, b_n: np.ndarray) -> np.ndarray:
        return self.matrix[a_n, b_n].astype(np.float32)

    def swapped(self) -> Given:
        return Given(self.matrix.T)

    def by_chance(self, rng: np.random.Generator) -> Given:
        return Given(rng.permuted(self.matrix.reshape(-1)).reshape(self.matrix.shape))


def random_matrix(seed: int, a: int, b: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (a, b)).astype(np.float32)


NO_CHANCE = Chance(0.05, 0.0, np.empty(0, np.float32), np.empty(0, np.float32), 0.0, 1)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_BLOCK_NUMBERS", 100)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("keep", [1, 4, 100])
def test_search_finds_the_best_both_ways(keep: int) -> None:
    matrix = random_matrix(0, 37, 23)
    matrix[5], matrix[:, 11] = np.nan, np.nan
    found = search(Given(matrix), keep, 0.4)
    filled = np.nan_to_num(matrix, nan=ABSENT)
    for index, value, rows in ((found.index_AN, found.value_AN, filled), (found.index_BN, found.value_BN, filled.T)):
        order = np.argsort(-rows, axis=1)[:, :keep]
        expected = np.take_along_axis(rows, order, axis=1)
        np.testing.assert_array_equal(value, expected)
        np.testing.assert_array_equal(index, np.where(expected > ABSENT, order, -1))
    assert found.pairs_above == (matrix > 0.4).sum()


@pytest.mark.usefixtures("small_blocks")
def test_best_of_some_features() -> None:
    matrix = random_matrix(0, 37, 23)
    value, index = best_of(Given(matrix), np.array([30, 2, 7]))
    np.testing.assert_array_equal(index, matrix[[30, 2, 7]].argmax(axis=1))
    np.testing.assert_array_equal(value, matrix[[30, 2, 7]].max(axis=1))


def gain(matrix: np.ndarray, partner: np.ndarray, floor: float) -> float:
    paired = np.flatnonzero(partner >= 0)
    assert len(set(partner[paired])) == len(paired), "a feature has two partners"
    gains = matrix[paired, partner[paired]].astype(np.float64) - floor
    assert (gains > 0).all(), "a pair at or below the floor was matched"
    return float(gains.sum())


def dense_optimum(matrix: np.ndarray, floor: float) -> float:
    gains = np.maximum(matrix.astype(np.float64) - floor, 0)
    return float(gains[linear_sum_assignment(gains, maximize=True)].sum())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    a=st.integers(1, 25),
    b=st.integers(1, 25),
    floor=st.sampled_from([-1.0, 0.0, 0.5, 0.9, 1.0]),
    keep=st.sampled_from([1, 3, 25]),
)
def test_one_to_one_is_the_dense_optimum(seed: int, a: int, b: int, floor: float, keep: int) -> None:
    similarity = Given(random_matrix(seed, a, b))
    pairing = one_to_one(search(similarity, keep, floor), similarity)
    assert pairing.exact
    assert gain(similarity.matrix, pairing.partner_A, floor) == pytest.approx(dense_optimum(similarity.matrix, floor))


def test_with_all_pairs_allowed_it_is_scipy_s_hungarian_assignment() -> None:
    matrix = random_matrix(3, 40, 60)
    similarity = Given(matrix)
    pairing = one_to_one(search(similarity, 60, -1.5), similarity)
    np.testing.assert_array_equal(pairing.partner_A, linear_sum_assignment(matrix, maximize=True)[1])


def test_what_is_not_exact_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_DENSE_PAIRS", 0)
    similarity = Given(random_matrix(0, 60, 60))
    few = one_to_one(search(similarity, 2, 0.0), similarity)
    all_of_them = one_to_one(search(similarity, 60, 0.0), similarity)
    best = dense_optimum(similarity.matrix, 0.0)
    assert all_of_them.exact
    assert gain(similarity.matrix, all_of_them.partner_A, 0.0) == pytest.approx(best)
    assert not few.exact
    assert 0.9 * best < gain(similarity.matrix, few.partner_A, 0.0) <= best


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), a=st.integers(1, 12), b=st.integers(1, 12), t=st.sampled_from([-0.5, 0.3, 0.8]))
def test_shared_split_merged_unique_by_definition(seed: int, a: int, b: int, t: float) -> None:
    m = random_matrix(seed, a, b)
    found = match(Given(m), NO_CHANCE, threshold=t, keep=3)
    best_a, best_b = m.argmax(axis=1), m.argmax(axis=0)
    assert found.shared().tolist() == [
        [i, j] for i in range(a) for j in range(b) if best_a[i] == j and best_b[j] == i and m[i, j] >= t
    ]
    children = {i: [j for j in range(b) if best_b[j] == i and m[i, j] >= t] for i in range(a)}
    assert found.split() == {i: many for i, many in children.items() if len(many) > 1}
    parents = {j: [i for i in range(a) if best_a[i] == j and m[i, j] >= t] for j in range(b)}
    assert found.merged() == {j: many for j, many in parents.items() if len(many) > 1}
    assert found.unique_a().tolist() == [i for i in range(a) if m[i].max() < t]
    assert found.unique_b().tolist() == [j for j in range(b) if m[:, j].max() < t]


def test_what_cannot_be_compared_is_neither_shared_nor_unique() -> None:
    matrix = random_matrix(0, 6, 5)
    matrix[2], matrix[:, 1] = np.nan, np.nan
    found = match(Given(matrix), NO_CHANCE, threshold=2.0)
    assert found.unique_a().tolist() == [0, 1, 3, 4, 5]
    assert found.unique_b().tolist() == [0, 2, 3, 4]
    assert found.best_A[2] == found.best_B[1] == found.pairing.partner_A[2] == -1
    assert np.isnan(found.value_A[2])


def isotropic(rng: np.random.Generator, features: int, width: int) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal((features, width)).astype(np.float32))


def crowded(rng: np.random.Generator, features: int, width: int) -> torch.Tensor:
    """Directions that lie mostly in a few dimensions, the same for every SAE."""
    return isotropic(rng, features, width) * torch.logspace(0, -1.5, width) + 0.5 * torch.eye(width)[0]


def false_matches(
    make: object, null: str, rate: float, a: int = 300, b: int = 300
) -> tuple[float, float, float, float]:
    """Share of features with a match above the null's threshold in unrelated SAEs, both ways; shared, and expected."""
    over_a, over_b, shared, by_chance = [], [], [], []
    for seed in range(12):
        rng = np.random.default_rng(1000 + seed)
        similarity = DecoderCosine(make(rng, a, 32), make(rng, b, 32), null)  # type: ignore[operator]
        chance = what_chance_gives(similarity, draws=3, rate=rate, sample=2048, seed=seed)
        found = match(similarity, chance)
        over_a.append((found.value_A >= found.threshold).mean())
        over_b.append((found.value_B >= found.threshold).mean())
        shared.append(len(found.shared()) / a)
        by_chance.append(chance.shared)
    return tuple(float(np.mean(values)) for values in (over_a, over_b, shared, by_chance))  # type: ignore[return-value]


@pytest.mark.parametrize(("make", "null"), [(isotropic, "resampled"), (isotropic, "rotated"), (crowded, "resampled")])
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_unrelated_directions_match_as_often_as_the_null_says(make: object, null: str, rate: float) -> None:
    over_a, over_b, shared, by_chance = false_matches(make, null, rate)
    assert 0.6 * rate < over_a < 1.35 * rate
    assert 0.6 * rate < over_b < 1.35 * rate
    assert abs(shared - by_chance) < 0.3 * rate


def test_a_rotation_is_blind_to_directions_that_all_saes_crowd_into() -> None:
    over_a, *_ = false_matches(crowded, "rotated", 0.05)
    assert over_a > 0.2, "the reason why resampled is the default"


def test_with_unequal_widths_neither_direction_goes_over_the_rate() -> None:
    over_a, over_b, *_ = false_matches(isotropic, "resampled", 0.1, a=100, b=800)
    assert max(over_a, over_b) < 0.125
    assert max(over_a, over_b) > 0.06


def independent_codes(rng: np.random.Generator, places: int, features: int) -> scipy.sparse.csr_matrix:
    """Features of very different rates that fire in runs."""
    rate = 10 ** rng.uniform(-2.3, -0.7, features)
    on = rng.random((places, features)) < rate / 2
    on[1:] |= on[:-1]
    return scipy.sparse.csr_matrix((on * rng.exponential(size=on.shape)).astype(np.float32))


@pytest.mark.parametrize("measure", ["correlation", "jaccard"])
def test_unrelated_firing_matches_as_often_as_the_null_says(measure: str) -> None:
    over = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        similarity = FiringSimilarity(*(independent_codes(rng, 3000, 120) for _ in range(2)), measure=measure)
        chance = what_chance_gives(similarity, draws=4, rate=0.1, sample=2048, seed=seed)
        found = match(similarity, chance)
        over.append((found.value_A >= found.threshold).mean())
    assert 0.06 < np.mean(over) < 0.13


def test_the_null_s_own_best_matches_keep_the_rate() -> None:
    rng = np.random.default_rng(0)
    similarity = DecoderCosine(isotropic(rng, 50, 8), isotropic(rng, 200, 8))
    chance = what_chance_gives(similarity, draws=4, rate=0.05, sample=2048, seed=0)
    assert len(chance.best_A) == 200
    assert len(chance.best_B) == 800
    shares = [(best >= chance.threshold).mean() for best in (chance.best_A, chance.best_B)]
    assert max(shares) <= 0.05
    assert max(shares) > 0.04


def test_a_sample_of_the_features_gives_the_same_threshold() -> None:
    rng = np.random.default_rng(0)
    similarity = DecoderCosine(isotropic(rng, 1500, 24), isotropic(rng, 1500, 24))
    whole, part = (what_chance_gives(similarity, draws=4, rate=0.05, sample=n, seed=1) for n in (1500, 200))
    assert len(part.best_A) == 800
    assert part.threshold == pytest.approx(whole.threshold, abs=0.02)


def test_a_seed_decides_everything() -> None:
    rng = np.random.default_rng(0)
    similarity = DecoderCosine(isotropic(rng, 300, 24), isotropic(rng, 300, 24))
    one, same, other = (what_chance_gives(similarity, draws=2, rate=0.05, sample=100, seed=s) for s in (7, 7, 8))
    np.testing.assert_array_equal(one.best_A, same.best_A)
    assert replace(one, best_A=None, best_B=None) == replace(same, best_A=None, best_B=None)  # type: ignore[arg-type]
    assert not np.array_equal(one.best_A, other.best_A)
