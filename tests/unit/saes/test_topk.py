"""TopK: the rule, and the sparse training step of the family against autograd.

Shapes: B rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuronmap.errors import ConfigError
from neuronmap.saes.base import SparseAutoencoder, StepState
from neuronmap.saes.batchtopk import BatchTopKSAE
from neuronmap.saes.matryoshka import MatryoshkaSAE
from neuronmap.saes.topk import TopKOptions, TopKSAE
from neuronmap.saes.workspace import Workspace

FAMILY = [TopKSAE, BatchTopKSAE, MatryoshkaSAE]


def family_sae(cls, d_in=13, d_sae=48, k=5, dtype=torch.float64, seed=0, **options) -> SparseAutoencoder:
    sae = cls(d_in, d_sae, cls.Options(k=k, **options), dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    sae.initialise(torch.zeros(d_in, dtype=dtype), generator)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=dtype))
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    return sae


def rows(count: int, d_in: int = 13, seed: int = 1, dtype=torch.float64) -> Tensor:
    return torch.randn(count, d_in, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_fast_equals_reference(sae: SparseAutoencoder, x_BD: Tensor, state: StepState) -> None:
    sae.zero_grad(set_to_none=True)
    reference = sae.training_loss(x_BD, state)
    reference.total.backward()
    expected = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in sae.named_parameters()}
    sae.zero_grad(set_to_none=True)
    loss = sae.loss_and_gradients(x_BD, state, Workspace())
    assert not loss.total.requires_grad
    torch.testing.assert_close(loss.total, reference.total.detach(), rtol=1e-9, atol=1e-12)
    assert loss.parts.keys() == reference.parts.keys()
    for name, part in reference.parts.items():
        torch.testing.assert_close(loss.parts[name], part.detach(), rtol=1e-9, atol=1e-12)
    for name, parameter in sae.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert torch.equal(loss.fired_F, reference.fired_F)
    assert loss.fired_F.dtype == torch.int64
    torch.testing.assert_close(loss.threshold, reference.threshold, rtol=1e-12, atol=0)


def dead_mask(d_sae: int, which: str) -> Tensor | None:
    if which == "nobody":
        return None
    mask = torch.zeros(d_sae, dtype=torch.bool)
    if which == "a third":
        mask[::3] = True
    elif which == "one":
        mask[5] = True
    elif which == "all":
        mask[:] = True
    return mask


@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("dead", ["nobody", "an empty mask", "one", "a third", "all"])
@pytest.mark.parametrize("k", [1, 5, 40, 48])
def test_fast_gradients_equal_autograd_in_float64(cls, dead, k):
    """k = 40 and 48 of 48 take the dense products, the rest the sparse ones."""
    assert_fast_equals_reference(family_sae(cls, k=k), rows(37), StepState(dead_F=dead_mask(48, dead)))


@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("aux_k", [1, 3, 20])
def test_fast_gradients_equal_autograd_for_any_aux_k(cls, aux_k):
    sae = family_sae(cls, d_sae=160, aux_k=aux_k)
    assert_fast_equals_reference(sae, rows(37), StepState(dead_F=dead_mask(160, "a third")))


@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("count", [1, 2, 65])
def test_fast_gradients_equal_autograd_for_any_number_of_rows(cls, count):
    assert_fast_equals_reference(family_sae(cls), rows(count), StepState(dead_F=dead_mask(48, "a third")))


@pytest.mark.parametrize("cls", FAMILY)
def test_fast_gradients_equal_autograd_with_ties_zero_rows_and_k_above_the_active(cls):
    sae = family_sae(cls, k=30)
    x_BD = rows(21)
    with torch.no_grad():
        sae.W_enc[:, 1] = sae.W_enc[:, 0]
        sae.W_enc[:, 7] = sae.W_enc[:, 0]
        sae.b_enc.zero_()
        x_BD[4] = sae.b_dec  # all pre-activations are zero: tied, and none may fire
        x_BD[9] = x_BD[8]
    for k in (1, 2, 30):
        assert_fast_equals_reference(sae, x_BD, StepState(k=k, dead_F=dead_mask(48, "a third")))
    with torch.no_grad():
        sae.b_enc.fill_(-100.0)  # nothing fires at all
    assert_fast_equals_reference(sae, x_BD, StepState(dead_F=dead_mask(48, "a third")))


@pytest.mark.parametrize("cls", FAMILY)
def test_annealed_k_replaces_the_options_k_and_stops_at_the_width(cls):
    sae, x_BD = family_sae(cls, k=3), rows(30)
    with torch.no_grad():
        sae.b_enc.fill_(100.0)  # everything is positive, so that k decides alone
    for k, active in ((None, 3), (7, 7), (1000, 48)):
        assert int(sae.loss_and_gradients(x_BD, StepState(k=k), Workspace()).fired_F.sum()) == 30 * active


@pytest.mark.parametrize("cls", FAMILY)
def test_two_runs_give_the_same_bits_whatever_the_workspace_held(cls):
    """Resuming bit for bit: nothing but parameters, buffers and data may enter a step."""
    finals = []
    for dirty in (False, True):
        sae = family_sae(cls, dtype=torch.float32)
        optimiser = torch.optim.Adam(sae.parameters(), lr=1e-2, fused=True)
        workspace = Workspace()
        for step in range(12):
            x_BD = rows(64, seed=step, dtype=torch.float32)
            if dirty:
                workspace = Workspace()
                sae.loss_and_gradients(rows(80, seed=99, dtype=torch.float32), StepState(k=9), workspace)
            state = StepState(step=step, dead_F=dead_mask(48, "a third"))
            loss = sae.loss_and_gradients(x_BD, state, workspace)
            sae.project_decoder_gradient()
            optimiser.step()
            sae.after_step(loss, state)
        finals.append({name: tensor.clone() for name, tensor in sae.state_dict().items()})
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


@pytest.mark.parametrize("cls", FAMILY)
def test_gradient_tensors_are_kept_between_steps(cls):
    sae, workspace = family_sae(cls), Workspace()
    sae.loss_and_gradients(rows(8), StepState(), workspace)
    held = [parameter.grad for parameter in sae.parameters()]
    sae.loss_and_gradients(rows(9), StepState(), workspace)
    assert all(parameter.grad is grad for parameter, grad in zip(sae.parameters(), held, strict=True))


def test_encode_keeps_the_k_largest_and_only_positive_ones():
    sae, x_BD = family_sae(TopKSAE, k=5), rows(40)
    pre_BF = (x_BD - sae.b_dec) @ sae.W_enc + sae.b_enc
    f_BF = sae.encode(x_BD)
    for pre_F, f_F in zip(pre_BF, f_BF, strict=True):
        expected = torch.topk(pre_F, 5)
        kept = torch.zeros(48, dtype=torch.float64)
        kept[expected.indices] = expected.values.relu()
        torch.testing.assert_close(f_F, kept, rtol=0, atol=1e-12)
    with torch.no_grad():
        sae.b_enc.fill_(-100.0)
    assert not sae.encode(x_BD).any()


def test_encode_takes_any_leading_shape_and_is_differentiable():
    sae = family_sae(TopKSAE)
    x = rows(12).view(3, 4, 13).requires_grad_()
    f = sae.encode(x)
    assert f.shape == (3, 4, 48)
    assert sae.encode(x[0, 0]).shape == (48,)
    f.sum().backward()
    active = (f > 0).double().detach()
    torch.testing.assert_close(x.grad, active @ sae.W_enc.T.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("values", "field"), [({"k": 49}, "k"), ({"aux_k": 60}, "aux_k")])
def test_options_that_do_not_fit_the_width_name_the_field(values, field):
    with pytest.raises(ConfigError, match=rf"TopKOptions.{field} = \d+.*48"):
        TopKSAE(13, 48, TopKOptions(**values))


@pytest.mark.parametrize("values", [{"k": 0}, {"aux_k": 0}, {"aux_coefficient": -1.0}, {"kk": 3}])
def test_impossible_options_are_refused(values):
    with pytest.raises(ConfigError, match=f"{next(iter(values))}"):
        TopKOptions(**values)


def test_saelens_form_is_topk_without_rescaling():
    sae = family_sae(TopKSAE, k=7)
    assert sae.saelens_config() == {"architecture": "topk", "k": 7, "rescale_acts_by_decoder_norm": False}
    assert {name: tuple(t.shape) for name, t in sae.saelens_tensors().items()} == {
        "W_enc": (13, 48),
        "b_enc": (48,),
        "W_dec": (48, 13),
        "b_dec": (13,),
    }
