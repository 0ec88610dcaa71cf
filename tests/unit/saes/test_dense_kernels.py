"""The dense training steps (relu, gated, jumprelu): equal to autograd in float64, and no large allocations.

Shapes: B rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from neuronmap.saes.base import SparseAutoencoder, StepState
from neuronmap.saes.gated import GatedOptions, GatedSAE
from neuronmap.saes.jumprelu import JumpReLUOptions, JumpReLUSAE
from neuronmap.saes.kernels import dense
from neuronmap.saes.relu import ReLUOptions, ReLUSAE
from neuronmap.saes.workspace import Workspace

B, D, F = 37, 11, 43

CASES = {
    "relu": (ReLUSAE, ReLUOptions(sparsity_penalty=0.3)),
    "gated": (GatedSAE, GatedOptions(sparsity_penalty=0.3)),
    "step, target": (JumpReLUSAE, JumpReLUOptions(target_l0=3, bandwidth=0.3, dead_penalty=0.2)),
    "step, annealed target": (JumpReLUSAE, JumpReLUOptions(target_l0=3, target_anneal_factor=4, bandwidth=0.3)),
    "step, charge": (JumpReLUSAE, JumpReLUOptions(sparsity_penalty=0.1, bandwidth=0.3, dead_penalty=0.2)),
    "tanh": (JumpReLUSAE, JumpReLUOptions(sparsity_form="tanh", sparsity_penalty=0.1, dead_penalty=0.2)),
}


def build(name: str, dtype: torch.dtype = torch.float64) -> SparseAutoencoder:
    """An SAE away from its initial values; decoder rows not of unit norm, so that gradients along them show."""
    cls, options = CASES[name]
    sae = cls(D, F, options, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    sae.initialise(torch.full((D,), 0.1, dtype=dtype), generator)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype))
        if isinstance(sae, JumpReLUSAE):
            sae.threshold.abs_()
    return sae


def batch(rows: int = B, dtype: torch.dtype = torch.float64) -> Tensor:
    x_BD = torch.randn(rows, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / D**0.5
    x_BD[2] = 0
    return x_BD.to(dtype)


def assert_equals_autograd(sae: SparseAutoencoder, x_BD: Tensor, state: StepState) -> None:
    sae.zero_grad(set_to_none=True)
    reference = sae.training_loss(x_BD, state)
    reference.total.backward()
    expected = {name: p.grad for name, p in sae.named_parameters()}
    for parameter in sae.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)  # has to be overwritten, not added to
    loss = sae.loss_and_gradients(x_BD, state, Workspace())
    for name, parameter in sae.named_parameters():
        wanted = expected[name] if expected[name] is not None else torch.zeros_like(parameter)
        scale = float(wanted.abs().max())
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-10, atol=1e-10 * scale, msg=lambda m, n=name: n + m)
    assert loss.parts.keys() == reference.parts.keys()
    for name, part in reference.parts.items():
        torch.testing.assert_close(loss.parts[name], part.detach(), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(loss.total, reference.total.detach(), rtol=1e-10, atol=1e-14)
    assert not any(t.requires_grad for t in (loss.total, *loss.parts.values()))
    assert torch.equal(loss.fired_F, reference.fired_F)
    assert loss.fired_F.dtype == torch.int64


@pytest.mark.parametrize("dead", ["nobody", "a third", "everybody"])
@pytest.mark.parametrize("sparsity_scale", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_autograd_in_float64(name: str, sparsity_scale: float, dead: str) -> None:
    dead_F = {"nobody": None, "a third": torch.arange(F) % 3 == 0, "everybody": torch.ones(F, dtype=torch.bool)}[dead]
    assert_equals_autograd(build(name), batch(), StepState(sparsity_scale=sparsity_scale, dead_F=dead_F))


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_autograd_with_silent_features_and_a_zero_decoder_row(name: str) -> None:
    sae = build(name)
    with torch.no_grad():
        for parameter in (getattr(sae, n) for n in ("b_enc", "b_gate") if hasattr(sae, n)):
            parameter[:7] = -100.0
        sae.W_dec[9] = 0
    loss = sae.loss_and_gradients(batch(), StepState(), Workspace())
    assert int(loss.fired_F[:7].sum()) == 0
    assert_equals_autograd(sae, batch(), StepState(dead_F=loss.fired_F == 0))


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_autograd_where_pre_activations_tie_with_the_threshold_and_the_window(name: str) -> None:
    """Integer-valued weights make every product exact, so ties are ties in both orders of summation."""
    sae = build(name)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for parameter in sae.parameters():
            parameter.copy_(torch.randint(-1, 2, parameter.shape, generator=generator))
        if isinstance(sae, JumpReLUSAE):
            sae.threshold.abs_()
            sae.bandwidth = 2.0  # the window's border |pre - threshold| = 1 is met exactly
    x_BD = torch.randint(-1, 2, (B, D), generator=torch.Generator().manual_seed(4)).double()
    pre_BF = sae.pre_activations(x_BD)
    limit_F = sae.threshold if isinstance(sae, JumpReLUSAE) else torch.zeros(F, dtype=torch.float64)
    assert int((pre_BF == limit_F).sum()) > 20
    assert_equals_autograd(sae, x_BD, StepState(sparsity_scale=0.5))


@pytest.mark.parametrize("name", CASES)
def test_float32_is_close_to_float64(name: str) -> None:
    exact, single = build(name), build(name, torch.float32)
    for sae, dtype in ((exact, torch.float64), (single, torch.float32)):
        sae.loss_and_gradients(batch(dtype=dtype), StepState(), Workspace())
    for (label, wanted), got in zip(exact.named_parameters(), single.parameters(), strict=True):
        error = (got.grad.double() - wanted.grad).norm() / wanted.grad.norm()
        assert got.grad.dtype == torch.float32
        assert error < 1e-4, f"{label}: {error}"


class LargestNewTensor(TorchDispatchMode):
    """Records the largest storage that an operation returned and that was not among its arguments or the known ones."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.known = {t.untyped_storage().data_ptr() for t in known}
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.largest = max(self.largest, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("dead_F", [None, torch.arange(F) % 2 == 0], ids=["none dead", "half dead"])
@pytest.mark.parametrize("name", CASES)
def test_no_tensor_of_batch_times_features_is_allocated_after_the_first_step(name: str, dead_F: Tensor | None) -> None:
    sae, workspace, x_BD, state = build(name), Workspace(), batch(), StepState(dead_F=dead_F)
    sae.loss_and_gradients(x_BD, state, workspace)
    buffers, before = list(workspace._flat.values()), workspace.nbytes
    gradients = {n: p.grad.data_ptr() for n, p in sae.named_parameters()}
    with LargestNewTensor([x_BD, *buffers, *sae.parameters(), *(p.grad for p in sae.parameters())]) as seen:
        sae.loss_and_gradients(x_BD, state, workspace)
    assert 0 < seen.largest < B * F
    assert seen.largest <= F * 2  # vectors over features at most, nothing of B x D or F x D either
    assert workspace.nbytes == before
    assert {n: p.grad.data_ptr() for n, p in sae.named_parameters()} == gradients


def test_the_allocation_watch_sees_what_autograd_allocates() -> None:
    sae, x_BD = build("relu"), batch()
    with LargestNewTensor([x_BD, *sae.parameters()]) as seen:
        SparseAutoencoder.loss_and_gradients(sae, x_BD, StepState(), Workspace())
    assert seen.largest >= B * F


@pytest.mark.parametrize("name", CASES)
def test_a_smaller_batch_after_a_larger_one_is_not_polluted_by_it(name: str) -> None:
    sae, workspace = build(name), Workspace()
    sae.loss_and_gradients(batch(64), StepState(), workspace)
    sae.loss_and_gradients(batch(5), StepState(), workspace)
    reused = [p.grad.clone() for p in sae.parameters()]
    sae.loss_and_gradients(batch(5), StepState(), Workspace())
    assert all(torch.equal(a, p.grad) for a, p in zip(reused, sae.parameters(), strict=True))


def test_keep_where_positive_zeroes_at_and_below_zero() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0]])
    assert dense.keep_where_positive(values, torch.tensor([[0.0, -1.0, 1e-30]])) is values
    assert values.tolist() == [[0.0, 0.0, 3.0]]


def test_decode_error_is_exact_to_float32_over_many_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    f_BF, x_BD = torch.rand(4096, 8, generator=generator), torch.randn(4096, 256, generator=generator)
    W_dec, b_dec = torch.randn(8, 256, generator=generator), torch.randn(256, generator=generator)
    mse = dense.decode_error(f_BF, x_BD, W_dec, b_dec, torch.empty_like(x_BD))
    exact = (f_BF.double() @ W_dec.double() + b_dec.double() - x_BD.double()).square().sum(dim=1).mean()
    assert float(mse) == pytest.approx(float(exact), rel=2e-6)
