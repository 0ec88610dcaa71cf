"""Rows in memory, and statistics in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuronmap.activations import ArrayRows, RowStatistics
from neuronmap.activations.rows import statistics_of
from neuronmap.errors import InputError


def test_statistics_agree_with_numpy_in_float64() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(10_000, 7)).astype(np.float32)
    found = statistics_of([torch.from_numpy(x)], 7)
    wide = x.astype(np.float64)
    assert found.rows == 10_000
    np.testing.assert_allclose(found.mean_D.numpy(), wide.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.variance_D.numpy(), wide.var(0), rtol=1e-12)
    assert found.mean_square_norm == pytest.approx((wide**2).sum(1).mean(), rel=1e-13)


def test_statistics_of_parts_merge_to_those_of_the_whole() -> None:
    x = torch.randn(5000, 4, generator=torch.Generator().manual_seed(1)) + 1000.0  # mean far above the spread
    whole = statistics_of([x], 4)
    merged = RowStatistics.empty(4)
    for part in x.split([1, 1700, 0, 3299]):
        merged = merged.merge(statistics_of([part], 4))
    assert merged.rows == 5000
    torch.testing.assert_close(merged.mean_D, whole.mean_D, rtol=1e-14, atol=0)
    torch.testing.assert_close(merged.variance_D, whole.variance_D, rtol=1e-9, atol=0)
    torch.testing.assert_close(whole.variance_D, x.double().var(0, correction=0), rtol=1e-9, atol=0)


def test_statistics_of_no_rows_are_zero_not_nan() -> None:
    empty = RowStatistics.empty(3)
    assert empty.mean_square_norm == 0.0
    assert empty.merge(empty).rows == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_arrays_of_any_real_dtype_can_be_read(dtype: type) -> None:
    x = np.arange(12).reshape(4, 3).astype(dtype)
    rows = ArrayRows(x)
    assert (rows.num_rows, rows.width) == (4, 3)
    out = torch.empty(2, 3, dtype=torch.float32)
    assert rows.read(1, 3, out=out) is out
    assert out.tolist() == [[3, 4, 5], [6, 7, 8]]


def test_read_only_and_foreign_byte_order_arrays_are_accepted() -> None:
    x = np.ones((2, 2), ">f4")
    x.flags.writeable = False
    assert ArrayRows(x).read(0, 2).tolist() == [[1, 1], [1, 1]]


def test_what_was_read_can_be_changed_without_changing_the_source() -> None:
    rows = ArrayRows(torch.ones(3, 2))
    rows.read(0, 3).mul_(5)
    assert rows.read(0, 3).tolist() == [[1, 1]] * 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_rows_are_refused_with_count_and_first_row(bad: float) -> None:
    x = torch.zeros(9000, 3)
    x[5000, 1] = bad
    x[8000, 2] = bad
    with pytest.raises(InputError, match=r"2 of 9,000 .*first is row 5000"):
        ArrayRows(x)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (torch.zeros(0, 3), "no activation rows"),
        (torch.zeros(3, 0), "no activation rows"),
        (torch.zeros(3), "matrix"),
        (torch.zeros(2, 3, 4), r"\(2, 3, 4\)"),
        (torch.zeros(2, 2, dtype=torch.complex64), "real"),
        (np.array([["a"]]), "real numbers"),
        ([[1.0]], "list"),
        (np.full((2, 2), 1e300), "infinity"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_unusable_arrays_are_refused_with_the_reason(rows: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        ArrayRows(rows)  # type: ignore[arg-type]


def test_digest_follows_content_shape_and_dtype() -> None:
    x = torch.arange(12.0).reshape(4, 3)
    digests = [ArrayRows(y).digest for y in (x, x + 1, x.reshape(3, 4), x.half())]
    assert len(set(digests)) == 4
    assert ArrayRows(x.clone()).digest == digests[0]


def test_rows_outside_the_array_are_refused() -> None:
    with pytest.raises(InputError, match="0 to 4"):
        ArrayRows(torch.zeros(4, 3)).read(2, 5)
