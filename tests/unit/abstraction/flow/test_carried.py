"""Features that carry a concept are found; labels without meaning name none."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from planted_flow import random_code
from sklearn.metrics import roc_auc_score

from neuronmap.abstraction.flow.carried import carried_by
from neuronmap.errors import InputError


def test_planted_features_are_found_with_their_class() -> None:
    f_NF = random_code(200, 0, rate=0.1, rows=240)
    labels = np.repeat(["plural", "singular"], 120)
    rng = np.random.default_rng(1)
    f_NF[:, 7] = np.where((labels == "plural") & (rng.random(240) < 0.8), 1.0, 0.0)
    f_NF[:, 9] = np.where(labels == "singular", 2.0, 1.5)
    found = carried_by(f_NF, labels.tolist())
    assert [(c.feature, c.label) for c in found.carriers] == [(9, "singular"), (7, "plural")]
    assert found.carriers[0].auc == 1.0
    assert found.carriers[1].auc == pytest.approx(roc_auc_score(labels == "plural", f_NF[:, 7]), abs=1e-6)
    assert all(c.p_value == pytest.approx(1 / 501) for c in found.carriers)
    assert 0.55 < found.bound < 0.8


def test_every_auc_equals_its_definition_dense_or_sparse_whatever_the_classes() -> None:
    f_NF = random_code(30, 3, rate=0.2, rows=90)
    labels = [("a", "b", "c")[i % 3] for i in range(90)]
    found = carried_by(f_NF, labels, permutations=20)
    for k, label in enumerate(found.classes):
        is_k = np.asarray(labels) == label
        expected = [roc_auc_score(is_k, f_NF[:, feature]) for feature in range(30)]
        np.testing.assert_allclose(found.auc_FK[:, k], expected, atol=1e-6)
    for other in (scipy.sparse.csr_matrix(f_NF), torch.from_numpy(f_NF)):
        again = carried_by(other, labels, permutations=20)
        np.testing.assert_array_equal(again.auc_FK, found.auc_FK)
        assert again.bound == found.bound


def test_random_labels_name_nothing_in_95_of_100_runs() -> None:
    f_NF = random_code(120, 0, rate=0.15, rows=100)
    runs = 120
    named = 0
    for seed in range(runs):
        labels = np.random.default_rng(seed).integers(2, size=100).tolist()
        named += bool(carried_by(f_NF, labels, permutations=100, seed=seed).carriers)
    assert named <= 0.05 * runs + 2 * (runs * 0.05 * 0.95) ** 0.5


def test_a_feature_of_one_lemma_is_not_taken_for_the_concept() -> None:
    """20 lemmas of 10 items, a class each: a feature that fires for 3 lemmas of one class looks strong item by item."""
    rng = np.random.default_rng(0)
    lemma_N = np.repeat(np.arange(20), 10)
    labels = (lemma_N % 2).tolist()
    f_NF = np.stack([np.isin(lemma_N, rng.choice(20, 3, replace=False)) for _ in range(100)], 1).astype(np.float32)
    assert carried_by(f_NF, labels).carriers
    assert not carried_by(f_NF, labels, clusters=lemma_N.tolist()).carriers
    f_NF[:, 0] = labels
    assert [c.feature for c in carried_by(f_NF, labels, clusters=lemma_N.tolist()).carriers] == [0]


def test_pairs_are_permuted_within() -> None:
    labels = [i % 2 for i in range(80)]
    pairs = [i // 2 for i in range(80)]
    f_NF = random_code(40, 0, rate=0.2, rows=80)
    f_NF[:, 3] = np.asarray(labels) * 2.0
    assert [c.feature for c in carried_by(f_NF, labels, clusters=pairs).carriers] == [3]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": [0, 1]}, "60 items but 2 labels"),
        ({"labels": [1] * 60}, "same label"),
        ({"clusters": [1]}, "60 items but 1 clusters"),
        ({"permutations": 3}, "at least 20"),
        ({"codes_NF": np.zeros((60, 0))}, "at least one feature"),
        ({"codes_NF": np.full((60, 2), np.nan)}, "NaN"),
    ],
)
def test_bad_input_is_refused(change: dict, says: str) -> None:
    given = {"codes_NF": random_code(4, 0, rows=60), "labels": [i % 2 for i in range(60)], **change}
    with pytest.raises(InputError, match=says):
        carried_by(given.pop("codes_NF"), given.pop("labels"), **given)


def test_a_form_of_a_lemmas_own_is_no_concept() -> None:
    """Each lemma's two forms differ in a way of its own, the same in all its sentences: items are many, lemmas are few."""
    wrong = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        lemma, label = np.repeat(np.arange(30), 16), np.tile(np.arange(2), 240)
        way_LF = rng.standard_normal((30, 2, 64))
        codes_NF = way_LF[lemma, label] + 0.2 * rng.standard_normal((480, 64))
        found = carried_by(codes_NF, label.tolist(), clusters=lemma.tolist(), permutations=100, seed=seed)
        wrong += bool(found.carriers)
    assert wrong <= 4  # 5 % of 20 runs is 1
