"""The cost model against its closed forms, against what was measured, and against what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neuronmap.errors import ConfigError
from neuronmap.planning import COEFFICIENTS, DEVICES, PlanRequest, find_device, plan_costs
from neuronmap.planning.steps import cost_of_training
from neuronmap.training.plan import step_seconds

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
RATE = 1e11  # a CPU that multiplies at 100 GFLOP/s


def cpu(**changes: Any) -> PlanRequest:
    return PlanRequest(
        **{"model": "smollm2-135m", "layer": 8, "width": 4096, "tokens": 1_000_000, "device": "cpu", **changes}
    )


def gpu(**changes: Any) -> PlanRequest:
    return cpu(
        **{"model": "gemma-2-2b", "layer": 12, "width": 65_536, "tokens": 10**9, "device": "h100", "k": 64, **changes}
    )


def test_harvest_and_training_on_a_cpu_are_their_closed_forms() -> None:
    found = plan_costs(cpu(batch_size=32), product_flops=RATE)
    block = 2 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536) + 2 * 128 * 576
    assert found.harvest.flops == 9 * block * 1_000_000
    assert found.harvest.seconds == pytest.approx(found.harvest.flops / (0.85 * RATE) * 1.007)
    rows = 1_000_000 * 127 // 128
    assert (found.training.rows, found.training.steps) == (rows, rows // 4096)
    G = 2 * 4096 * 576 * 4096 / RATE
    assert found.training.step_seconds == pytest.approx(step_seconds("batchtopk", G, 576, 4096))
    assert found.training.flops == pytest.approx(found.training.steps * (2 * 4096 * 576 * 4096 + 8 * 4096 * 64 * 576))
    assert found.training.parameter_bytes == 4 * (2 * 576 * 4096 + 2 * 4096 + 576)
    assert found.training.optimiser_bytes == 3 * found.training.parameter_bytes
    assert found.training.exchange_seconds == 0


def test_a_batch_that_is_left_out_is_the_one_that_the_run_will_take() -> None:
    short, long = (
        plan_costs(cpu(), product_flops=RATE).training,
        plan_costs(cpu(tokens=10**8), product_flops=RATE).training,
    )
    assert (short.batch_rows, short.steps) == (512, short.rows // 512)
    assert (long.batch_rows, long.steps) == (4096, long.rows // 4096)


@pytest.mark.parametrize(
    ("store_dtype", "row"), [("auto", 1168), ("bfloat16", 1168), ("float32", 2320), ("int8", 576 + 4 + 16)]
)
def test_storage_is_what_the_formats_take(store_dtype: str, row: int) -> None:
    from neuronmap.activations.shards import FORMATS

    found = plan_costs(cpu(store_dtype=store_dtype), product_flops=RATE)
    name = "bfloat16" if store_dtype == "auto" else store_dtype
    assert found.storage.row == row == FORMATS[name].row_bytes(576)
    assert found.storage.store == row * found.training.rows
    assert found.storage.tokens == 10 * 1_000_000
    assert found.storage.bundle == found.training.parameter_bytes
    assert found.storage.checkpoints == 9 * found.training.parameter_bytes
    assert plan_costs(cpu(stream=True), product_flops=RATE).storage.store == 0


def test_twice_the_tokens_or_half_the_devices_cost_twice() -> None:
    one, two = plan_costs(gpu()), plan_costs(gpu(tokens=2 * 10**9))
    assert two.harvest.seconds == pytest.approx(2 * one.harvest.seconds)
    assert two.training.seconds == pytest.approx(2 * one.training.seconds, rel=1e-4)
    assert plan_costs(gpu(gpus=2)).harvest.seconds == pytest.approx(one.harvest.seconds / 2)


def test_money_is_device_hours_times_the_price_and_nothing_without_one() -> None:
    assert plan_costs(gpu()).money is None
    found = plan_costs(gpu(price=3.0, gpus=4))
    together = 4 * (found.harvest.seconds + found.training.seconds) + found.analysis.seconds
    assert found.gpu_hours == pytest.approx(together / 3600)
    assert found.money == pytest.approx(3.0 * found.gpu_hours)
    with pytest.raises(ConfigError, match=r"PlanRequest\.price"):
        gpu(price=0)


def test_a_wide_sae_is_split_over_features_before_rows() -> None:
    small, wide = plan_costs(gpu(gpus=8)), plan_costs(gpu(gpus=8, width=1 << 21))
    assert (small.training.tensor_parallel, small.training.data_parallel) == (1, 8)
    split = wide.training.tensor_parallel
    assert split > 1
    moments = 2 * 4 * 2 * small.model.width * small.request.width  # of the two matrices
    alone = plan_costs(gpu()).training.device_bytes - plan_costs(gpu()).training.step_bytes
    assert alone - (small.training.device_bytes - small.training.step_bytes) == moments * 7 // 8  # of 8, each keeps one
    assert split * wide.training.data_parallel == 8
    assert wide.fits
    assert wide.training.device_bytes <= wide.device.usable_bytes
    assert wide.training.exchange_seconds > 0
    assert "reckoned, not measured" in " ".join(wide.notes)


def test_an_architecture_whose_features_cannot_be_shared_is_split_over_rows_only() -> None:
    found = plan_costs(gpu(gpus=8, width=1 << 24, architecture="lista"))
    assert not found.fits
    assert found.training.tensor_parallel == 1
    assert "the features of lista cannot be shared by several devices" in " ".join(found.notes)


def test_what_does_not_fit_says_how_many_devices_would_hold_it() -> None:
    found = plan_costs(gpu(width=1 << 24))
    assert not found.fits
    needed = found.training.needed_devices
    assert needed is not None
    assert needed > 1
    assert f"{needed} devices hold it" in " ".join(found.notes)
    assert plan_costs(gpu(width=1 << 24, gpus=needed)).fits
    assert not plan_costs(gpu(width=1 << 24, gpus=needed // 2)).fits
    large = plan_costs(gpu(model="llama-3-70b", layer=40))
    assert large.harvest.devices_a_copy == 2
    assert not large.fits
    assert "2 devices are needed for one copy" in " ".join(large.notes)


def test_streaming_puts_the_model_beside_the_sae() -> None:
    stored, streamed = plan_costs(gpu()), plan_costs(gpu(stream=True))
    assert streamed.training.device_bytes - stored.training.device_bytes == streamed.harvest.model_bytes
    assert stored.harvest.seconds == pytest.approx(1.007 * streamed.harvest.seconds)


def test_the_middle_block_is_the_default() -> None:
    assert plan_costs(gpu(layer=None)).request.layer == 13


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "h1000"}, "there are cpu"),
        ({"device": "cpu", "gpus": 2, "model": "gpt2"}, "counts it once"),
        ({"architecture": "vanilla"}, "vanilla"),
        ({"width": 0}, r"PlanRequest\.width"),
        ({"layer": 26}, "blocks 0 to 25"),
        ({"k": 64, "architecture": "relu"}, "does not apply"),
    ],
)
def test_what_cannot_be_planned_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_costs(gpu(**changes))


def test_coefficients_say_where_they_are_from() -> None:
    for name, made in COEFFICIENTS.items():
        assert made.kind in ("measured", "derived", "documented", "assumed"), name
        if made.kind == "measured":
            stem = made.source.partition(":")[0].split(" ")[0].removeprefix("results/").removesuffix(",")
            assert (RESULTS / f"{stem}.json").is_file(), f"{name} names no file of benchmarks/results: {made.source}"


def test_only_what_decides_a_plan_is_listed() -> None:
    on_cpu, on_gpu = plan_costs(cpu(), product_flops=RATE).rests_on(), plan_costs(gpu()).rests_on()
    assert "harvest_share_cpu" in on_cpu
    assert not {"harvest_share_gpu", "copy_share", "link_share"} & set(on_cpu)
    assert {"harvest_share_gpu", "selection_batchtopk"} <= set(on_gpu)
    assert not {"selection_topk", "link_share"} & set(on_gpu)
    assert "link_share" in plan_costs(gpu(gpus=2)).rests_on()


def test_steps_on_the_measured_card() -> None:
    """B = 32,768 is where the coefficients are from (within a tenth); B = 4,096 is a check (within a fifth)."""
    cells = json.loads((RESULTS / "gpu-2026-11-26.json").read_text())["cells"]
    checked = 0
    for cell in cells:
        what = cell["cell"]
        if what["library"] != "neuronmap" or what["variant"] != "triton":
            continue
        cost = cost_of_training(
            find_device("h200"), d_in=2304, d_sae=what["features"], rows=10**7, architecture=what["architecture"], k=what["k"],
            contexts=what["batch"] // 128, context_length=128, devices=1, row_values=2, beside_bytes=0,
        )  # fmt: skip
        ratio = cost.step_seconds / cell["step_seconds"]
        assert ratio == pytest.approx(1.0, abs=0.1 if what["batch"] == 32_768 else 0.2), (what, ratio)
        checked += 1
    assert checked == 6


def test_memory_on_the_measured_card_is_an_upper_bound() -> None:
    cost = cost_of_training(
        DEVICES["h200"], d_in=2304, d_sae=65_536, rows=10**7, architecture="topk", k=64, contexts=256, context_length=128,
        devices=1, row_values=2, beside_bytes=0,
    )  # fmt: skip
    assert 6.9 * 2**30 < cost.device_bytes < 1.5 * 6.9 * 2**30  # the peak of results/gpu-2026-11-26


def test_this_machine_is_measured() -> None:
    device = find_device("cpu")
    assert not device.is_gpu
    assert device.product_flops > 1e8
    assert "measured now" in device.source
