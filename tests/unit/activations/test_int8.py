"""int8 rows: one scale a row, what that may cost, and that everything that reads rows works on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from token_sets import Notes, PlainTokens

from neuronmap.activations import ActivationStore, ShuffledBatches, harvest
from neuronmap.activations.shards import FORMATS
from neuronmap.models import LanguageModel, resolve_hook

INT8 = FORMATS["int8"]


def test_a_value_is_off_by_half_a_scale_at_most_and_the_largest_is_exact() -> None:
    x_NW = torch.randn(200, 48, generator=torch.Generator().manual_seed(0)) * torch.logspace(-20, 20, 200).unsqueeze(1)
    values_NW, scale_N = INT8.encode(x_NW)
    assert (values_NW.dtype, scale_N.dtype) == (torch.int8, torch.float32)
    assert torch.equal(scale_N, x_NW.abs().amax(1) / 127)
    read_NW = INT8.rounded(x_NW)
    assert ((read_NW - x_NW).abs() <= scale_N.unsqueeze(1) * 0.5001).all()
    largest = x_NW.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(read_NW.gather(1, largest), x_NW.gather(1, largest), rtol=3e-7, atol=0)


def test_the_error_is_that_of_uniform_rounding() -> None:
    """A step of s rounds with variance s²/12 (Bennett 1948), in all values of a row but the largest, which is exact."""
    x_NW = torch.randn(2000, 64, generator=torch.Generator().manual_seed(1))
    error = float((INT8.rounded(x_NW) - x_NW).double().square().sum() / x_NW.double().square().sum())
    scale_N = x_NW.abs().amax(1) / 127
    assert error == pytest.approx(float((scale_N.square() / 12).mean()) * 63 / 64, rel=0.01)


def test_zeros_and_the_smallest_numbers_stay_finite() -> None:
    x_NW = torch.zeros(3, 4)
    x_NW[1, 2] = 1e-45  # a denormal whose scale is zero in float32
    x_NW[2] = torch.tensor([3e38, -3e38, 1.0, 0.0])
    values_NW, scale_N = INT8.encode(x_NW)
    assert values_NW[0].tolist() == [0, 0, 0, 0]
    assert INT8.rounded(x_NW).isfinite().all()
    assert values_NW[2].tolist() == [127, -127, 0, 0]
    assert scale_N[0] == 0
    assert [part.shape for part in INT8.encode(torch.empty(0, 4))] == [(0, 4), (0,)]


@pytest.fixture
def stores(model: LanguageModel, tokens: PlainTokens, tmp_path: Path) -> dict[str, ActivationStore]:
    hook = resolve_hook(model, 1)
    return {
        name: harvest(model, tokens, [hook], root=tmp_path, dtype=name, shard_rows=50)[hook.name]  # type: ignore[arg-type]
        for name in ("float32", "int8")
    }


def test_a_store_reads_as_float32_what_the_rows_round_to(stores: dict[str, ActivationStore]) -> None:
    exact, store = stores["float32"], stores["int8"]
    rows = exact.num_rows
    expected_NW = INT8.rounded(exact.read(0, rows))
    assert store.dtype == torch.float32
    assert torch.equal(store.read(0, rows), expected_NW)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        out_NW = torch.empty(rows, store.width, dtype=dtype)
        torch.testing.assert_close(
            store.read(0, rows, out=out_NW).float(), expected_NW, rtol=2 * torch.finfo(dtype).eps, atol=1e-6
        )
    for mine, theirs in zip(store.provenance(0, rows), exact.provenance(0, rows), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_manifest_says_so_and_older_readers_refuse_it(stores: dict[str, ActivationStore]) -> None:
    exact, store = stores["float32"], stores["int8"]
    assert (exact.manifest["version"], store.manifest["version"]) == (1, 2)
    assert exact.digest != store.digest
    assert store.manifest["dtype"] == "int8"
    assert set(store.manifest["shards"][0]) == {"rows", "rows_sha256", "scales_sha256", "index_sha256"}
    everything = exact.read(0, exact.num_rows).double()
    error = (store.read(0, store.num_rows).double() - everything).square().sum() / everything.square().sum()
    assert store.manifest["rounding_error"] == pytest.approx(float(error), rel=0.01)
    files = {file.name: file.stat().st_size for file in store.path.glob("*.bin")}
    assert sum(files.values()) == store.num_rows * INT8.row_bytes(store.width) == store.num_rows * (store.width + 20)


def test_statistics_are_those_of_the_rows_as_they_are_read(stores: dict[str, ActivationStore]) -> None:
    store = stores["int8"]
    x = store.read(0, store.num_rows).double()
    torch.testing.assert_close(store.statistics.mean_D, x.mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(store.statistics.variance_D, x.var(0, correction=0), rtol=1e-11, atol=0)


def test_shuffled_batches_hold_each_row_once_in_the_order_of_any_other_store(
    stores: dict[str, ActivationStore],
) -> None:
    exact, store = stores["float32"], stores["int8"]
    rounded_NW = INT8.rounded(exact.read(0, exact.num_rows))
    with (
        ShuffledBatches(exact, 40, seed=3, bucket_rows=128) as one,
        ShuffledBatches(store, 40, seed=3, bucket_rows=128) as two,
    ):
        for _ in range(12):
            row_BW = next(one)
            assert torch.equal(next(two), INT8.rounded(row_BW))
    assert len(rounded_NW.unique(dim=0)) == store.num_rows


def test_auto_never_chooses_it(model: LanguageModel, tokens: PlainTokens, notes: Notes) -> None:
    hook = resolve_hook(model, 0)
    assert harvest(model, tokens, [hook], progress=notes)[hook.name].manifest["dtype"] == "float16"
