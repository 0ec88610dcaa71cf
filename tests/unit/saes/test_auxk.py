"""AuxK: its gradients reach the encoder (three libraries got this wrong), only at dead features, and revive them.

Shapes: B rows, D = d_in, F = d_sae, M = dead features.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from neuronmap.saes.auxk import auxk_loss
from neuronmap.saes.base import SparseAutoencoder, StepState
from neuronmap.saes.batchtopk import BatchTopKSAE
from neuronmap.saes.matryoshka import MatryoshkaSAE
from neuronmap.saes.topk import TopKSAE
from neuronmap.saes.workspace import Workspace

FAMILY = [TopKSAE, BatchTopKSAE, MatryoshkaSAE]
D_IN, D_SAE, ROWS = 12, 64, 50


def built(cls, **options) -> SparseAutoencoder:
    sae = cls(D_IN, D_SAE, cls.Options(k=4, **options), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    sae.initialise(torch.zeros(D_IN, dtype=torch.float64), generator)
    with torch.no_grad():
        sae.W_enc.add_(0.2 * torch.randn(D_IN, D_SAE, generator=generator, dtype=torch.float64))
        sae.b_dec.add_(0.2 * torch.randn(D_IN, generator=generator, dtype=torch.float64))
    return sae


def some_rows() -> Tensor:
    return torch.randn(ROWS, D_IN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def dead_mask() -> Tensor:
    dead_F = torch.zeros(D_SAE, dtype=torch.bool)
    dead_F[::3] = True
    return dead_F


def gradients(sae: SparseAutoencoder, dead_F: Tensor | None) -> dict[str, Tensor]:
    sae.zero_grad(set_to_none=True)
    sae.loss_and_gradients(some_rows(), StepState(dead_F=dead_F), Workspace())
    return {name: parameter.grad.clone() for name, parameter in sae.named_parameters()}


def dense_auxk(sae: SparseAutoencoder, residual_BD: Tensor, aux_k: int) -> Tensor:
    """The definition, in dense autograd and by none of the library's functions."""
    pre_BF = (some_rows() - sae.b_dec) @ sae.W_enc + sae.b_enc
    pre_BF = pre_BF.masked_fill(~dead_mask(), -torch.inf)
    kth_B1 = torch.topk(pre_BF, aux_k, dim=1).values[:, -1:]
    f_BF = torch.where(pre_BF >= kth_B1, pre_BF, 0.0).relu()
    centred_BD = residual_BD - residual_BD.mean(dim=0)
    return (residual_BD - f_BF @ sae.W_dec).square().sum() / centred_BD.square().sum()


@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("aux_k", [3, 22])
def test_auxk_gradients_equal_dense_autograd_and_touch_dead_features_only(cls, aux_k):
    """The AuxK share is what the step adds when a dead mask is given; aux_k = 22 is all of the dead."""
    sae = built(cls, aux_k=aux_k, aux_coefficient=0.25)
    with_aux, without = gradients(sae, dead_mask()), gradients(sae, None)
    residual_BD = training_residual(sae)
    sae.zero_grad(set_to_none=True)
    (0.25 * dense_auxk(sae, residual_BD, aux_k)).backward()
    for name, parameter in sae.named_parameters():
        share = with_aux[name] - without[name]
        torch.testing.assert_close(share, parameter.grad, rtol=1e-9, atol=1e-12)
    share_DF = with_aux["W_enc"] - without["W_enc"]
    assert not share_DF[:, ~dead_mask()].any(), "living features get nothing from AuxK"
    assert bool((share_DF[:, dead_mask()].abs().sum(dim=0) > 0).sum() > 10), "dead encoder columns get a gradient"
    share_FD = with_aux["W_dec"] - without["W_dec"]
    assert not share_FD[~dead_mask()].any()
    assert not (with_aux["b_enc"] - without["b_enc"])[~dead_mask()].any()


def training_residual(sae: SparseAutoencoder) -> Tensor:
    """x - xhat under the training rule, a constant."""
    pre_BF = sae.pre_activations(some_rows()).detach()
    code = sae.select(pre_BF, 4, Workspace())
    f_BF = code.dense(code.value_N, torch.empty_like(pre_BF))
    return (some_rows() - (f_BF @ sae.W_dec + sae.b_dec)).detach()


