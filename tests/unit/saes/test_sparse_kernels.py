"""Selection and sparse products against their dense definitions, in float64 where values are compared.

Shapes: B rows, F features, D width, K = k.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuronmap.saes.kernels.select import (
    positive_above,
    select_positive,
    select_top_k,
    select_top_of_batch,
)
from neuronmap.saes.kernels.sparse import DENSE_FROM, DenseProducts, SparseCode, SparseProducts, products_of
from neuronmap.saes.workspace import Workspace


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_ties(*shape: int, seed: int = 0) -> Tensor:
    """Values from a handful of levels, so that every cut falls among equals; two rows are all zero or all equal."""
    values = (2 * numbers(*shape, seed=seed)).round() / 2
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
    counts = torch.bincount(code.row_N, minlength=code.num_rows)
    assert torch.equal(code.offset_R.diff(), counts)
    assert int(code.offset_R[-1]) == code.num_entries


# 600 and 4096 wide rows with k = 15 and 100 take the two-stage search, the others torch.topk.
SIZES = [(7, 33, 1), (7, 33, 5), (5, 600, 15), (3, 4096, 100), (1, 17, 16), (4, 12, 12), (9, 601, 20), (2, 3000, 40)]


@pytest.mark.parametrize("fill", [numbers, with_ties])
@pytest.mark.parametrize(("rows", "features", "k"), SIZES)
def test_top_k_keeps_the_k_largest_of_each_row_and_ties_go_to_the_lowest_feature(rows, features, k, fill):
    pre_BF = fill(rows, features)
    code = select_top_k(pre_BF, k)
    assert_well_formed(code)
    assert torch.equal(dense(code), top_k_by_definition(pre_BF, k))


@pytest.mark.parametrize("fill", [numbers, with_ties])
@pytest.mark.parametrize(("rows", "features", "k"), [*SIZES, (300, 64, 3), (300, 64, 40), (1000, 7, 1)])
def test_top_of_batch_keeps_the_bk_largest_and_ties_go_to_the_lowest_row_then_feature(rows, features, k, fill):
    pre_BF = fill(rows, features)
    code = select_top_of_batch(pre_BF, rows * k, Workspace())
    assert_well_formed(code)
    assert torch.equal(dense(code), top_of_batch_by_definition(pre_BF, rows * k))


def test_top_of_batch_does_not_depend_on_the_rows_its_guess_is_taken_from():
    """Evenly spaced rows are sampled: make exactly those misleading, high and then low."""
    pre_BF = numbers(1280, 50)
    for factor in (100.0, 0.01):
        misleading_BF = pre_BF.clone()
        misleading_BF[::20] *= factor
        code = select_top_of_batch(misleading_BF, 1280 * 4, Workspace())
        assert torch.equal(dense(code), top_of_batch_by_definition(misleading_BF, 1280 * 4))


def test_rows_searched_in_chunks_are_found_once_and_in_order(monkeypatch):
    monkeypatch.setattr("neuronmap.saes.kernels.select.CHUNK_ENTRIES", 100)
    pre_BF = numbers(23, 30)
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


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize(("rows", "features", "width"), [(6, 21, 5), (1, 40, 7), (50, 2500, 3)])
def test_products_equal_their_dense_definitions(kind, rows, features, width):
    pre_BF = numbers(rows, features, seed=1)
    pre_BF[0] = -1.0  # a row without entries; feature 3 has none either
    pre_BF[:, 3] = -1.0
    code = select_positive(pre_BF - 1.0)
    f_BF = dense(code)
    products = SparseProducts(code) if kind == "sparse" else DenseProducts(f_BF, Workspace(), "test")
    W_FD, source_BD = numbers(features, width, seed=2), numbers(rows, width, seed=3)
    gradient_BD = numbers(rows, width, seed=4)
    cut = features // 3
    for ranges in ([(0, features)], [(0, 3), (3, 4), (4, cut), (cut, features)]):
        for start, stop in ranges:
            xhat_BD = products.decode(W_FD, start, stop)
            torch.testing.assert_close(xhat_BD, f_BF[:, start:stop] @ W_FD[start:stop], rtol=0, atol=1e-12)
        for start, stop in ranges:
            products.pull_back(gradient_BD, W_FD, start, stop, 0.5)
        expected_BF = torch.where(f_BF > 0, 0.5 * gradient_BD @ W_FD.T, 0.0)
        torch.testing.assert_close(products.gradient_totals(), expected_BF.sum(dim=0), rtol=0, atol=1e-12)
        for make, matrix_BF in ((lambda: products.code_sums(3.0), 3.0 * f_BF), (products.gradient_sums, expected_BF)):
            write = make()
            for start, stop in ranges:
                out_FD = torch.full((stop - start, width), 9.0, dtype=torch.float64)
                write(source_BD, out_FD, start, stop)
                torch.testing.assert_close(out_FD, matrix_BF.T[start:stop] @ source_BD, rtol=0, atol=1e-12)
                out_DF = torch.full((width, stop - start), torch.nan, dtype=torch.float64)
                write(source_BD, out_DF.T, start, stop)
                torch.testing.assert_close(out_DF.T, out_FD, rtol=0, atol=1e-12)
    assert torch.equal(code.fired(), (f_BF > 0).sum(0))


def test_the_way_of_computing_follows_the_density():
    few, many = select_top_k(numbers(8, 64), 64 // DENSE_FROM // 2), select_top_k(numbers(8, 64).abs(), 48)
    assert isinstance(products_of(few, Workspace(), "few"), SparseProducts)
    assert isinstance(products_of(many, Workspace(), "many"), DenseProducts)


def test_float32_products_are_the_same_bits_with_one_thread_and_two():
    """Gradients must not depend on how work is cut up: a resumed run repeats every bit."""
    threads = torch.get_num_threads()
    code = select_top_k(numbers(512, 1024, dtype=torch.float32), 16)
    W_FD, source_BD = numbers(1024, 48, seed=2, dtype=torch.float32), numbers(512, 48, seed=3, dtype=torch.float32)
    found = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            products = SparseProducts(code)
            xhat_BD = products.decode(W_FD, 0, 1024)
            products.pull_back(source_BD, W_FD, 0, 1024, 1.0)
            out_FD = torch.empty(1024, 48)
            products.gradient_sums()(source_BD, out_FD, 0, 1024)
            found.append((xhat_BD, out_FD, products.gradient_totals()))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))
