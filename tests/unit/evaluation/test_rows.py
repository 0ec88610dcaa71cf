"""Figures from rows of activations, against closed forms: no model, no trained SAE.

Shapes: N rows, D width.
"""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hand_made import Broken, Constant, Latents, Scaled

from neuronmap.activations import ArrayRows
from neuronmap.errors import ConfigError, InputError, MismatchError
from neuronmap.evaluation import CoreMetrics, evaluate_sae
from neuronmap.evaluation.rows import rows_of_source
from neuronmap.progress import SilentProgress
from neuronmap.saes.topk import TopKOptions, TopKSAE

QUIET = SilentProgress()


def rows(count: int = 1000, width: int = 6, mean: float = 2.0, scale: float = 1.5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator) * scale + mean


def evaluate(sae: object, x_ND: torch.Tensor, **settings: object) -> CoreMetrics:
    return evaluate_sae(sae, x_ND, progress=QUIET, **{"bootstrap": 50, **settings})


def test_identity() -> None:
    metrics = evaluate(Scaled(6), rows())
    found = metrics.summary()
    assert found["explained_variance"] == 1.0
    assert found["explained_variance_median"] == 1.0
    assert found["mse"] == 0.0
    assert found["cosine"] == pytest.approx(1.0, abs=1e-12)
    assert found["norm_ratio"] == pytest.approx(1.0, abs=1e-12)
    assert found["bias"] == pytest.approx(1.0, abs=1e-12)
    assert found["l0"] == 6.0
    assert metrics.behaviour is None


def test_constant_mean_explains_nothing() -> None:
    x_ND = rows()
    metrics = evaluate(Constant(x_ND.double().mean(0)), x_ND)
    assert metrics.reconstruction.explained_variance.value == pytest.approx(0.0, abs=1e-12)
    assert metrics.reconstruction.explained_variance_median.value == pytest.approx(0.0, abs=1e-9)
    assert metrics.sparsity.l0.value == 0.0


def test_zero_output_gives_null_and_not_nan() -> None:
    x_ND = rows()
    metrics = evaluate(Constant(torch.zeros(6)), x_ND)
    square, mean = float(x_ND.double().square().sum(1).mean()), x_ND.double().mean(0)
    expected = 1 - square / (square - float(mean.square().sum()))
    assert metrics.reconstruction.explained_variance.value == pytest.approx(expected, rel=1e-9)
    assert expected < 0
    assert metrics.reconstruction.norm_ratio.value == 0.0
    for undefined in (metrics.reconstruction.cosine, metrics.reconstruction.bias):
        assert undefined.value is None
        assert undefined.error is None
        assert undefined.reason
    assert metrics.reconstruction.cosine.count == 0
    assert metrics.sparsity.dead_at_n == 4
    assert metrics.sparsity.firings_above_10_percent is None


def test_a_scaled_identity_shrinks() -> None:
    found = evaluate(Scaled(6, 0.8), rows()).summary()
    assert found["cosine"] == pytest.approx(1.0, abs=1e-6)
    assert found["norm_ratio"] == pytest.approx(0.8, abs=1e-6)
    assert found["bias"] == pytest.approx(0.8, abs=1e-6)


def test_one_dead_and_one_always_on_feature() -> None:
    metrics = evaluate(Latents(), rows(600))
    assert metrics.sparsity.dead_at_n == 1
    assert metrics.sparsity.fraction_alive == 0.5
    assert metrics.sparsity.dead_density_bound == pytest.approx(3 / 600)
    assert metrics.sparsity.histogram.never == 1
    assert metrics.sparsity.histogram.counts[-1] == 1
    assert sum(metrics.sparsity.histogram.counts) == 1
    assert metrics.sparsity.l0.value == 1.0
    assert metrics.sparsity.l1.value == pytest.approx(6.0)  # activation 3 on a decoder row of norm 2
    assert metrics.sparsity.fraction_above_10_percent == 0.5
    assert metrics.sparsity.firings_above_10_percent == 1.0


@pytest.mark.parametrize(("scale", "mean"), [(1, 0), (1 / 3, 0), (5, 0), (30, 0), (30, 60)])
def test_explained_variance_does_not_depend_on_scale_or_mean(scale: float, mean: float) -> None:
    """The table on which SAEBench 0.6 gives 0.749, 0.974, 0.739, 1.445 and 1.006."""

    class Halved:
        d_in = d_sae = 64

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        def decode(self, f: torch.Tensor) -> torch.Tensor:
            return (f - mean) / 2 + mean

    x_ND = rows(4000, 64, mean, scale)
    assert evaluate(Halved(), x_ND).summary()["explained_variance"] == pytest.approx(0.75, abs=2e-3)