def test_auxk_is_one_when_the_dead_say_nothing_and_zero_when_they_say_it_all():
    residual_BD = some_rows()
    residual_BD -= residual_BD.mean(dim=0)
    dead_F = torch.ones(2 * D_IN, dtype=torch.bool)
    W_FD = torch.cat([torch.eye(D_IN), -torch.eye(D_IN)]).double()
    silent = auxk_loss(torch.full((ROWS, 2 * D_IN), -1.0).double(), residual_BD, W_FD, dead_F, 2 * D_IN)
    perfect = auxk_loss(torch.cat([residual_BD, -residual_BD], dim=1), residual_BD, W_FD, dead_F, 2 * D_IN)
    torch.testing.assert_close(silent, torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(perfect, torch.tensor(0.0, dtype=torch.float64))


@pytest.mark.parametrize("cls", FAMILY)
def test_nothing_left_to_explain_gives_zero_and_finite_gradients(cls):
    """One row has no variance: 0 / 0 counts as 0."""
    sae = built(cls)
    loss = sae.loss_and_gradients(some_rows()[:1], StepState(dead_F=dead_mask()), Workspace())
    assert float(loss.parts["aux"]) == 0.0
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in sae.parameters())


@pytest.mark.parametrize("cls", FAMILY)
def test_auxk_is_absent_without_dead_features_or_with_coefficient_zero(cls):
    state = StepState(dead_F=torch.zeros(D_SAE, dtype=torch.bool))
    assert "aux" not in built(cls).loss_and_gradients(some_rows(), state, Workspace()).parts
    switched_off = built(cls, aux_coefficient=0.0)
    state = StepState(dead_F=dead_mask())
    assert "aux" not in switched_off.loss_and_gradients(some_rows(), state, Workspace()).parts


def trained(cls, aux_coefficient: float, steps: int = 400) -> tuple[float, int]:
    """Train on rows of 32 sparse directions after killing three quarters of the features; (EV, features alive at the end)."""
    generator = torch.Generator().manual_seed(3)
    directions = normalize(torch.randn(32, 16, generator=generator), dim=1)

    def batch() -> Tensor:
        strength = (torch.rand(512, 32, generator=generator) < 2 / 32) * (
            0.5 + torch.rand(512, 32, generator=generator)
        )
        return strength @ directions / 1.5

    sae = cls(16, 64, cls.Options(k=4, aux_coefficient=aux_coefficient))
    sae.initialise(torch.zeros(16), generator)
    with torch.no_grad():
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_enc[torch.arange(64) % 4 != 0] = -0.8
        sae.W_enc[:, torch.arange(64) % 4 != 0] *= 0.6
    optimiser = torch.optim.Adam(sae.parameters(), lr=4e-3)
    workspace, silent_for, recent = Workspace(), torch.zeros(64), torch.zeros(64)
    for step in range(steps):
        state = StepState(step=step, dead_F=silent_for >= 5)
        loss = sae.loss_and_gradients(batch(), state, workspace)
        sae.project_decoder_gradient()
        optimiser.step()
        sae.after_step(loss, state)
        silent_for = torch.where(loss.fired_F > 0, 0, silent_for + 1)
        if step >= steps - 20:
            recent += loss.fired_F
    x_BD = batch()
    mse = sae.loss_and_gradients(x_BD, StepState(), workspace).parts["mse"]
    return float(1 - mse / (x_BD - x_BD.mean(dim=0)).square().sum(dim=1).mean()), int((recent > 0).sum())


@pytest.mark.parametrize("cls", FAMILY)
def test_auxk_revives_dead_features(cls):
    ev_without, alive_without = trained(cls, 0.0)
    ev_with, alive_with = trained(cls, 1 / 32)
    assert alive_without < 25
    assert alive_with >= alive_without + 5
    assert ev_with > ev_without + 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 3.7])
@pytest.mark.parametrize("cls", FAMILY)
def test_rows_that_are_all_equal_leave_auxk_nothing_to_explain(cls, value, dtype):
    """Their residuals differ by rounding only; over that variance the loss would be 1e13 and more."""
    sae = built(cls, aux_k=4).to(dtype)
    x_BD = torch.full((ROWS, D_IN), value, dtype=dtype)
    state = StepState(dead_F=dead_mask())
    for loss in (sae.loss_and_gradients(x_BD, state, Workspace()), sae.training_loss(x_BD, state)):
        assert float(loss.parts["aux"].detach()) == 0.0
        assert float(loss.total.detach()) < 1e4
