"""Figures against closed forms and other people's implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from neuronmap.interpretation.judging.agreement import agreements, spearman
from neuronmap.interpretation.judging.figures import (
    area_figures,
    correlation_figures,
    judged_figures,
    share_figures,
)
from neuronmap.interpretation.labels.acts import Author, Judgement, Score, stamp


def judged(truth: bool | float, said: bool | float | None, group: str = "random", sequence: int = 0) -> Judgement:
    return Judgement(sequence=sequence, position=0, group=group, truth=truth, said=said)


_answers = st.lists(st.tuples(st.booleans(), st.sampled_from([True, False, None])), max_size=60)


@settings(max_examples=60, deadline=None)
@given(_answers)
def test_balanced_accuracy(answers: list[tuple[bool, bool | None]]) -> None:
    found = judged_figures([judged(truth, said) for truth, said in answers])
    read = [(truth, said) for truth, said in answers if said is not None]
    positives = sum(truth for truth, _ in read)
    assert found.details["unread"] == len(answers) - len(read)
    assert (found.details["positives"], found.details["negatives"]) == (positives, len(read) - positives)
    if min(positives, len(read) - positives) < 3:
        assert found.value is None
        return
    assert found.value == pytest.approx(balanced_accuracy_score(*zip(*read, strict=True)))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_judge_who_always_says_yes_is_at_chance() -> None:
    found = judged_figures([judged(number < 25, True) for number in range(45)])
    assert found.value == 0.5
    assert found.low < 0.5 < found.high


def test_the_interval_covers() -> None:
    """95 % intervals of balanced accuracy at the protocol's numbers cover the truth in about 95 % of draws."""
    rng = np.random.default_rng(0)
    recall, specificity, hits = 0.7, 0.85, 0
    for _ in range(800):
        said = [*(rng.random(25) < recall), *(rng.random(20) > specificity)]
        found = judged_figures([judged(place < 25, bool(one)) for place, one in enumerate(said)])
        hits += found.low <= (recall + specificity) / 2 <= found.high
    assert 0.93 <= hits / 800 <= 0.985


def test_groups() -> None:
    found = judged_figures(
        [judged(True, True, "quantile-0"), judged(True, False, "quantile-0"), judged(True, True, "quantile-4")]
        + [judged(False, False, "random")] * 3 + [judged(False, True, "hard-token"), judged(False, None, "hard-token")]
    )  # fmt: skip
    recall, false = found.details["recall"], found.details["false_positives"]
    assert {group: (one["share"], one["examples"]) for group, one in recall.items()} == {
        "quantile-0": (0.5, 2),
        "quantile-4": (1.0, 1),
    }
    assert {group: (one["share"], one["examples"]) for group, one in false.items()} == {
        "random": (0.0, 3),
        "hard-token": (1.0, 1),
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=6, max_size=40))
def test_area_under_the_curve(answers: list[tuple[bool, int]]) -> None:
    found = area_figures([judged(truth, said / 10) for truth, said in answers])
    truths = [truth for truth, _ in answers]
    if min(sum(truths), len(truths) - sum(truths)) < 3:
        assert found.value is None
        return
    assert found.value == pytest.approx(roc_auc_score(truths, [said for _, said in answers]))
    assert found.low <= found.value <= found.high


def test_delong_covers() -> None:
    rng = np.random.default_rng(1)
    truth = 0.5 * math.erfc(-1.0 / math.sqrt(2) / math.sqrt(2))  # of N(1, 1) against N(0, 1)
    hits = 0
    for _ in range(400):
        said = [*rng.normal(1.0, 1.0, 25), *rng.normal(0.0, 1.0, 20)]
        found = area_figures([judged(place < 25, float(one)) for place, one in enumerate(said)])
        hits += found.low <= truth <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def test_correlation_is_over_all_tokens_together_not_a_mean_of_rows() -> None:
    """Within each row the simulation is backwards; between the rows it is right."""
    rows = {0: [(1.0, 2.0), (2.0, 1.0)], 1: [(11.0, 12.0), (12.0, 11.0)], 2: [(21.0, 22.0), (22.0, 21.0)]}
    found = correlation_figures([judged(t, s, sequence=row) for row, pairs in rows.items() for t, s in pairs])
    pairs = np.array([pair for part in rows.values() for pair in part])
    assert found.value == pytest.approx(pearsonr(*pairs.T)[0])
    assert found.value > 0.9
    assert found.low <= found.value <= found.high
    silent = correlation_figures([judged(0.0, float(n % 3), sequence=n // 4) for n in range(20)])
    assert silent.value is None, "a feature that never fires in the texts has no correlation"


def test_shares() -> None:
    found = share_figures([judged(True, True, "quantile-0")] * 4 + [judged(True, False), judged(True, None)], 0.2)
    assert (found.value, found.details["judged"], found.details["unread"]) == (0.8, 5, 1)
    assert share_figures([judged(True, True)] * 2, 0.2).value is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=30))
def test_spearman(pairs: list[tuple[int, int]]) -> None:
    first, second = ([float(one) for one in side] for side in zip(*pairs, strict=True))
    value, low, high = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert value is None
        return
    assert value == pytest.approx(spearmanr(first, second).statistic)
    assert low is None or low - 1e-12 <= value <= high + 1e-12


def test_agreement_is_over_labels_that_both_scored() -> None:
    def score(label: int, protocol: str, value: float | None) -> Score:
        return Score(
            sae="sha256:" + "0" * 64, feature=label, author=Author(kind="model", name="m"), at=stamp(),
            label=f"{label:032x}", protocol=protocol, value=value,
        )  # fmt: skip

    scores = [score(n, "detection@1", n / 10) for n in range(6)] + [score(n, "fuzzing@1", n / 20) for n in range(2, 6)]
    scores += [score(9, "fuzzing@1", None)]
    found = agreements(scores)
    assert [(one.first, one.second, one.labels) for one in found] == [("detection@1", "fuzzing@1", 4)]
    assert found[0].value == pytest.approx(1.0)
