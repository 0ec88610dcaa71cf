"""The parameter step takes the gradients that a step has written, and no others."""

from __future__ import annotations

import pytest
import torch

from neuronmap.saes import Workspace, get_architecture
from neuronmap.training.parameters import ParameterStep


def test_a_parameter_without_a_gradient_stays_as_it_is():
    """Its memory would be read uninitialised; torch's own Adam leaves such a parameter alone, too."""
    owner = get_architecture("topk")
    sae = owner(6, 12, owner.Options(k=2))
    sae.initialise(torch.zeros(6), torch.Generator().manual_seed(0))
    parameters = ParameterStep(sae, 1e-8, 1.0, Workspace())
    for name, parameter in sae.named_parameters():
        parameter.grad = None if name == "b_enc" else torch.ones_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in sae.named_parameters()}
    norm = parameters.gradient_norm()
    assert bool(torch.isfinite(norm))
    parameters.apply(1e-2, norm)
    assert sae.b_enc.grad is None
    assert torch.equal(sae.b_enc, before["b_enc"])
    assert not torch.equal(sae.W_enc, before["W_enc"])


@pytest.mark.parametrize("kernels", ["torch", "native"])
def test_the_row_of_an_sae_of_one_feature_has_unit_norm(kernels):
    """Its W_dec is one row, and as a matrix in memory one column just as well."""
    owner = get_architecture("topk")
    sae = owner(6, 1, owner.Options(k=1))
    sae.initialise(torch.zeros(6), torch.Generator().manual_seed(0))
    parameters = ParameterStep(sae, 1e-8, None, Workspace(kernels=kernels))
    for parameter in sae.parameters():
        parameter.grad = torch.ones_like(parameter)
    parameters.apply(1e-2, None)
    assert float(sae.W_dec.detach().square().sum()) == pytest.approx(1.0)


def weights_after(clip_norm, factors, kernels="torch"):
    """All weights of an SAE after steps along gradients of one direction each, made longer by the factors."""
    owner = get_architecture("topk")
    sae = owner(6, 12, owner.Options(k=2))
    sae.initialise(torch.zeros(6), torch.Generator().manual_seed(0))
    parameters = ParameterStep(sae, 1e-12, clip_norm, Workspace(kernels=kernels))
    generator = torch.Generator().manual_seed(1)
    for factor in factors:
        for parameter in sae.parameters():
            parameter.grad = torch.empty_like(parameter).copy_(
                torch.randn(parameter.shape, generator=generator) * factor
            )
        parameters.apply(1e-2, parameters.gradient_norm())
    return torch.cat([parameter.detach().reshape(-1) for parameter in sae.parameters()])


@pytest.mark.parametrize("kernels", ["torch", "native"])
def test_brought_to_unit_norm_all_steps_count_alike(kernels):
    """Adam forgives a factor on all gradients, not on one of them: a long one makes all later steps short."""
    even, spiked = ([0.05] * 6, [0.05, 0.05, 5.0, 0.05, 0.001, 0.05])
    assert torch.allclose(weights_after("unit", spiked, kernels), weights_after("unit", even, kernels), atol=2e-6)
    assert not torch.allclose(weights_after(None, spiked, kernels), weights_after(None, even, kernels), atol=1e-3)


def test_a_limit_acts_on_what_is_above_it_only():
    norms = []
    for factor in (1e-3, 1.0):
        owner = get_architecture("topk")
        sae = owner(6, 12, owner.Options(k=2))
        sae.initialise(torch.zeros(6), torch.Generator().manual_seed(0))
        parameters = ParameterStep(sae, 1e-8, 0.5, Workspace(kernels="torch"))
        for parameter in sae.parameters():
            parameter.grad = torch.full_like(parameter, factor)
        norm = parameters.gradient_norm()
        parameters.apply(1e-2, norm)
        first, _ = parameters.moments["b_enc"]
        norms.append((float(norm), float(first[0]) / 0.1))
    (small, kept), (large, shortened) = norms
    assert small < 0.5 < large
    assert kept == pytest.approx(1e-3)
    assert shortened == pytest.approx(0.5 / large, rel=1e-4)


@pytest.mark.parametrize("kernels", ["torch", "native"])
def test_no_gradient_is_not_made_larger(kernels):
    still = weights_after("unit", [0.0, 0.0], kernels)
    assert torch.allclose(still, weights_after("unit", [], kernels), atol=1e-6)  # rows are brought to unit norm again
