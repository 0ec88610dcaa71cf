"""The map of features: neighbourhoods survive, seeds repeat, small dictionaries work, clusters get the words they share."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from neuronmap.errors import InputError, MissingDependencyError
from neuronmap.features.directions.map import FeatureMap, _neighbours_shown, cluster_labels, feature_map
from neuronmap.features.directions.weights import nearest_rows
from neuronmap.progress import SilentProgress

GROUPS, EACH, D = 4, 20, 16


def grouped_rows() -> Tensor:
    """[80, 16]: four groups of twenty directions around four orthogonal ones."""
    generator = torch.Generator().manual_seed(0)
    centre_GD = torch.eye(D)[:GROUPS]
    noise = 0.08 * torch.randn(GROUPS, EACH, D, generator=generator)
    return (centre_GD[:, None] + noise).reshape(GROUPS * EACH, D)


def laid_out(rows_FD: Tensor, alive_F: np.ndarray | None = None, n: int = 20, seed: int = 0) -> FeatureMap:
    alive_F = np.ones(len(rows_FD), bool) if alive_F is None else alive_F
    near_FN, cosine_FN = nearest_rows(rows_FD, n, progress=SilentProgress())
    return feature_map(rows_FD, alive_F, near_FN, cosine_FN, seed, SilentProgress())


def test_groups_of_directions_are_groups_on_the_map_and_clusters() -> None:
    found = laid_out(grouped_rows())
    assert (found.method, found.note) == ("umap", "")
    assert found.x_F.dtype == found.y_F.dtype == np.float32
    assert found.cluster_F.dtype == np.int32
    place_GE2 = np.stack([found.x_F, found.y_F], axis=1).reshape(GROUPS, EACH, 2)
    centre_G2 = place_GE2.mean(axis=1)
    spread = np.linalg.norm(place_GE2 - centre_G2[:, None], axis=2).max()
    apart = min(np.linalg.norm(centre_G2[i] - centre_G2[j]) for i in range(GROUPS) for j in range(i))
    assert spread < apart
    np.testing.assert_allclose([found.x_F.mean(), found.y_F.mean()], 0.0, atol=1e-4)
    assert found.cluster_F.max() >= 1
    for cluster in range(found.cluster_F.max() + 1):
        members = np.flatnonzero(found.cluster_F == cluster)
        assert len(members) >= 5
        assert len(np.unique(members // EACH)) == 1  # no cluster spans two groups
    sizes = np.bincount(found.cluster_F[found.cluster_F >= 0])
    assert (np.diff(sizes) <= 0).all()


def test_a_seed_gives_the_same_map_and_another_seed_another() -> None:
    rows_FD = grouped_rows()
    first, again, other = laid_out(rows_FD, seed=3), laid_out(rows_FD, seed=3), laid_out(rows_FD, seed=4)
    np.testing.assert_array_equal(first.x_F, again.x_F)
    np.testing.assert_array_equal(first.y_F, again.y_F)
    np.testing.assert_array_equal(first.cluster_F, again.cluster_F)
    assert not np.array_equal(first.x_F, other.x_F)


def test_dead_features_and_rows_of_zeros_are_not_on_the_map() -> None:
    rows_FD = grouped_rows()
    rows_FD[50] = 0.0
    alive_F = np.ones(len(rows_FD), bool)
    alive_F[[0, 1, 33]] = False
    found = laid_out(rows_FD, alive_F)
    away = [0, 1, 33, 50]
    assert np.isnan(found.x_F[away]).all()
    assert np.isnan(found.y_F[away]).all()
    assert (found.cluster_F[away] == -1).all()
    assert np.isfinite(np.delete(found.x_F, away)).all()


@pytest.mark.parametrize("given", [0, 5, 20, 79])
def test_neighbours_on_the_map_are_the_nearest_living_ones_however_many_were_given(given: int) -> None:
    rows_FD = grouped_rows()
    shown_M = np.flatnonzero(np.random.default_rng(0).random(len(rows_FD)) < 0.6)
    unit_MD = torch.nn.functional.normalize(rows_FD[torch.from_numpy(shown_M)], dim=1)
    near_FN, cosine_FN = nearest_rows(rows_FD, given, progress=SilentProgress())
    near_MK, cosine_MK = _neighbours_shown(unit_MD, shown_M, near_FN, cosine_FN, SilentProgress())
    dense_MM = (unit_MD.double() @ unit_MD.double().T).numpy()
    np.fill_diagonal(dense_MM, -np.inf)
    expected_MK = np.argsort(-dense_MM, axis=1, kind="stable")[:, :14]
    np.testing.assert_array_equal(near_MK, expected_MK)
    np.testing.assert_allclose(cosine_MK, np.take_along_axis(dense_MM, expected_MK, 1), atol=1e-6)


@pytest.mark.parametrize("alive", [0, 1, 2, 3, 14])
def test_few_features_are_projected_and_the_note_says_so(alive: int) -> None:
    rows_FD = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    alive_F = np.arange(30) < alive
    found = laid_out(rows_FD, alive_F)
    assert found.method == ("pca" if alive else "none")
    assert found.note
    assert (found.cluster_F == -1).all()
    assert np.isfinite(found.x_F[alive_F]).all()
    assert np.isnan(found.x_F[~alive_F]).all()
    if alive > 2:
        unit_MD = torch.nn.functional.normalize(rows_FD[:alive], dim=1).numpy()
        expected = np.linalg.svd(unit_MD - unit_MD.mean(0))[1][:2]
        np.testing.assert_allclose(
            [np.linalg.norm(found.x_F[:alive]), np.linalg.norm(found.y_F[:alive])], expected, rtol=1e-4
        )


@pytest.mark.parametrize("dimensions", [1, 2, 16])
def test_directions_that_are_all_the_same_are_projected_too(dimensions: int) -> None:
    found = laid_out(torch.ones(16, dimensions))
    assert found.method == "pca"
    assert "differ too little" in found.note
    assert not found.x_F.any()
    assert not found.y_F.any()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_smallest_map_that_is_one(dimensions: int) -> None:
    found = laid_out(torch.randn(15, dimensions, generator=torch.Generator().manual_seed(0)))
    assert found.method == "umap"
    assert np.isfinite(found.x_F).all()
    assert np.isfinite(found.y_F).all()


def test_arrays_of_other_features_are_refused() -> None:
    rows_FD = grouped_rows()
    near_FN, cosine_FN = nearest_rows(rows_FD, 5, progress=SilentProgress())
    with pytest.raises(InputError, match=r"W_dec has 80 rows, alive 79, neighbours 80, cosines 80"):
        feature_map(rows_FD, np.ones(79, bool), near_FN, cosine_FN, 0, SilentProgress())


def test_without_umap_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingDependencyError, match="umap-learn") as caught:
        laid_out(grouped_rows())
    assert "pip install 'neuronmap[map]'" in str(caught.value)


def test_clusters_are_named_by_words_they_share_and_others_do_not() -> None:
    cluster_F = np.array([0, 0, 0, 1, 1, 2, 2, -1, -1], np.int32)
    words = [
        ["River", "the", "lake"],
        [" river ", "the"],
        ["river", "the", "boat"],
        ["tax", "the"],
        ["tax", "Tax"],
        ["left"],
        ["right"],
        ["the", "boat"],
        [],
    ]
    assert cluster_labels(cluster_F, words) == ["river", "tax", ""]
    # "river" is in 3 of 3 and in none of 5 outside: log2(1 / (1 / 6)) = 2.6; "the" in 3 of 3 and in 2 of 5: log2(1 / (3 / 6)) = 1.
    words[7] = ["boat"]  # now "the" is in 1 of 5: log2(1 / (2 / 6)) = 1.6
    assert cluster_labels(cluster_F, words)[0] == "river, the"
    assert cluster_labels(cluster_F, words, words=1)[0] == "river"
    assert cluster_labels(np.array([], np.int32), []) == []
    assert cluster_labels(np.array([-1, -1], np.int32), [["a"], ["a"]]) == []
    with pytest.raises(InputError, match="clusters of 9 features but words of 1"):
        cluster_labels(cluster_F, [["a"]])
