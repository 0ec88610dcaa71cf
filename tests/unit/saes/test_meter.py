"""ReconstructionMeter against closed forms (the contract table of the metrics page) and against plain definitions.

Shapes: N rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from neuronmap.errors import InputError, MismatchError
from neuronmap.saes.meter import ReconstructionMeter, ReconstructionMetrics

D, F = 6, 4


def rows(count: int = 200, mean: float = 0.7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, D, generator=generator, dtype=torch.float64) * torch.arange(1, D + 1) + mean


def measure(x: Tensor, xhat: Tensor, features: Tensor | None = None) -> ReconstructionMetrics:
    meter = ReconstructionMeter(x.shape[1], F if features is None else features.shape[1])
    meter.update(x, xhat, torch.zeros(len(x), F) if features is None else features)
    return meter.result()


def numbers(result: ReconstructionMetrics) -> dict[str, float | None]:
    return {n: v for n, v in result.to_dict().items() if v is None or isinstance(v, int | float)}


def test_identity() -> None:
    x = rows()
    found = measure(x, x, torch.cat([x.clamp_min(0), (-x).clamp_min(0)], dim=1))
    assert (found.mse, found.fvu) == (0, 0)
    for value in (
        found.explained_variance,
        found.explained_variance_median,
        found.cosine,
        found.norm_ratio,
        found.bias,
    ):
        assert value == pytest.approx(1, abs=1e-12)
    assert found.l0 == D
    assert found.notes == {}


def test_the_mean_of_the_rows_explains_nothing() -> None:
    x = rows()
    found = measure(x, x.mean(dim=0).expand_as(x))
    assert found.explained_variance == pytest.approx(0, abs=1e-12)
    assert found.explained_variance_median == pytest.approx(0, abs=1e-12)
    assert found.mse == pytest.approx(float(x.var(dim=0, correction=0).sum()))


def test_zero_output_is_worse_than_the_mean_and_its_cosine_and_bias_are_undefined() -> None:
    x = rows()
    found = measure(x, torch.zeros_like(x))
    energy, variance = float(x.square().sum(dim=1).mean()), float(x.var(dim=0, correction=0).sum())
    assert found.explained_variance == pytest.approx(1 - energy / variance)
    assert found.explained_variance < 0
    assert found.cosine is None
    assert found.bias is None
    assert set(found.notes) == {"cosine", "bias"}
    assert (found.zero_reconstructions, found.cosine_rows, found.norm_ratio) == (200, 0, 0.0)


def test_shrunken_identity() -> None:
    x = rows(mean=0.0)
    found = measure(x, 0.8 * x)
    assert found.cosine == pytest.approx(1)
    assert found.norm_ratio == pytest.approx(0.8)
    assert found.bias == pytest.approx(0.8)
    assert found.mse == pytest.approx(0.04 * float(x.square().sum(dim=1).mean()))


def test_one_dead_and_one_always_active_feature() -> None:
    f = torch.zeros(1000, 4)
    f[:, 1] = 2.0
    f[:50, 2] = 1.0
    f[:5, 3] = 4.0
    meter = ReconstructionMeter(D, 4)
    x = rows(1000)
    meter.update(x, x, f, torch.tensor([1.0, 0.5, 1.0, 3.0]))
    found = meter.result()
    assert meter.fired_F.tolist() == [0, 1000, 50, 5]
    assert meter.fired_F.dtype == torch.int64
    assert found.dead_at_n == 1
    assert found.dead_density_bound == pytest.approx(0.003)
    assert found.fraction_alive == 0.75
    assert found.fraction_above_1_percent == 0.5
    assert found.fraction_above_10_percent == 0.25
    assert found.l0 == pytest.approx(1.055)
    assert found.l1 == pytest.approx((1000 * 2.0 * 0.5 + 50 * 1.0 + 5 * 4.0 * 3.0) / 1000)
    assert meter.activation_sum_F.tolist() == [0, 2000, 50, 20]


@pytest.mark.parametrize(
    ("mean", "spread"), [(0.0, 1.0), (3.0, 1.0), (5.0, 0.1), (30.0, 1.0), (60.0, 30.0), (1e4, 1.0)]
)
def test_explained_variance_depends_neither_on_the_mean_nor_on_the_scale(mean: float, spread: float) -> None:
    """Formulas that mix units give 0.97 to 1.45 on such data."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(50_000, 8, generator=generator, dtype=torch.float64)
    error = torch.randn(50_000, 8, generator=generator, dtype=torch.float64)
    x = mean + spread * noise
    assert measure(x, x + 0.5 * spread * error).explained_variance == pytest.approx(0.75, abs=0.01)