def topk_sae() -> TopKSAE:
    sae = TopKSAE(16, 40, TopKOptions(k=5))
    sae.initialise(torch.full((16,), 0.3), torch.Generator().manual_seed(0))
    return sae


def numbers(metrics: CoreMetrics) -> dict[str, float | None]:
    return {**metrics.summary(), **{f"bin {i}": n for i, n in enumerate(metrics.sparsity.histogram.counts)}}


def test_order_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x_ND, sae = rows(5000, 16), topk_sae()
    whole = numbers(evaluate(sae, x_ND))
    turned = numbers(evaluate(sae, x_ND[torch.randperm(5000, generator=torch.Generator().manual_seed(1))]))
    monkeypatch.setattr("neuronmap.evaluation.rows._PIECE_ROWS", 37)
    monkeypatch.setattr("neuronmap.evaluation.rows._CHUNK_VALUES", 40 * 11)
    chunked = numbers(evaluate(sae, x_ND))
    assert whole["dead_at_n"] is not None
    for other in (turned, chunked):
        assert other == {name: pytest.approx(value, rel=1e-6, abs=1e-9) for name, value in whole.items()}


def test_bootstrap_figures_are_the_meters_figures() -> None:
    """The per-context sums, added up, give what ReconstructionMeter gives: one definition in two forms."""
    from neuronmap.evaluation.bootstrap import Resampler
    from neuronmap.evaluation.figures import reconstruction_of, sparsity_of
    from neuronmap.evaluation.rows import Reconstructor, RowSums

    sae, x_ND = topk_sae(), rows(3000, 16)
    sums = RowSums(16, sae.d_sae, 30)
    sums.add(Reconstructor(sae, torch.device("cpu"), torch.float32), x_ND, torch.arange(3000) // 100)
    resampler = Resampler.draw(30, 0, 0)
    totals = resampler.totals(sums.by_unit())
    by_meter = [*reconstruction_of(sums, resampler, totals), *sparsity_of(sums, resampler, totals)]
    computed = []
    original = Resampler.estimate

    def without_meter(self: Resampler, *args: object, value: float | None = None, **named: object) -> object:
        return original(self, *args, **named)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resampler, "estimate", without_meter)
        computed = [*reconstruction_of(sums, resampler, totals), *sparsity_of(sums, resampler, totals)]
    pairs = [(name, a, b) for (name, a), (_, b) in zip(by_meter, computed, strict=True) if hasattr(a, "value")]
    assert len(pairs) == 8
    for name, a, b in pairs:
        assert a.value == pytest.approx(b.value, rel=1e-6), name


def test_errors_shrink_with_more_rows_and_hold_the_truth() -> None:
    x_ND = rows(40_000)
    truth = float(x_ND.double().square().sum(1).mean())
    few = evaluate(Constant(torch.zeros(6)), x_ND[:2000], bootstrap=400).reconstruction.mse
    many = evaluate(Constant(torch.zeros(6)), x_ND, bootstrap=400).reconstruction.mse
    assert few.error is not None
    assert many.error is not None
    assert many.error == pytest.approx(few.error / 20**0.5, rel=0.5)
    assert few.low is not None
    assert few.high is not None
    assert few.low - few.error < truth < few.high + few.error


def test_rows_of_the_first_kind_are_bootstrapped_in_blocks() -> None:
    protocol = evaluate(Scaled(6), rows(1000)).protocol
    assert protocol.resampled == "block of 128 rows"
    assert protocol.units == 8
    assert protocol.contexts == 0
    assert protocol.tokens == 1000


def test_max_tokens_spreads_over_the_rows() -> None:
    """A source whose second half differs: a tenth of the rows still sees both halves."""
    x_ND = torch.cat([rows(50_000, mean=0.0), rows(50_000, mean=10.0)])
    metrics = evaluate(Constant(torch.zeros(6)), x_ND, max_tokens=10_000)
    assert metrics.protocol.tokens == 10_000
    assert metrics.reconstruction.mse.value == pytest.approx(float(x_ND.double().square().sum(1).mean()), rel=0.25)


@pytest.mark.parametrize(("there", "wanted"), [(5, 5), (1000, 999), (5000, 4999), (3001, 700), (2, 1)])
def test_spread_rows_are_distinct_and_as_many_as_wanted(there: int, wanted: int) -> None:
    source = ArrayRows(torch.arange(there).float().unsqueeze(1))
    found = list(rows_of_source(source, wanted))
    numbers_N = torch.cat([rows_nD.squeeze(1) for rows_nD, _ in found])
    assert len(numbers_N) == len(set(numbers_N.tolist())) == wanted
    assert torch.equal(numbers_N, torch.cat([context_n for _, context_n in found]).float())


