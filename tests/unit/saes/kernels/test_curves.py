"""Training with the sparse products of either backend, and with dense ones, gives the same curve.

Shapes: B rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from neuronmap.saes import SparseAutoencoder, StepState, Workspace, get_architecture
from neuronmap.saes.kernels.choice import kernels_for
from neuronmap.saes.kernels.native.library import load_engine
from neuronmap.saes.kernels.protocol import AdamStep

B, D, F, K, STEPS = 192, 24, 96, 4, 30


def batches(dtype: torch.dtype) -> list[Tensor]:
    """Rows that a few of 60 fixed directions make, and some noise."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(60, D, generator=generator), dim=1)
    made = []
    for _ in range(STEPS):
        strength = torch.rand(B, 60, generator=generator) * (torch.rand(B, 60, generator=generator) < 0.05)
        made.append((strength @ directions + 0.02 * torch.randn(B, D, generator=generator)).to(dtype))
    return made


def curve(
    architecture: str, kernels: str, products: str, dtype: torch.dtype, steps: int = STEPS
) -> tuple[Tensor, SparseAutoencoder]:
    """Loss of each step, and the SAE after them. Every fourth feature counts as dead in the first half."""
    owner = get_architecture(architecture)
    sae = owner(D, F, owner.Options(k=K, aux_k=6), dtype=dtype)
    sae.initialise(torch.zeros(D, dtype=dtype), torch.Generator().manual_seed(1))
    workspace = Workspace(kernels=kernels, products=products)
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in sae.named_parameters()}
    losses = []
    for index, x_BD in enumerate(batches(dtype)[:steps]):
        dead_F = (torch.arange(F) % 4 == 0) if index < steps // 2 else None
        loss = sae.loss_and_gradients(x_BD, StepState(step=index, dead_F=dead_F), workspace)
        losses.append(loss.total)
        backend = kernels_for(workspace, sae.W_enc, K / F)
        step = AdamStep(3e-3, 0.9, 0.999, 1e-8, index + 1)
        with torch.no_grad():
            for name, parameter in sae.named_parameters():
                assert parameter.grad is not None
                one = torch.tensor(1.0, dtype=dtype)
                backend.adam(parameter, parameter.grad, moments[name], step, one, unit_rows=name == "W_dec")
    return torch.stack(losses).double(), sae


@pytest.fixture(scope="module")
def dense_curves() -> dict[str, tuple[Tensor, SparseAutoencoder]]:
    """By public operations and plain matrix products, in float64."""
    return {name: curve(name, "torch", "dense", torch.float64) for name in ("topk", "batchtopk", "matryoshka")}


@pytest.mark.parametrize("kernels", ["torch", "native"])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
def test_the_sparse_path_trains_like_the_dense_one(dense_curves, architecture, kernels):
    if kernels == "native" and load_engine() is None:
        pytest.skip("the native engine was not compiled on this machine")
    expected_S, expected_sae = dense_curves[architecture]
    assert float(expected_S[-5:].mean()) < 0.85 * float(expected_S[:5].mean())  # it is a curve, not a line
    found_S, sae = curve(architecture, kernels, "sparse", torch.float64)
    # In float64 the same entries are chosen at every step, and rounding grows from 1e-16 by little in 30 steps.
    torch.testing.assert_close(found_S, expected_S, rtol=1e-9, atol=0)
    for name, parameter in sae.named_parameters():
        torch.testing.assert_close(parameter, expected_sae.get_parameter(name), rtol=0, atol=1e-8)
    # In float32 a near tie may fall the other way at some step; the loss hardly feels which of two equal entries was kept.
    single_S, _ = curve(architecture, kernels, "sparse", torch.float32)
    torch.testing.assert_close(single_S, expected_S, rtol=1e-3, atol=0)


@pytest.mark.parametrize("products", ["sparse", "dense"])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
def test_the_triton_path_trains_like_the_dense_one(architecture, products, monkeypatch):
    """A few steps: interpreted, each takes a second."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed; it is there for Linux on x86-64")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    expected_S, expected_sae = curve(architecture, "torch", "dense", torch.float64, steps=4)
    found_S, sae = curve(architecture, "triton", products, torch.float64, steps=4)
    torch.testing.assert_close(found_S, expected_S, rtol=1e-9, atol=0)
    for name, parameter in sae.named_parameters():
        torch.testing.assert_close(parameter, expected_sae.get_parameter(name), rtol=0, atol=1e-8)
