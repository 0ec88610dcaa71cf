"""Every backend, sparse and dense, gives the gradients of the equation.

Shapes: B rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from neuronmap.saes import SparseAutoencoder, StepState, Workspace, get_architecture
from neuronmap.saes.kernels.native.library import load_engine

B, D, F = 50, 24, 64

CASES: list[tuple[str, dict[str, Any]]] = [
    ("relu", {}),
    ("gated", {}),
    ("jumprelu", {}),
    ("jumprelu", {"sparsity_penalty": 0.01}),
    ("jumprelu", {"sparsity_form": "tanh"}),
    ("topk", {"k": 5}),
    ("batchtopk", {"k": 5}),
    ("matryoshka", {"k": 5}),
    ("lista", {"k": 5}),
]


def started(architecture: str, options: dict[str, Any]) -> SparseAutoencoder:
    """An SAE away from its start: biases and thresholds of all signs, decoder rows not of unit norm."""
    owner = get_architecture(architecture)
    sae = owner(D, F, owner.Options(**options), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    sae.initialise(torch.randn(D, generator=generator) * 0.1, generator)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if parameter.ndim == 1 and name != "b_dec":
                low = 0.0 if name == "threshold" else -0.1
                parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.2 + low)
        sae.W_dec.mul_(1.1)
    return sae


def rows() -> Tensor:
    return torch.randn(B, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / D**0.5


@pytest.mark.parametrize("products", ["sparse", "dense"])
@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize("dead", [False, True], ids=["all-alive", "some-dead"])
@pytest.mark.parametrize(("architecture", "options"), CASES, ids=[f"{a}{'-'.join(o)}" for a, o in CASES])
def test_gradients_equal_autograd(
    architecture: str, options: dict[str, Any], dead: bool, kernels: str, products: str
) -> None:
    if kernels == "native" and load_engine() is None:
        pytest.skip("the native engine was not compiled on this machine")
    sae, x_BD = started(architecture, options), rows()
    dead_F = (torch.arange(F) % 4 == 0) if dead else None
    state = StepState(sparsity_scale=0.7, dead_F=dead_F)
    reference = sae.training_loss(x_BD, state)
    reference.total.backward()
    expected = {name: parameter.grad.clone() for name, parameter in sae.named_parameters()}
    sae.zero_grad(set_to_none=True)

    loss = sae.loss_and_gradients(x_BD, state, Workspace(kernels=kernels, products=products))

    torch.testing.assert_close(loss.total, reference.total.detach(), rtol=1e-12, atol=1e-13)
    assert loss.parts.keys() == reference.parts.keys()
    for name, part in reference.parts.items():
        torch.testing.assert_close(loss.parts[name], part.detach(), rtol=1e-12, atol=1e-13)
    assert torch.equal(loss.fired_F, reference.fired_F)
    assert 0 < int(loss.fired_F.sum()) < B * F, "the case is neither empty nor full"
    for name, parameter in sae.named_parameters():
        largest = float(expected[name].abs().max())
        assert float((parameter.grad - expected[name]).abs().max()) <= 1e-11 * largest, name


@pytest.mark.parametrize("architecture", ["relu", "gated", "jumprelu"])
def test_a_step_that_turns_out_dense_is_done_dense(architecture: str) -> None:
    """The share of the step before said sparse, but this batch is not: the sparse step gives up and nothing is lost."""
    sae, x_BD = started(architecture, {}), rows()
    with torch.no_grad():
        (sae.b_gate if architecture == "gated" else sae.b_enc).add_(1.0)
        if architecture == "gated":
            sae.b_mag.add_(1.0)
    guessed = sae.loss_and_gradients(x_BD, StepState(active_share=0.01), Workspace())
    kept = {name: parameter.grad.clone() for name, parameter in sae.named_parameters()}
    sae.loss_and_gradients(x_BD, StepState(), Workspace(products="dense"))
    assert int(guessed.fired_F.sum()) > B * F / 2
    for name, parameter in sae.named_parameters():
        assert torch.equal(parameter.grad, kept[name]), name
