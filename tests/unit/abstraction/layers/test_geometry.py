"""Dimension, participation ratio, lengths and isotropy on data where they are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neuronmap.abstraction.layers.geometry import isotropy, mean_norm, participation_ratio, two_nn
from neuronmap.statistics.resampling import draw_clusters


def gaussian(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_two_nn_of_a_curved_manifold_in_many_dimensions(dimension: int) -> None:
    inside_Nd = torch.rand(1500, dimension, generator=torch.Generator().manual_seed(0))
    angles_Nd = inside_Nd * 2  # an arc in each plane: isometric to a box
    x_NW = torch.cat([angles_Nd.cos(), angles_Nd.sin()], dim=1) @ torch.linalg.qr(gaussian(40, 2 * dimension))[0].T
    found = two_nn(x_NW, weights_RC=draw_clusters(["all"] * 1500, 200, 0).weights_RG)
    assert found.value == pytest.approx(dimension, rel=0.12)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.3 * dimension


def test_equal_rows_count_once() -> None:
    x_NW = gaussian(300, 3)
    often_NW = x_NW.repeat(4, 1)
    assert two_nn(often_NW).value == pytest.approx(two_nn(x_NW).value, rel=1e-3)


def test_the_dimension_does_not_depend_on_scale_place_or_rotation() -> None:
    x_NW = gaussian(200, 4)
    moved_NW = 1000 * x_NW @ torch.linalg.qr(gaussian(4, 4, seed=1))[0] + 5000
    assert two_nn(moved_NW).value == pytest.approx(two_nn(x_NW).value, rel=1e-2)


def test_no_dimension_of_few_or_equally_distant_rows() -> None:
    few = two_nn(torch.eye(3)[torch.arange(60) % 3])
    assert (few.value, few.reason) == (None, "only 3 different rows")
    assert two_nn(torch.ones(50, 4)).value is None
    even = two_nn(torch.eye(50))
    assert even.value is None or even.value > 1e4


def test_participation_ratio_of_known_spectra() -> None:
    assert participation_ratio(gaussian(500, 576)) == pytest.approx(576, rel=0.15)  # 268 from the sample's eigenvalues
    one = participation_ratio(gaussian(400, 1) * torch.linspace(-2, 2, 30))
    assert one == pytest.approx(1, abs=0.02)
    # correlation r between all pairs of W dimensions: eigenvalues 1 + (W-1) r once, 1 - r otherwise
    r, width = 0.5, 20
    x_NW = math.sqrt(r) * gaussian(4000, 1, seed=2) + math.sqrt(1 - r) * gaussian(4000, width, seed=3)
    expected = width**2 / ((1 + (width - 1) * r) ** 2 + (width - 1) * (1 - r) ** 2)
    assert participation_ratio(x_NW * torch.logspace(-2, 2, width)) == pytest.approx(expected, rel=0.06)
    assert participation_ratio(torch.ones(30, 4)) is None


def test_mean_norm_and_isotropy() -> None:
    x_NW = gaussian(40, 6) + 0.5
    unit_NW = torch.nn.functional.normalize(x_NW.double(), dim=1)
    cosine_NN = unit_NW @ unit_NW.T
    expected = 1 - float(cosine_NN[~torch.eye(40, dtype=torch.bool)].mean())
    assert isotropy(x_NW) == pytest.approx(expected, abs=1e-9)
    assert isotropy(torch.ones(10, 3)) == pytest.approx(0.0, abs=1e-12)
    assert isotropy(torch.zeros(10, 3)) is None
    assert mean_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]])) == 2.5
