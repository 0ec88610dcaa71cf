"""AUC against the definition: pairs counted one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronmap.statistics.auc import auc, auc_by_clusters, macro_auc, resampled_auc
from neuronmap.statistics.resampling import bands, draw_clusters


def by_pairs(scores: list[float], positive: list[bool], weights: list[float] | None = None) -> float:
    """Share of (positive, negative) pairs in order, ties half."""
    weights = weights or [1.0] * len(scores)
    won = total = 0.0
    for s, p, v in zip(scores, positive, weights, strict=True):
        for t, q, w in zip(scores, positive, weights, strict=True):
            if p and not q:
                won += v * w * ((s > t) + 0.5 * (s == t))
                total += v * w
    return won / total if total else float("nan")


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30).filter(
        lambda rows: len({positive for _, positive in rows}) == 2
    )
)
def test_it_is_the_share_of_pairs_in_order_ties_half(rows: list[tuple[int, bool]]) -> None:
    scores, positive = [float(score) for score, _ in rows], [flag for _, flag in rows]
    found = auc(torch.tensor([scores, [-score for score in scores]]), torch.tensor(positive))
    expected = by_pairs(scores, positive)
    assert found.tolist() == pytest.approx([expected, 1 - expected])


def test_rounding_is_no_difference_and_a_small_one_is() -> None:
    positive = torch.tensor([True, False, True, False])
    base = torch.tensor([[5.0, 5.0, 5.0, 5.0]], dtype=torch.float64)
    assert auc(base + 1e-12 * torch.tensor([[1.0, 0.0, 2.0, 0.5]]), positive).item() == 0.5
    assert auc(base + 1e-3 * torch.tensor([[1.0, 0.0, 1.0, 0.0]]), positive).item() == 1.0


def test_monotone_maps_change_nothing_and_one_class_gives_nan() -> None:
    generator = torch.Generator().manual_seed(1)
    scores, positive = torch.randn(3, 40, generator=generator), torch.arange(40) % 3 == 0
    assert torch.equal(auc(scores, positive), auc(7 * scores + 3, positive))
    assert torch.isnan(auc(scores, torch.ones(40, dtype=torch.bool))).all()


def test_more_than_two_classes_are_each_against_the_rest() -> None:
    labels = torch.tensor([0, 1, 2] * 5)
    scores = torch.randn(2, 15, 3, generator=torch.Generator().manual_seed(2))
    expected = [
        sum(by_pairs(scores[row, :, k].tolist(), (labels == k).tolist()) for k in range(3)) / 3 for row in range(2)
    ]
    assert macro_auc(scores, labels).tolist() == pytest.approx(expected)


def test_copies_of_a_cluster_are_not_compared_with_each_other() -> None:
    generator = torch.Generator().manual_seed(3)
    scores, positive = torch.randn(2, 24, generator=generator), torch.arange(24) % 2 == 0
    cluster = torch.arange(24) // 4
    draws = draw_clusters([""] * 6, 20, 0)
    assert draws.weights_RG.sum(1).tolist() == [6.0] * 20
    found = resampled_auc(*auc_by_clusters(scores, positive, cluster, 6), draws)
    for drawn, row in zip(draws.weights_RG, found, strict=True):
        for line, value in zip(scores.tolist(), row.tolist(), strict=True):
            won = total = 0.0
            for i in range(24):
                for j in range(24):
                    if positive[i] and not positive[j]:
                        same = cluster[i] == cluster[j]
                        weight = float(drawn[cluster[i]] if same else drawn[cluster[i]] * drawn[cluster[j]] * 6 / 5)
                        won += weight * ((line[i] > line[j]) + 0.5 * (line[i] == line[j]))
                        total += weight
            assert value == pytest.approx(won / total)


def test_resamples_lie_around_the_score_where_pairs_within_clusters_are_always_in_order() -> None:
    generator = torch.Generator().manual_seed(5)
    off = []
    for _ in range(60):
        lemma = 3 * torch.randn(12, generator=generator)
        scores = torch.stack([lemma, lemma + 0.3], dim=1).flatten()[None]
        positive, cluster = torch.arange(24) % 2 == 1, torch.arange(24) // 2
        samples = resampled_auc(*auc_by_clusters(scores, positive, cluster, 12), draw_clusters([""] * 12, 300, 0))
        off.append(float(samples.mean() - auc(scores, positive)[0]))
    assert abs(sum(off) / len(off)) < 0.004  # 0.03 when copies are compared


def test_strata_keep_every_class_in_every_resample() -> None:
    weights = draw_clusters(["a"] * 3 + ["b"] * 2, 50, 0).weights_RG
    assert weights[:, :3].sum(1).tolist() == [3.0] * 50
    assert weights[:, 3:].sum(1).tolist() == [2.0] * 50


def test_a_perfect_score_is_as_sure_as_its_clusters_are_many() -> None:
    found = bands(torch.tensor([0.5, 1.0]).double(), torch.tensor([[0.5, 1.0]] * 9).double(), clusters=24)
    assert found.band_low[1].item() == pytest.approx(1 - 3 / 24)
    assert found.low.tolist() == pytest.approx([0.5, 1 - 3 / 24])  # 0.5 of equal rows is exact


def test_fewer_clusters_never_make_a_nearly_perfect_score_surer() -> None:
    samples = torch.tensor([[0.999, 1.0]] * 20).double() - 0.0005 * torch.rand(
        20, 2, generator=torch.Generator().manual_seed(0)
    )
    found = bands(torch.tensor([0.999, 1.0]).double(), samples, clusters=5)
    assert found.band_low.tolist() == pytest.approx([0.4, 0.4])
    assert found.low.tolist() == pytest.approx([0.4, 0.4])


def test_the_band_is_wider_than_the_intervals_and_holds_all_layers_at_once() -> None:
    generator = torch.Generator().manual_seed(4)
    samples = 0.7 + 0.05 * torch.randn(4000, 12, generator=generator, dtype=torch.float64)
    found = bands(torch.full((12,), 0.7, dtype=torch.float64), samples, clusters=400)
    inside = ((samples >= found.band_low) & (samples <= found.band_high)).all(1).double().mean()
    assert inside.item() == pytest.approx(0.95, abs=0.01)
    assert bool((found.band_low < found.low).all())
