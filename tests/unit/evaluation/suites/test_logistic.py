"""The Newton probe against scikit-learn's, which minimises the same."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from neuronmap.evaluation.suites.logistic import fit_logistic


@pytest.mark.parametrize(("items", "columns"), [(200, 3), (40, 90)])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_it_finds_the_optimum_of_scikit_learn(items: int, columns: int, strength: float, balanced: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(items, columns))
    positive = x[:, 0] + rng.normal(size=items) > 0.7
    reference = LogisticRegression(
        C=strength, tol=1e-10, max_iter=5000, class_weight="balanced" if balanced else None
    ).fit(x, positive)
    found = fit_logistic(x, positive, strength, balanced=balanced)
    scale = np.abs(reference.coef_[0]).max()
    assert np.abs(found.weights_K - reference.coef_[0]).max() < 1e-4 * scale
    assert found.log_odds(x) == pytest.approx(reference.decision_function(x), abs=2e-4 * max(1.0, scale))


def test_separable_classes_and_constant_columns_are_no_trouble() -> None:
    x = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    found = fit_logistic(x, np.array([False, False, True, True]), 1e6)
    assert np.isfinite(found.weights_K).all()
    assert ((found.log_odds(x) > 0) == [False, False, True, True]).all()
