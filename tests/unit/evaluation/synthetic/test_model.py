"""Rows are drawn by the law that is configured, the same ones however they are asked for."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from neuronmap.errors import ConfigError, DamagedError, InputError
from neuronmap.evaluation.synthetic import (
    PRESETS,
    Correlation,
    Firing,
    Hierarchy,
    Magnitudes,
    SyntheticConfig,
    SyntheticModel,
    synthetic_preset,
)
from neuronmap.evaluation.synthetic.model import BLOCK_ROWS, overlaps

SMALL = SyntheticConfig(d_in=8, features=12, orthogonal_steps=0, firing=Firing(exponent=1.0, p_max=0.5, p_min=0.05))
TREES = SMALL.updated(
    d_in=16,
    features=24,
    hierarchy=Hierarchy(roots=2, branching=3, depth=2, compensate=False),
    firing=Firing(law="constant", p_max=0.4),
)
ROWS = 40 * BLOCK_ROWS


def fires(model: SyntheticModel, rows: int = ROWS) -> torch.Tensor:
    return model.sample(0, rows)[1].dense() > 0


def within_binomial_error(rate: torch.Tensor, expected: torch.Tensor, rows: int) -> bool:
    """4.5 standard errors: all of some dozens of features stay inside with probability 0.9997."""
    error = (expected * (1 - expected) / rows).sqrt() + 1e-9
    return bool(((rate - expected).abs() < 4.5 * error).all())


def test_features_fire_as_often_as_configured() -> None:
    model = SyntheticModel.from_config(SMALL)
    assert model.base_G[0] == 0.5
    assert model.base_G[-1] == pytest.approx(0.05)
    assert bool((model.base_G.diff() < 0).all())
    assert within_binomial_error(fires(model).double().mean(0), model.base_G.double(), ROWS)


def test_independent_features_are_uncorrelated_and_correlated_ones_agree_with_the_copula() -> None:
    config = SMALL.updated(features=6, firing=Firing(law="constant", p_max=0.3))
    independent = torch.corrcoef(fires(SyntheticModel.from_config(config)).double().T)
    assert (independent - torch.eye(6)).abs().max() < 4.5 / math.sqrt(ROWS)

    model = SyntheticModel.from_config(config.updated(correlation=Correlation(rank=2, scale=0.6)))
    on = fires(model).double()
    assert within_binomial_error(on.mean(0), model.base_G.double(), ROWS), "the copula keeps each one's probability"
    latent = (model.factor_GR @ model.factor_GR.T).double()
    threshold = float(model._threshold_G[0])
    for a, b in itertools.combinations(range(6), 2):
        covariance = [[1.0, float(latent[a, b])], [float(latent[a, b]), 1.0]]
        both = float(multivariate_normal([0.0, 0.0], covariance).cdf([-threshold, -threshold]))
        found = float((on[:, a] * on[:, b]).mean())
        assert abs(found - both) < 4.5 * math.sqrt(both * (1 - both) / ROWS) + 1e-4
    assert latent.fill_diagonal_(0).abs().max() > 0.3, "the test would pass without correlation otherwise"


def test_no_child_fires_without_its_parent_and_no_two_siblings_together() -> None:
    model = SyntheticModel.from_config(TREES)
    assert model.parent_G.tolist() == [-1, -1, 0, 0, 0, 1, 1, 1, *np.repeat(range(2, 8), 3)[:16].tolist()]
    on = fires(model, 8 * BLOCK_ROWS)
    children = torch.nonzero(model.parent_G >= 0).view(-1)
    assert not bool((on[:, children] & ~on[:, model.parent_G[children]]).any())
    families = torch.zeros(len(on), 24, dtype=torch.int64).index_add_(
        1, model.parent_G[children], on[:, children].long()
    )
    assert int(families.max()) == 1
    assert int(on[:, 8:].sum()) > 100, "grandchildren fire too"


def test_exclusive_children_fire_as_often_as_drawing_one_at_random_says() -> None:
    on = fires(SyntheticModel.from_config(TREES)).double()
    p = 0.4
    # a child wins against b others that would fire, with probability 1 / (1 + b)
    wins = p * sum(math.comb(2, b) * p**b * (1 - p) ** (2 - b) / (1 + b) for b in range(3))
    expected = torch.tensor([p] * 2 + [p * wins] * 6 + [p * wins * wins] * 15, dtype=torch.float64)
    assert within_binomial_error(on.mean(0)[:23], expected, ROWS)


def test_children_together_when_they_do_not_exclude_each_other() -> None:
    hierarchy = Hierarchy(roots=2, branching=3, depth=2, exclusive=False, child_probability=0.5)
    on = fires(SyntheticModel.from_config(TREES.updated(hierarchy=hierarchy))).double()
    expected = torch.tensor([0.4] * 2 + [0.2] * 6 + [0.1] * 16, dtype=torch.float64)
    assert within_binomial_error(on.mean(0), expected, ROWS)


def test_compensated_children_fire_about_as_often_as_the_law_says() -> None:
    config = TREES.updated(
        firing=Firing(exponent=1.0, p_max=0.4, p_min=0.005), hierarchy=Hierarchy(roots=2, branching=2, depth=1)
    )
    model = SyntheticModel.from_config(config)
    rate = fires(model).double().mean(0)
    plain = fires(
        SyntheticModel.from_config(config.updated(hierarchy=Hierarchy(roots=2, branching=2, depth=1, compensate=False)))
    )
    own = model.base_G.double()
    assert ((rate[2:4] - own[2:4]).abs() / own[2:4]).max() < 0.25
    assert bool((plain.double().mean(0)[2:4] < 0.5 * own[2:4]).all())


def test_magnitudes_have_the_means_and_spreads_that_were_drawn() -> None:
    magnitudes = Magnitudes(mean_first=5.0, mean_last=4.0, spread_mean=0.5, spread_std=0.5)
    model = SyntheticModel.from_config(SMALL.updated(magnitudes=magnitudes))
    value_NG = model.sample(0, ROWS)[1].dense().double()
    for feature in range(12):
        value = value_NG[:, feature][value_NG[:, feature] > 0]
        assert (
            abs(float(value.mean() - model.mean_G[feature]))
            < 5 * float(model.std_G[feature]) / math.sqrt(len(value)) + 1e-6
        )
        assert float(value.std()) == pytest.approx(float(model.std_G[feature]), rel=0.1, abs=1e-4)
    assert model.mean_G[0] == 5
    assert model.mean_G[-1] == 4


def test_a_child_scaled_by_its_parent_has_its_parents_share() -> None:
    hierarchy = Hierarchy(roots=2, branching=2, depth=1, child_probability=0.5, scale_by_parent=True)
    model = SyntheticModel.from_config(
        SMALL.updated(hierarchy=hierarchy, magnitudes=Magnitudes(mean_first=2.0, mean_last=2.0, spread_mean=0.3))
    )
    value = model.sample(0, ROWS)[1].dense()
    both = value[:, 2] > 0
    parent, child = value[both, 0], value[both, 2]
    assert torch.corrcoef(torch.stack([parent, child]))[0, 1] == pytest.approx(1 / math.sqrt(2 + 0.15**2), abs=0.05)


def test_a_row_is_the_sum_of_its_features_plus_bias_plus_noise() -> None:
    config = SMALL.updated(bias_norm=3.0)
    model = SyntheticModel.from_config(config)
    x, truth = model.sample(0, 3000)
    assert model.bias_D.norm() == pytest.approx(3.0)
    assert torch.allclose(x, truth.dense() @ model.dictionary_GD + model.bias_D, atol=1e-5)
    noisy = SyntheticModel.from_config(config.updated(noise_std=0.5))
    x, truth = noisy.sample(0, 3000)
    assert float((x - noisy.compose(truth)).std()) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("name", ["tiny", "correlated", "hierarchy"])
def test_any_range_of_rows_is_the_same_whatever_is_asked_for_with_it(name: str) -> None:
    model = SyntheticModel.from_config(synthetic_preset(name))
    whole, truth = model.sample(0, 3000)
    pieces = [model.sample(start, stop) for start, stop in itertools.pairwise([0, 1, 700, 1024, 1025, 2900, 3000])]
    assert torch.equal(torch.cat([x for x, _ in pieces]), whole)
    assert torch.equal(torch.cat([part.dense() for _, part in pieces]), truth.dense())
    again = SyntheticModel.from_config(synthetic_preset(name))
    assert torch.equal(again.sample(2000, 2100)[0], whole[2000:2100])
    assert not torch.equal(model.sample(0, 3000, "other")[0], whole)
    assert not torch.equal(SyntheticModel.from_config(synthetic_preset(name, seed=1)).sample(0, 3000)[0], whole)


def test_directions_are_of_unit_length_and_pushed_apart() -> None:
    random = SyntheticModel.from_config(synthetic_preset("tiny", orthogonal_steps=0)).dictionary_GD
    apart = SyntheticModel.from_config(synthetic_preset("tiny")).dictionary_GD
    assert torch.allclose(apart.norm(dim=1), torch.ones(64), atol=1e-6)
    frame = (
        apart.T @ apart
    )  # 64 directions of 32 dimensions, as far apart as they can be, are a tight frame: 2 times the identity
    assert torch.allclose(frame, 2 * torch.eye(32), atol=0.05)
    assert overlaps(apart).mean() < overlaps(random).mean() - 0.05
    few = SyntheticModel.from_config(SyntheticConfig(d_in=16, features=16)).dictionary_GD
    assert overlaps(few).max() < 0.01


def test_the_published_settings_have_their_published_l0() -> None:
    model = SyntheticModel.from_config(synthetic_preset("synthsae-16k", d_in=8, orthogonal_steps=0))
    truth = model.sample(0, 4 * BLOCK_ROWS)[1]
    assert truth.feature_E.numel() / truth.num_rows == pytest.approx(34, abs=1)
    assert int((model.parent_G >= 0).sum()) == 4 * 128 + 16 * 128 + 64 * 128


@pytest.mark.parametrize("name", ["synthsae-2k", "synthsae-4k"])
def test_the_small_versions_have_the_interference_of_the_published_one(name: str) -> None:
    model = SyntheticModel.from_config(synthetic_preset(name, orthogonal_steps=0))
    truth = model.sample(0, 8 * BLOCK_ROWS)[1]
    l0 = truth.feature_E.numel() / truth.num_rows
    assert math.sqrt(l0 / model.config.d_in) == pytest.approx(math.sqrt(34.5 / 768), abs=0.005)


def test_a_saved_model_is_the_same_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    model = SyntheticModel.from_config(synthetic_preset("hierarchy"))
    model.save(tmp_path / "a")
    loaded = SyntheticModel.load(tmp_path / "a")
    assert loaded.config == model.config
    assert loaded.digest == model.digest
    assert torch.equal(loaded.sample(0, 100)[0], model.sample(0, 100)[0])
    SyntheticModel.from_config(synthetic_preset("tiny")).save(tmp_path / "b")
    (tmp_path / "b" / "truth.safetensors").replace(tmp_path / "a" / "truth.safetensors")
    with pytest.raises(DamagedError, match="digest differs"):
        SyntheticModel.load(tmp_path / "a")
    (tmp_path / "a" / "truth.safetensors").write_bytes(b"nothing")
    with pytest.raises(DamagedError, match="cannot be read"):
        SyntheticModel.load(tmp_path / "a")
    with pytest.raises(InputError, match="no synthetic model"):
        SyntheticModel.load(tmp_path)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"p_min = 0\.5 is above p_max = 0\.2"):
        Firing(p_max=0.2, p_min=0.5)
    with pytest.raises(ConfigError, match="65 roots, but there are 64 features"):
        synthetic_preset("tiny", hierarchy=Hierarchy(roots=65))
    with pytest.raises(ConfigError, match=r"no synthetic model 'tini'") as caught:
        synthetic_preset("tini")
    assert "tiny" in caught.value.hint
    with pytest.raises(InputError, match="counted from 0"):
        SyntheticModel.from_config(SMALL).sample(5, 5)
    assert all(SyntheticConfig.from_dict(preset.to_dict()) == preset for preset in PRESETS.values())


def test_settings_and_records_are_read_without_torch() -> None:
    code = "import sys, neuronmap.evaluation.synthetic as s; s.PRESETS, s.GroundTruth; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
