"""The N largest of a row, with ties settled, against a stable sort of the whole row."""

from __future__ import annotations

import pytest
import torch

from neuronmap.features.directions.ranking import largest


@pytest.mark.parametrize("width", [1, 7, 130, 2000, 6001])
@pytest.mark.parametrize("levels", [2, 30, 1_000_000])
def test_equals_a_stable_sort(width: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(width + levels)
    values_BV = torch.randint(-levels, levels, (9, width), generator=generator).float()
    values_BV[3] = 0.0
    values_BV[4, : width // 2] = -torch.inf
    for n in {0, 1, min(5, width), min(20, width), width}:
        value_BN, column_BN = largest(values_BV, n)
        expected_BV, order_BV = torch.sort(values_BV, dim=1, descending=True, stable=True)
        assert torch.equal(column_BN, order_BV[:, :n])
        assert torch.equal(value_BN, expected_BV[:, :n])
