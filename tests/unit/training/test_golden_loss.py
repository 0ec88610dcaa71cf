"""The training curve of every architecture is pinned, and every path follows it.

The curves lie in ``golden_loss.json``. A change that moves one says why in the same commit, and writes them anew with
``python tests/unit/training/test_golden_loss.py``.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from neuronmap.activations import ArrayRows, ShuffledBatches
from neuronmap.saes import get_architecture
from neuronmap.saes.kernels.native.library import load_engine
from neuronmap.training import SAEConfig
from neuronmap.training.data import TrainingData
from neuronmap.training.plan import make_plan
from neuronmap.training.session import Session

GOLDEN = Path(__file__).with_name("golden_loss.json")
ARCHITECTURES = ["relu", "gated", "topk", "batchtopk", "jumprelu", "matryoshka", "lista"]
STEPS = (1, 5, 10, 20, 40, 60)

D, F, ATOMS = 32, 256, 96


def sparse_rows() -> ArrayRows:
    """Rows that are sums of a few of 96 directions, so that there is something to learn."""
    generator = torch.Generator().manual_seed(5)
    atoms = torch.nn.functional.normalize(torch.randn(ATOMS, D, generator=generator), dim=1)
    chosen = torch.rand(4096, ATOMS, generator=generator) < 5 / ATOMS
    return ArrayRows((chosen * torch.rand(4096, ATOMS, generator=generator)) @ atoms)


def curve(architecture: str, kernels: str, products: str, last: int = STEPS[-1], **more: Any) -> list[float]:
    """Reconstruction error of the batch at each of ``STEPS`` up to the last."""
    fields = {"k": 8} if architecture in ("topk", "batchtopk", "matryoshka", "lista") else {}
    config = SAEConfig(
        architecture=architecture, hidden_dim=F, batch_size=4, context_length=64, num_epochs=4, learning_rate=0.003,
        dead_after_tokens=5 * 256, kernels=kernels, products=products, **fields, **more,
    )  # fmt: skip
    rows = sparse_rows()
    plan = make_plan(config, rows.num_rows, D, torch.device("cpu"), 0)
    sae = get_architecture(architecture)(D, F, config.sae_options(D))
    scale = rows.statistics.mean_square_norm**-0.5
    sae.initialise(rows.statistics.mean_D.float() * scale, torch.Generator().manual_seed(0))
    found = []
    with ShuffledBatches(rows, plan.batch_rows, seed=0, scale=scale) as batches:
        session = Session(config, plan, TrainingData(rows=rows, heldout=rows), sae, batches, scale, checkpoints=None)
        while session.step < last:
            loss = session.train_step()
            session.resample_if_due()
            if session.step in STEPS:
                found.append(float(loss.parts["mse"]))
    return found


@pytest.mark.parametrize("products", ["auto", "sparse", "dense"])
@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_path_follows_the_pinned_curve(architecture: str, kernels: str, products: str) -> None:
    """Sums are taken in another order on each path, and a near tie may fall the other way: half a per cent, not bits."""
    if kernels == "native" and load_engine() is None:
        pytest.skip("the native engine was not compiled on this machine")
    expected = json.loads(GOLDEN.read_text())[architecture]
    assert curve(architecture, kernels, products) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_triton_kernels_follow_the_beginning_of_the_pinned_curve(architecture: str, monkeypatch) -> None:
    """Interpreted, they take about a second a step."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed; it is there for Linux on x86-64")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    expected = json.loads(GOLDEN.read_text())[architecture]
    assert curve(architecture, "triton", "sparse", last=5) == pytest.approx(expected[:2], rel=5e-3)


@pytest.mark.parametrize(("architecture", "own"), [("topk", "unit"), ("jumprelu", 1.0)])
def test_an_architecture_has_its_own_norm_of_the_gradient_unless_the_configuration_says(
    architecture: str, own: Any
) -> None:
    auto = curve(architecture, "torch", "dense", last=20)
    assert curve(architecture, "torch", "dense", last=20, clip_norm=own) == auto
    assert curve(architecture, "torch", "dense", last=20, clip_norm=1.0 if own == "unit" else "unit") != auto


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_pinned_curves_are_of_training_that_learns(architecture: str) -> None:
    expected = json.loads(GOLDEN.read_text())[architecture]
    assert expected[-1] < 0.6 * expected[0]


if __name__ == "__main__":
    curves = {architecture: curve(architecture, "torch", "dense") for architecture in ARCHITECTURES}
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n")
