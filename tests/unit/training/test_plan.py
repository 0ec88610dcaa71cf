"""The numbers that a run prints before it starts."""

from __future__ import annotations

import pytest
import torch

from neuronmap import SAEConfig
from neuronmap.activations import ArrayRows, ShuffledBatches
from neuronmap.errors import EmptyCorpusError, MemoryExhaustedError
from neuronmap.saes import get_architecture
from neuronmap.training.data import TrainingData
from neuronmap.training.plan import default_learning_rate, make_plan
from neuronmap.training.session import Session

CPU = torch.device("cpu")


def config(**fields) -> SAEConfig:
    return SAEConfig(
        **{"architecture": "topk", "k": 8, "hidden_dim": 512, "context_length": 64, "batch_size": 8, **fields}
    )


def test_steps_follow_from_rows_epochs_and_batch():
    assert make_plan(config(num_epochs=2.5), 10_000, 32, CPU, 0).steps == 48  # 25,000 rows in steps of 512
    assert make_plan(config(num_epochs=2.5, max_steps=7), 10_000, 32, CPU, 0).steps == 7
    with pytest.raises(EmptyCorpusError, match="do not fill one step of 512"):
        make_plan(config(), 511, 32, CPU, 0)


def test_rate_falls_with_width_and_length_and_an_explicit_one_wins():
    assert default_learning_rate(16_384, 100_000) == pytest.approx(2e-4)
    assert default_learning_rate(4 * 16_384, 100_000) == pytest.approx(1e-4)
    assert default_learning_rate(16_384, 4_000) == pytest.approx(4e-4)
    assert default_learning_rate(16_384, 10) == pytest.approx(16e-4)
    topk, jumprelu = (
        make_plan(config(architecture=a, k=k), 10_000, 32, CPU, 0) for a, k in (("topk", 8), ("jumprelu", None))
    )
    assert jumprelu.peak_rate == pytest.approx(topk.peak_rate / 2)
    assert make_plan(config(learning_rate=0.5), 10_000, 32, CPU, 0).peak_rate == 0.5


def test_auxk_looks_for_dead_features_earlier_than_resampling_and_never_after_ten_million_activations():
    windows = {
        a: make_plan(config(architecture=a, k=k, num_epochs=4), 10_240, 32, CPU, 0).dead_window
        for a, k in (("topk", 8), ("lista", 8), ("relu", None), ("jumprelu", None))
    }
    assert windows == {"topk": 1024, "lista": 1024, "relu": 4096, "jumprelu": 4096}
    assert make_plan(config(num_epochs=1e6), 10_240, 32, CPU, 0).dead_window == 10_000_000
    assert make_plan(config(), 10_240, 32, CPU, 0).dead_window == 512  # a step at least
    assert make_plan(config(dead_after_tokens=7), 10_240, 32, CPU, 0).dead_window == 7


def test_the_plan_reads_as_numbers_a_person_can_check():
    text = "\n".join(make_plan(config(num_epochs=2), 10_000, 32, CPU, 0).lines(config(num_epochs=2)))
    for part in (
        "topk, 32 -> 512 features",
        "10,000 activations",
        "39 steps of 512",
        "8 contexts x 64 tokens",
        "memory",
        "TFLOP",
    ):
        assert part in text


@pytest.mark.parametrize("architecture", ["relu", "gated", "topk", "batchtopk", "jumprelu", "matryoshka", "lista"])
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_step_memory_is_what_the_plan_says(architecture, dead, kernels):
    check_step_memory(architecture, dead, kernels)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_step_memory_of_the_triton_kernels_is_what_the_plan_says(architecture, monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed; it is there for Linux on x86-64")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    check_step_memory(architecture, True, "triton", compute_dtype="bfloat16")


@pytest.mark.parametrize("architecture", ["topk", "matryoshka"])
@pytest.mark.parametrize("kernels", ["native", "torch"])
def test_step_memory_of_dense_products_is_what_the_plan_says(architecture, kernels):
    check_step_memory(architecture, False, kernels, products="dense")


def check_step_memory(architecture: str, dead: bool, kernels: str, **more: str) -> None:
    """Every scratch buffer of a step together, with and without dead features, is within the printed figure."""
    fields = {
        "architecture": architecture,
        "k": 8 if "top" in architecture or architecture in ("matryoshka", "lista") else None,
    }
    chosen = config(**fields, **more, kernels=kernels, batch_size=16, dead_after_tokens=1 if dead else 10**9)
    rows = ArrayRows(torch.randn(4096, 64, generator=torch.Generator().manual_seed(0)))
    data = TrainingData(rows=rows, heldout=rows)
    plan = make_plan(chosen, rows.num_rows, 64, CPU, 0)
    sae = get_architecture(architecture)(64, 512, chosen.sae_options(64))
    sae.initialise(torch.zeros(64), torch.Generator().manual_seed(0))
    with ShuffledBatches(rows, plan.batch_rows, seed=0, scale=0.1) as batches:
        session = Session(chosen, plan, data, sae, batches, 0.1, checkpoints=None)
        for _ in range(3):
            session.train_step()
    assert 0.4 * plan.step_bytes < session.workspace.nbytes <= plan.step_bytes


def test_more_memory_than_there_is_is_refused_before_training():
    with pytest.raises(MemoryExhaustedError, match="Training needs about"):
        make_plan(config(hidden_dim=2**30), 10_000, 4096, CPU, 0)
