"""Selection among pre-activations that are there: exact, whatever the values.

Shapes: B rows, F = d_sae.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.native.backend import NativeKernels
from neuronmap.saes.kernels.native.library import load_engine
from neuronmap.saes.kernels.portable import TorchKernels
from neuronmap.saes.kernels.protocol import Encoder, Kernels
from neuronmap.saes.kernels.select import positive_above, select_top_k, select_top_of_batch
from neuronmap.saes.workspace import Workspace


def randoms(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_ties(*shape: int, seed: int = 0) -> Tensor:
    """Values from a handful of levels, so that every cut falls among equals; two rows are all zero or all equal."""
    values = (2 * randoms(*shape, seed=seed)).round() / 2
    values[0] = 0.0
    values[-1] = 1.5
    return values


def dense(code: SparseCode) -> Tensor:
    return code.dense(code.value_N, torch.empty(code.num_rows, code.num_features, dtype=code.value_N.dtype))


def top_k_by_definition(pre_BF: Tensor, k: int) -> Tensor:
    """Sort stably (ties stay in order of their index), keep the first k, apply the ReLU."""
    first = torch.sort(pre_BF, dim=1, descending=True, stable=True).indices[:, :k]
    kept = torch.zeros_like(pre_BF, dtype=torch.bool).scatter_(1, first, True)
    return torch.where(kept, pre_BF, 0.0).relu()


def top_of_batch_by_definition(pre_BF: Tensor, count: int) -> Tensor:
    return top_k_by_definition(pre_BF.reshape(1, -1), count).view_as(pre_BF)


def assert_well_formed(code: SparseCode) -> None:
    assert bool((code.value_N > 0).all())
    assert bool((code.row_N.diff() >= 0).all())
    assert torch.equal(code.offset_R.diff(), torch.bincount(code.row_N, minlength=code.num_rows))
    assert int(code.offset_R[-1]) == code.num_entries


# 600 and 4096 wide rows with k = 15 and 100 take the two-stage search, the others torch.topk.
SIZES = [(7, 33, 1), (7, 33, 5), (5, 600, 15), (3, 4096, 100), (1, 17, 16), (4, 12, 12), (9, 601, 20), (2, 3000, 40)]


@pytest.mark.parametrize("fill", [randoms, with_ties])
@pytest.mark.parametrize(("rows", "features", "k"), SIZES)
def test_top_k_keeps_the_k_largest_of_each_row_and_ties_go_to_the_lowest_feature(rows, features, k, fill):
    pre_BF = fill(rows, features)
    code = select_top_k(pre_BF, k)
    assert_well_formed(code)
    assert torch.equal(dense(code), top_k_by_definition(pre_BF, k))


@pytest.mark.parametrize("fill", [randoms, with_ties])
@pytest.mark.parametrize(("rows", "features", "k"), [*SIZES, (300, 64, 3), (300, 64, 40), (1000, 7, 1)])
def test_top_of_batch_keeps_the_bk_largest_and_ties_go_to_the_lowest_row_then_feature(rows, features, k, fill):
    pre_BF = fill(rows, features)
    code = select_top_of_batch(pre_BF, rows * k, Workspace())
    assert_well_formed(code)
    assert torch.equal(dense(code), top_of_batch_by_definition(pre_BF, rows * k))


def test_top_of_batch_does_not_depend_on_the_rows_its_guess_is_taken_from():
    """Evenly spaced rows are sampled: make exactly those misleading, high and then low."""
    pre_BF = randoms(1280, 50)
    for factor in (100.0, 0.01):
        misleading_BF = pre_BF.clone()
        misleading_BF[::20] *= factor
        code = select_top_of_batch(misleading_BF, 1280 * 4, Workspace())
        assert torch.equal(dense(code), top_of_batch_by_definition(misleading_BF, 1280 * 4))


def test_the_torch_backend_finds_the_same_when_its_sample_misleads(monkeypatch):
    """It samples rows before the first chunk; identity weights make the pre-activations what is wanted."""
    monkeypatch.setattr("neuronmap.saes.kernels.portable.CHUNK_ENTRIES", 1)
    monkeypatch.setattr("neuronmap.saes.kernels.portable.LEAST_ROWS", 100)
    pre_BF = randoms(1280, 20)
    for factor in (100.0, 0.01):
        misleading_BF = pre_BF.clone()
        misleading_BF[::20] *= factor
        encoder = Encoder(misleading_BF, torch.eye(20, dtype=torch.float64).T, torch.zeros(20, dtype=torch.float64))
        code = TorchKernels(Workspace()).encode_top_of_batch(encoder, 1280 * 2).code
        assert torch.equal(dense(code), top_of_batch_by_definition(misleading_BF, 1280 * 2))


def test_rows_searched_in_chunks_are_found_once_and_in_order(monkeypatch):
    monkeypatch.setattr("neuronmap.saes.kernels.select.CHUNK_ENTRIES", 100)
    pre_BF = randoms(23, 30)
    flat_N, value_N = positive_above(pre_BF, 0.5, Workspace())
    assert torch.equal(flat_N, torch.nonzero(pre_BF.view(-1) > 0.5).view(-1))
    assert torch.equal(value_N, pre_BF.view(-1)[flat_N])


@pytest.mark.parametrize("select", [lambda p: select_top_k(p, 3), lambda p: select_top_of_batch(p, 15, Workspace())])
def test_nothing_positive_gives_an_empty_code(select):
    for pre_BF in (torch.zeros(5, 8), -torch.ones(5, 8)):
        code = select(pre_BF)
        assert code.num_entries == 0
        assert_well_formed(code)


def test_selection_of_no_rows_is_empty():
    assert select_top_k(torch.empty(0, 8), 3).num_entries == 0


# --- any values at all ------------------------------------------------------------------------------------------------


@st.composite
def matrices(draw: st.DrawFn, *, products: bool) -> tuple[Tensor, int]:
    """A matrix of float32 numbers and a k from 1 to its width. Few distinct values, or any.

    With ``products`` the values survive a product with the identity: none is infinite or subnormal.
    """
    rows, features = draw(st.integers(1, 6)), draw(st.integers(1, 150))
    numbers = st.floats(width=32, allow_nan=False, allow_infinity=not products, allow_subnormal=not products)
    value = draw(st.sampled_from([numbers, st.sampled_from(draw(st.lists(numbers, min_size=1, max_size=4)))]))
    values = draw(st.lists(value, min_size=rows * features, max_size=rows * features))
    return torch.tensor(values, dtype=torch.float32).view(rows, features), draw(st.integers(1, features))


def all_kernels() -> list[Kernels]:
    engine = load_engine()
    return [TorchKernels(Workspace()), *([] if engine is None else [NativeKernels(Workspace(), engine)])]


@settings(deadline=None, max_examples=150)
@given(matrices(products=False))
def test_any_row_gives_its_k_largest(case):
    pre_BF, k = case
    expected_BF = top_k_by_definition(pre_BF, k)
    for kernels in all_kernels():
        code = kernels.top_k_of(pre_BF, k)
        assert_well_formed(code)
        assert torch.equal(dense(code), expected_BF)
        assert torch.equal(kernels.keep_top_k(pre_BF.clone(), k), expected_BF)


@settings(deadline=None, max_examples=150)
@given(matrices(products=True), st.integers(1, 900), st.floats(0.001, 1000.0))
def test_any_batch_gives_its_largest_whatever_the_batch_before(case, count, factor):
    pre_BF, k = case
    rows, features = pre_BF.shape
    identity_FF, zeros_F = torch.eye(features), torch.zeros(features)
    expected_BF = top_of_batch_by_definition(pre_BF, min(count, rows * features))
    for kernels in all_kernels():
        before_BF = torch.randn(rows, features, generator=torch.Generator().manual_seed(0)) * factor
        kernels.encode_top_of_batch(Encoder(before_BF, identity_FF.T, zeros_F), k)
        for _ in range(2):
            code = kernels.encode_top_of_batch(Encoder(pre_BF, identity_FF.T, zeros_F), count).code
            assert_well_formed(code)
            assert torch.equal(dense(code), expected_BF)