def test_constant_activations_have_no_explained_variance() -> None:
    metrics = evaluate(Scaled(6), torch.full((300, 6), 3.0))
    estimate = metrics.reconstruction.explained_variance
    assert estimate.value is None
    assert estimate.reason
    assert metrics.reconstruction.dimensions == 0
    assert metrics.reconstruction.explained_variance_median.value is None
    assert metrics.reconstruction.mse.value == 0.0


def test_zero_activations_have_no_norm_ratio() -> None:
    metrics = evaluate(Scaled(6), torch.zeros(300, 6))
    assert metrics.reconstruction.norm_ratio.value is None
    json.dumps(metrics.to_dict(), allow_nan=False)


def test_one_row_is_enough() -> None:
    metrics = evaluate(Scaled(6), rows(1))
    assert metrics.reconstruction.mse.value == 0.0
    assert metrics.reconstruction.mse.error is None
    json.dumps(metrics.to_dict(), allow_nan=False)


def test_half_precision_rows_are_measured_in_single() -> None:
    x_ND = rows(500)
    assert evaluate(Scaled(6), x_ND.half()).summary()["cosine"] == pytest.approx(1.0, abs=1e-9)
    assert evaluate(Scaled(6), x_ND.numpy()).protocol.rows_dtype == "float32"


def test_the_record_survives_json() -> None:
    metrics = evaluate(topk_sae(), rows(700, 16))
    text = json.dumps(metrics.to_dict(), allow_nan=False)
    assert CoreMetrics.from_dict(json.loads(text)) == metrics


def test_the_table_has_every_figure_once_with_an_explanation() -> None:
    table = evaluate(topk_sae(), rows(700, 16)).rows()
    names = [row.name for row in table]
    assert len(set(names)) == len(names)
    assert {"explained_variance", "l0", "dead_at_n", "cosine"} <= set(names)
    assert all(row.explanation for row in table)
    assert not [row for row in table if isinstance(row.value, float) and not np.isfinite(row.value)]


def test_weights_are_summed_up() -> None:
    weights = evaluate(topk_sae(), rows(300, 16)).weights
    assert weights.decoder_norm is not None
    assert weights.decoder_norm.mean == pytest.approx(1.0, abs=1e-6)
    assert weights.encoder_decoder_cosine is not None
    assert weights.encoder_decoder_cosine.low == pytest.approx(1.0, abs=1e-6)  # the encoder starts as its transpose
    without = evaluate(Scaled(6), rows()).weights
    assert (without.decoder_norm, without.encoder_norm) == (None, None)


def test_wrong_width_is_a_mismatch() -> None:
    with pytest.raises(MismatchError, match="6 wide, the SAE takes 5"):
        evaluate(Scaled(5), rows())


def test_wrong_output_shape_is_a_mismatch() -> None:
    sae = Scaled(6)
    sae.d_sae = 7
    with pytest.raises(MismatchError, match=r"features \[300, 6\]"):
        evaluate(sae, rows(300))


def test_nan_from_the_sae_is_an_error_not_a_figure() -> None:
    with pytest.raises(InputError, match="NaN or infinity for 1 of 300 rows"):
        evaluate(Broken(6), rows(300))


def test_nan_in_the_rows_is_refused() -> None:
    x_ND = rows(300)
    x_ND[7, 2] = torch.nan
    with pytest.raises(InputError, match="row 7"):
        evaluate(Scaled(6), x_ND)


def test_nothing_to_evaluate_on() -> None:
    with pytest.raises(ConfigError, match="nothing to evaluate on"):
        evaluate_sae(Scaled(6), progress=QUIET)


def test_numbers_out_of_range() -> None:
    for settings, said in (
        ({"max_tokens": 0}, "max_tokens = 0"),
        ({"max_ce_tokens": -1}, "max_ce_tokens = -1"),
        ({"batch_tokens": 0}, "batch_tokens = 0"),
        ({"ablations": ("one",)}, "one"),
        ({"bootstrap": -3}, "bootstrap = -3"),
    ):
        with pytest.raises(ConfigError, match=said):
            evaluate(Scaled(6), rows(), **settings)


def test_a_source_of_rows_is_read_in_place() -> None:
    source = ArrayRows(rows(900))
    assert evaluate_sae(Scaled(6), source, progress=QUIET, bootstrap=0).protocol.source_digest == source.digest


def test_density_edges_rise_to_always() -> None:
    edges = evaluate(topk_sae(), rows(700, 16)).sparsity.histogram.edges
    assert all(low < high for low, high in pairwise(edges))
    assert edges[-1] == 0.0