def test_values_equal_their_plain_definitions() -> None:
    x, xhat = rows(), rows() + 0.3 * rows(seed=1)
    residual = x - xhat
    found = measure(x, xhat)
    assert found.mse == pytest.approx(float(residual.square().sum(dim=1).mean()))
    per_dim = 1 - residual.square().mean(dim=0) / x.var(dim=0, correction=0)
    assert found.explained_variance_median == pytest.approx(float(per_dim.quantile(0.5)))
    assert found.cosine == pytest.approx(float(torch.cosine_similarity(x, xhat).mean()))
    assert found.norm_ratio == pytest.approx(float((xhat.norm(dim=1) / x.norm(dim=1)).mean()))
    assert found.bias == pytest.approx(float(xhat.square().sum() / (x * xhat).sum()))
    assert found.fvu == pytest.approx(1 - found.explained_variance)


def test_one_dimension_of_high_variance_rules_the_total_but_not_the_median() -> None:
    x = rows(mean=0.0)
    x[:, 0] *= 1000
    xhat = torch.zeros_like(x)
    xhat[:, 0] = x[:, 0]
    found = measure(x, xhat)
    assert found.explained_variance > 0.999
    assert found.explained_variance_median < 0.01


def test_near_constant_dimensions_are_left_out_of_the_median() -> None:
    x = rows()
    x[:, 0] = 5.0
    x[:, 1] = 0.0
    meter = ReconstructionMeter(D, F)
    meter.update(x, x + 1.0, torch.zeros(len(x), F))
    assert meter.varying_dimensions().tolist() == [False, False, True, True, True, True]
    found = meter.result()
    assert found.dimensions == 4
    assert found.explained_variance_median == pytest.approx(
        float((1 - 1.0 / x[:, 2:].var(dim=0, correction=0)).quantile(0.5))
    )


def test_zero_rows_are_counted_and_left_out_of_the_averages() -> None:
    x = rows(10)
    x[0] = 0
    xhat = 0.5 * x
    xhat[1] = 0
    found = measure(x, xhat)
    assert (found.zero_inputs, found.zero_reconstructions) == (1, 2)
    assert (found.cosine_rows, found.norm_ratio_rows) == (8, 9)
    assert found.cosine == pytest.approx(1)
    assert found.norm_ratio == pytest.approx(8 * 0.5 / 9)


def features(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, F, generator=generator) * (torch.rand(count, F, generator=generator) < 0.3)


@pytest.mark.parametrize("sizes", [[500], [1] * 500, [7, 300, 193], [499, 1]])
@pytest.mark.parametrize("order", ["forward", "backward"])
def test_batches_and_their_order_do_not_matter(sizes: list[int], order: str) -> None:
    """Float32 rows far from the origin, where sums of squares would cancel."""
    x = (rows(500, mean=1000.0)).float()
    xhat, f = x + 0.2 * rows(500, seed=1).float(), features(500)
    whole = ReconstructionMeter(D, F)
    whole.update(x, xhat, f)
    pieces = list(zip(x.split(sizes), xhat.split(sizes), f.split(sizes), strict=True))
    parts = ReconstructionMeter(D, F)
    for piece in pieces if order == "forward" else reversed(pieces):
        parts.update(*piece)
    for name, value in numbers(whole.result()).items():
        assert numbers(parts.result())[name] == pytest.approx(value, rel=1e-6), name
    assert torch.equal(parts.fired_F, whole.fired_F)


