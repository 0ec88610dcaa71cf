"""The search by groups of features: ties between and within groups, rows wider than a tile, more wanted than there are groups."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from neuronmap.saes.kernels.select import select_top_k
from neuronmap.saes.workspace import Workspace

if find_spec("triton") is None:
    pytest.skip("triton is not installed; it is there for Linux on x86-64", allow_module_level=True)

from neuronmap.saes.kernels.triton.search import GROUP, TopK

ROWS, FEATURES = 5, 17 * GROUP + 7


def found(pre_BF: Tensor, k: int) -> Tensor:
    """What the search keeps of pre-activations, as a matrix."""
    search = TopK(Workspace(), len(pre_BF), k, pre_BF)
    search.add(pre_BF, torch.zeros(pre_BF.shape[1]), 0)
    code = search.code(pre_BF.shape[1])
    return code.dense(code.value_N, torch.empty_like(pre_BF))


def expected(pre_BF: Tensor, k: int) -> Tensor:
    """The same by torch's own selection."""
    code = select_top_k(pre_BF, k)
    return code.dense(code.value_N, torch.empty_like(pre_BF))


@pytest.mark.parametrize("columns", [16, 8192])
@pytest.mark.parametrize("levels", [3, 10**6])
@pytest.mark.parametrize("k", [6, 64])
def test_the_largest_of_each_row_are_found(k: int, levels: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few levels make most peaks equal; 16 columns make a row wider than a tile."""
    monkeypatch.setattr("neuronmap.saes.kernels.triton.tiles.INTERPRETED_COLUMNS", columns)
    generator = torch.Generator().manual_seed(k)
    pre_BF = torch.randint(-levels, levels, (ROWS, FEATURES), generator=generator).float()
    pre_BF[1] = -1.0  # nothing is positive
    pre_BF[2] = 1.0  # everything is the same
    pre_BF[3, :] = 0.0
    pre_BF[3, -1] = 2.0  # one entry, in the group that is not full
    assert torch.equal(found(pre_BF, k), expected(pre_BF, k))


def test_one_group_may_hold_all_that_is_wanted() -> None:
    pre_BF = torch.rand(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))
    pre_BF[:, 3 * GROUP : 4 * GROUP] += 1.0
    assert torch.equal(found(pre_BF, GROUP), expected(pre_BF, GROUP))
    assert found(pre_BF, GROUP)[:, 3 * GROUP : 4 * GROUP].gt(0).all()
