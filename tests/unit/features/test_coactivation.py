"""Co-activation, lead and lag against products of dense 0/1 matrices."""

from __future__ import annotations

import numpy as np
import pytest
from feature_states import World, random_world, state_of

from neuronmap.features.summary import coactivation
from neuronmap.features.summary.coactivation import MIN_LAGGED, MIN_TOGETHER, CoActivation


@pytest.fixture(params=["one block", "small blocks", "counted by sorting", "counted by features"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    """The same world, with each way of counting."""
    if request.param == "small blocks":
        monkeypatch.setattr(coactivation, "_BLOCK_ENTRIES", 50)
    if request.param == "counted by sorting":
        monkeypatch.setattr(coactivation, "_SORT_COST", 0)
    if request.param == "counted by features":
        monkeypatch.setattr(coactivation, "_SORT_COST", 1 << 30)
    return random_world(contexts=40, features=40, neighbours=4)


def fires(world: World) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of the sampled rows as 0/1, and of neighbouring rows t and t + 1."""
    use_CT = world.row_CT & world.sampled_C[:, None]
    fires_CTF = (world.value_CTF > 0).astype(np.int64)
    both_CT = use_CT[:, :-1] & use_CT[:, 1:]
    return fires_CTF[use_CT], fires_CTF[:, :-1][both_CT], fires_CTF[:, 1:][both_CT]


def test_together_equals_the_dense_product(world: World) -> None:
    code_NF, *_ = fires(world)
    product, n_F, rows = code_NF.T @ code_NF, code_NF.sum(axis=0), len(code_NF)
    lists = CoActivation(state_of(world).sample, code_NF.shape[1], 4).together(0, code_NF.shape[1])
    listed = 0
    for i in range(len(n_F)):
        expected = []
        for j in range(len(n_F)):
            count = product[i, j]
            if i != j and count >= MIN_TOGETHER:
                pmi = np.log2(count * rows / (n_F[i] * n_F[j]))
                jaccard = count / (n_F[i] + n_F[j] - count)
                expected.append((-jaccard, j, count, pmi, count / n_F[i], count / n_F[j]))
        expected.sort()
        low, high = lists.offset[i : i + 2]
        assert high - low == min(4, len(expected))
        for place, (jaccard, j, count, *rest) in zip(range(low, high), expected, strict=False):
            names = ("feature", "count", "jaccard", "pmi", "given", "implies")
            found = [float(lists[name][place]) for name in names]
            assert found == pytest.approx([j, count, -jaccard, *rest], rel=1e-5, abs=1e-6)
            listed += 1
    assert listed > 50


@pytest.mark.parametrize("role", ["leads", "follows"])
def test_lead_and_lag_equal_the_dense_product(world: World, role: str) -> None:
    _, before_PF, after_PF = fires(world)
    own_PF, other_PF = (before_PF, after_PF) if role == "leads" else (after_PF, before_PF)
    product, own_F, other_F = own_PF.T @ other_PF, own_PF.sum(axis=0), other_PF.sum(axis=0)
    lists = getattr(CoActivation(state_of(world).sample, len(own_F), 4), role)(0, len(own_F))
    listed = 0
    for i in range(len(own_F)):
        expected = sorted(
            (-product[i, j] * len(own_PF) / (own_F[i] * other_F[j]), j, product[i, j], product[i, j] / own_F[i])
            for j in range(len(own_F))
            if product[i, j] >= MIN_LAGGED
        )
        low, high = lists.offset[i : i + 2]
        assert high - low == min(4, len(expected))
        for place, (lift, j, count, given) in zip(range(low, high), expected, strict=False):
            found = [float(lists[name][place]) for name in ("feature", "count", "given", "lift")]
            assert found == pytest.approx([j, count, given, -lift], rel=1e-5)
            listed += 1
    assert listed > 20


def test_parts_of_the_dictionary_give_the_same_lists(world: World) -> None:
    num = world.value_CTF.shape[2]
    lists = CoActivation(state_of(world).sample, num, 4)
    whole = lists.together(0, num)
    parts = [lists.together(first, min(first + 7, num)) for first in range(0, num, 7)]
    for name in whole.columns:
        np.testing.assert_array_equal(whole[name], np.concatenate([part[name] for part in parts]))


def test_a_sample_without_rows_has_no_lists() -> None:
    world = random_world()
    world.sampled_C[:] = False
    lists = CoActivation(state_of(world).sample, world.value_CTF.shape[2], 4)
    for role in (lists.together, lists.leads, lists.follows):
        assert role(0, world.value_CTF.shape[2]).offset.tolist() == [0] * (world.value_CTF.shape[2] + 1)