def test_merged_meters_equal_one_that_saw_everything() -> None:
    x, f = rows(300, mean=50.0), features(300)
    whole, first, second, empty = (ReconstructionMeter(D, F) for _ in range(4))
    whole.update(x, 0.9 * x, f)
    first.update(x[:120], 0.9 * x[:120], f[:120])
    second.update(x[120:], 0.9 * x[120:], f[120:])
    empty.merge(first)
    empty.merge(second)
    empty.merge(ReconstructionMeter(D, F))
    wanted = numbers(whole.result())
    assert numbers(empty.result()) == pytest.approx({n: v for n, v in wanted.items() if v is not None}, rel=1e-6)
    assert first.rows == 120  # merging does not change what is merged


def test_state_goes_through_json_and_continues_exactly() -> None:
    x, f = rows(90), features(90)
    straight, stopped = ReconstructionMeter(D, F), ReconstructionMeter(D, F)
    straight.update(x[:40], 0.9 * x[:40], f[:40])
    stopped.update(x[:40], 0.9 * x[:40], f[:40])
    resumed = ReconstructionMeter.from_state(json.loads(json.dumps(stopped.state())))
    for meter in (straight, resumed):
        meter.update(x[40:], 0.9 * x[40:], f[40:])
    assert resumed.state() == straight.state()
    assert resumed.result() == straight.result()


def test_sparse_and_dense_features_give_the_same() -> None:
    x, f = rows(300), features(300)
    value, index = f.topk(3, dim=1)  # some of the three are zero: inactive
    f = torch.zeros_like(f).scatter_(1, index, value)
    norms = torch.tensor([1.0, 2.0, 0.5, 1.0])
    dense, sparse = ReconstructionMeter(D, F), ReconstructionMeter(D, F)
    dense.update(x, x, f, norms)
    sparse.update(x, x, (index, value), norms)
    assert torch.equal(dense.fired_F, sparse.fired_F)
    assert dense.result().l1 == pytest.approx(sparse.result().l1, rel=1e-6)
    assert dense.result().l0 == sparse.result().l0


def test_low_precision_activations_are_counted_exactly() -> None:
    f = torch.ones(3000, F, dtype=torch.bfloat16)  # a bfloat16 sum of ones stops at 256
    meter = ReconstructionMeter(D, F)
    meter.update(rows(3000).bfloat16(), rows(3000).bfloat16(), f)
    assert meter.fired_F.tolist() == [3000] * F
    assert meter.result().l1 == F


@pytest.mark.parametrize(
    ("x", "xhat"),
    [
        (torch.zeros(0, D), torch.zeros(0, D)),
        (torch.zeros(5, D), torch.zeros(5, D)),
        (torch.ones(1, D), torch.ones(1, D)),
        (torch.full((5, D), math.nan), torch.ones(5, D)),
        (torch.ones(5, D), torch.full((5, D), math.inf)),
        (torch.full((5, D), 1e-30), torch.full((5, D), 1e-30)),
        (torch.eye(D), -torch.eye(D).flip(0)),
    ],
    ids=["no rows", "zeros", "one row", "nan", "infinity", "tiny", "orthogonal"],
)
def test_nothing_undefined_is_ever_a_number(x: Tensor, xhat: Tensor) -> None:
    """Every None has its reason, and the record is strict JSON."""
    found = measure(x, xhat, torch.zeros(len(x), F))
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {name for name, value in record.items() if value is None} == set(found.notes)
    assert all(found.notes.values())
    assert ReconstructionMetrics.from_dict(record) == found


def test_shapes_and_widths_that_do_not_fit_are_refused() -> None:
    meter = ReconstructionMeter(D, F)
    with pytest.raises(InputError, match="rows of width 6"):
        meter.update(torch.ones(3, 5), torch.ones(3, 5), torch.ones(3, F))
    with pytest.raises(InputError, match="rows of width 6"):
        meter.update(torch.ones(3, D), torch.ones(2, D), torch.ones(3, F))
    with pytest.raises(InputError, match=r"shape \[3, 4\]"):
        meter.update(torch.ones(3, D), torch.ones(3, D), torch.ones(3, F + 1))
    with pytest.raises(InputError, match="one shape"):
        meter.update(torch.ones(3, D), torch.ones(3, D), (torch.zeros(3, 2, dtype=torch.int64), torch.ones(3, 1)))
    with pytest.raises(MismatchError, match="d_sae 4 and 5"):
        meter.merge(ReconstructionMeter(D, F + 1))
    assert meter.rows == 0
