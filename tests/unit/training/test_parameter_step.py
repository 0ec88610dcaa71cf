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
