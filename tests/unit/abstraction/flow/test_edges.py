"""Planted relations between two layers are found as what they are, and chance gives next to none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse
import torch
from planted_flow import ROWS, directions, noisy, random_code, shared

from neuronmap.abstraction.flow.codes import SharedCodes
from neuronmap.abstraction.flow.edges import COUNTED, PairFlow, flow_between, reproduced
from neuronmap.abstraction.flow.unions import greedy_union

SAME, DRIFTED, GONE = range(10), range(10, 20), range(26, 36)
SPLIT = {20: (20, 21), 21: (22, 23, 24)}
MERGED = {25: (22, 23), 26: (24, 25)}
NEW = range(27, 36)
RARE, DENSE = 36, 37


@dataclass
class Planted:
    codes: SharedCodes
    W_A_AD: torch.Tensor
    W_B_BD: torch.Tensor
    flow: PairFlow


def plant(seed: int = 0) -> tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    a_NA = random_code(38, seed + 1)
    b_NB = random_code(38, seed + 2)
    W_A_AD, W_B_BD = directions(38, seed + 1), directions(38, seed + 2)
    for same in SAME:
        W_B_BD[same] = W_A_AD[same] + 0.05 * W_B_BD[same]
    b_NB[:, 0:20] = noisy(a_NA[:, 0:20], seed + 3)
    for whole, parts in SPLIT.items():
        turn_N = rng.integers(len(parts), size=ROWS)
        for number, part in enumerate(parts):
            b_NB[:, part] = noisy(a_NA[:, whole] * (turn_N == number), seed + 4)
    for whole, parts in MERGED.items():
        b_NB[:, whole] = noisy(a_NA[:, list(parts)].max(1), seed + 5)
    for f_NF in (a_NA, b_NB):
        f_NF[:, RARE] = 0.0
        f_NF[:19, RARE] = 1.0  # the same rows on both sides
        f_NF[:, DENSE] = np.where(np.arange(ROWS) % 8 == 0, 2.0, 0.0)
    return a_NA, b_NB, W_A_AD, W_B_BD


@pytest.fixture(scope="module")
def planted() -> Planted:
    a_NA, b_NB, W_A_AD, W_B_BD = plant()
    codes = shared([a_NA, b_NB])
    return Planted(codes, W_A_AD, W_B_BD, flow_between(codes, 0, 1, W_A_AD, W_B_BD, seed=0))


def test_every_feature_is_of_the_kind_that_was_planted(planted: Planted) -> None:
    flow = planted.flow
    expected_a = {
        **dict.fromkeys(SAME, "pass-through"),
        **dict.fromkeys(DRIFTED, "drift"),
        **dict.fromkeys(SPLIT, "split"),
        **{part: "merge" for parts in MERGED.values() for part in parts},
        RARE: "untested",
        DENSE: "untested",
    }
    expected_b = {
        **dict.fromkeys(SAME, "pass-through"),
        **dict.fromkeys(DRIFTED, "drift"),
        **{part: "split" for parts in SPLIT.values() for part in parts},
        **dict.fromkeys(MERGED, "merge"),
        RARE: "untested",
        DENSE: "untested",
    }
    assert {a: flow.kinds_A[a] for a in expected_a} == expected_a
    assert {b: flow.kinds_B[b] for b in expected_b} == expected_b
    # one in a hundred strangers is above chance with something, by the null's own definition
    strangers = [flow.kinds_A[a] for a in GONE] + [flow.kinds_B[b] for b in NEW]
    assert strangers.count("vanishing") + strangers.count("new") >= 17
    assert len(strangers) == 19
    planted_counts = {"pass-through": 10, "drift": 10, "split": 2, "merge": 2, "untested": 4}
    assert planted_counts.items() <= flow.counts.items()
    assert flow.counts["new"] + flow.counts["vanishing"] + flow.counts["unclear"] == 19
    assert tuple(flow.counts) == COUNTED


def test_edges_are_those_that_were_planted_with_their_scores(planted: Planted) -> None:
    wanted = {(f, f) for f in (*SAME, *DRIFTED)}
    wanted |= {(whole, part) for whole, parts in SPLIT.items() for part in parts}
    wanted |= {(part, whole) for whole, parts in MERGED.items() for part in parts}
    assert planted.flow.pairs == wanted
    assert [(e.source, e.target) for e in planted.flow.edges] == sorted(wanted)
    a_NA, b_NB = (code.toarray() for code in planted.codes.codes)
    groups: dict[int, set[int]] = {}
    for edge in planted.flow.edges:
        a_N, b_N = a_NA[:, edge.source].astype(np.float64), b_NB[:, edge.target].astype(np.float64)
        both = int(((a_N > 0) & (b_N > 0)).sum())
        assert edge.support == both
        assert edge.jaccard == pytest.approx(both / ((a_N > 0) | (b_N > 0)).sum())
        assert edge.target_given_source == pytest.approx(both / (a_N > 0).sum())
        assert edge.source_given_target == pytest.approx(both / (b_N > 0).sum())
        assert edge.correlation == pytest.approx(np.corrcoef(a_N, b_N)[0, 1], abs=1e-6)
        cosine = torch.cosine_similarity(planted.W_A_AD[edge.source], planted.W_B_BD[edge.target], dim=0)
        assert edge.cosine == pytest.approx(float(cosine), abs=1e-6)
        assert edge.correlation > planted.flow.correlation_null
        assert (edge.cosine > planted.flow.cosine_null) == (edge.source in SAME)
        groups.setdefault(edge.group, set()).add(edge.target if edge.kind == "split" else edge.source)
    assert sorted(map(len, groups.values())) == [1] * 20 + [2, 2, 2, 3]


def test_another_order_of_rows_and_of_features_finds_the_same() -> None:
    a_NA, b_NB, W_A_AD, W_B_BD = plant()
    flow = flow_between(shared([a_NA, b_NB]), 0, 1, W_A_AD, W_B_BD, seed=0)
    rng = np.random.default_rng(3)
    # whole contexts in another order: rows of a context have to stay together
    order = (rng.permutation(100)[:, None] * 39 + np.arange(39)).reshape(-1)
    features = rng.permutation(38)
    codes = shared([a_NA[order][:, features], b_NB[order]])
    other = flow_between(codes, 0, 1, W_A_AD[torch.from_numpy(features)], W_B_BD, seed=0)
    assert {(int(features[s]), t) for s, t in other.pairs} == flow.pairs
    # other contexts meet under the shifts, so the null moves a little, and only strangers at its edge with it
    assert abs(other.correlation_null - flow.correlation_null) < 0.03
    assert other.cosine_null != 1.0
    by_pair = {(e.source, e.target): e for e in flow.edges}
    for edge in other.edges:
        twin = by_pair[int(features[edge.source]), edge.target]
        assert (edge.kind, edge.support) == (twin.kind, twin.support)
        assert edge.correlation == pytest.approx(twin.correlation, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_independent_codes_have_next_to_no_edges(seed: int) -> None:
    a_NA, b_NB = random_code(150, 10 * seed), random_code(120, 10 * seed + 5)
    flow = flow_between(shared([a_NA, b_NB]), 0, 1, directions(150, 1), directions(120, 2), seed=seed)
    assert len(flow.edges) <= 3
    tested = 270 - flow.counts["untested"]
    assert flow.counts["new"] + flow.counts["vanishing"] >= 0.96 * tested


def test_alike_directions_with_unlike_firing_are_no_edge() -> None:
    W_AD = directions(60, 0)
    flow = flow_between(shared([random_code(60, 1), random_code(60, 2)]), 0, 1, W_AD, W_AD, seed=0)
    assert len(flow.edges) <= 1


def test_the_same_sae_twice_is_all_pass_through() -> None:
    a_NA, W_AD = random_code(50, 3), directions(50, 3)
    flow = flow_between(shared([a_NA, a_NA]), 0, 1, W_AD, 7.0 * W_AD, seed=0)
    assert flow.counts["pass-through"] == 50
    assert all(edge.cosine == pytest.approx(1) and edge.jaccard == 1 for edge in flow.edges)


def test_where_nothing_can_be_tested_nothing_is_joined() -> None:
    a_NA, nothing_NB = random_code(6, 1), np.zeros((ROWS, 5), np.float32)
    for columns, counts in (
        ([a_NA, nothing_NB], {"vanishing": 6, "untested": 5, "new": 0}),
        ([nothing_NB, a_NA], {"vanishing": 0, "untested": 5, "new": 6}),
        ([nothing_NB, nothing_NB], {"vanishing": 0, "untested": 10, "new": 0}),
    ):
        codes = shared(columns)
        decoders = [directions(code.shape[1], 0) for code in codes.codes]
        flow = flow_between(codes, 0, 1, *decoders, seed=0)
        assert (flow.edges, flow.cosine_null, flow.correlation_null) == ([], 1.0, 1.0)
        assert counts.items() <= flow.counts.items()


def test_a_seed_decides_everything() -> None:
    a_NA, b_NB, W_A_AD, W_B_BD = plant(50)
    codes = shared([a_NA, b_NB])
    one, two, other = (flow_between(codes, 0, 1, W_A_AD, W_B_BD, seed=seed) for seed in (1, 1, 2))
    assert one == two
    assert (one.cosine_null, one.correlation_null) != (other.cosine_null, other.correlation_null)


def test_planted_edges_are_found_in_both_halves_and_chance_is_not(planted: Planted) -> None:
    halves = [[flow_between(half, 0, 1, planted.W_A_AD, planted.W_B_BD, seed=0)] for half in planted.codes.halves()]
    (share,) = reproduced(*halves)
    assert share is not None
    assert share >= 0.95
    codes = shared([random_code(200, 1), random_code(200, 2)])
    loose = [[flow_between(half, 0, 1, directions(200, 1), directions(200, 2), seed=0)] for half in codes.halves()]
    assert reproduced(*loose)[0] in (None, 0.0)


def test_reproduced_counts_pairs_of_the_first_and_is_null_without_edges(planted: Planted) -> None:
    empty = PairFlow([], [], [], 1.0, 1.0)
    half = PairFlow(planted.flow.edges[:15], [], [], 1.0, 1.0)
    whole = len(planted.flow.edges)
    assert reproduced([planted.flow, half, empty], [half, planted.flow, half]) == [15 / whole, 1.0, None]


def test_a_union_is_chosen_by_what_it_adds() -> None:
    own_N = np.zeros(100, bool)
    own_N[:40] = True
    firing = {1: np.arange(0, 25), 2: np.arange(0, 20), 3: np.arange(25, 45), 4: np.arange(50, 60)}
    chosen, scores = greedy_union(own_N, 40, firing)
    assert chosen == [1, 3]  # 2 adds nothing, 4 lies outside
    assert scores == pytest.approx([2 * 25 / (40 + 25), 2 * 40 / (40 + 45)])


def test_codes_keep_their_sparse_form() -> None:
    codes = shared([random_code(6, 1)])
    first, second = codes.halves()
    assert all(isinstance(code, scipy.sparse.csr_matrix) for half in (first, second) for code in half.codes)
    assert (first.rows + second.rows, first.contexts, second.contexts) == (codes.rows, 50, 50)
    assert second.context_N.min() == 0
    joined = scipy.sparse.vstack([first.codes[0], second.codes[0]])
    np.testing.assert_array_equal(joined.toarray(), codes.codes[0].toarray())
