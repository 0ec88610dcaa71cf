"""Frequency order: features change places, the SAE does not.

Shapes: B rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

import pytest
import torch

from neuronmap.progress import SilentProgress
from neuronmap.saes import StepLoss, Workspace, get_architecture
from neuronmap.training import SAEConfig, SAETrainer
from neuronmap.training.dead import DeadFeatures
from neuronmap.training.ordering import FrequencyOrder
from neuronmap.training.parameters import ParameterStep


def fired(*counts: int) -> StepLoss:
    return StepLoss(torch.zeros(()), {}, torch.tensor(counts))


@pytest.fixture
def ordered():
    """An SAE of 16 features with moments and counters that tell them apart, and its order after rarely-first firings."""
    cls = get_architecture("matryoshka")
    sae = cls(6, 16, cls.Options(k=4, sort_features=True))
    sae.initialise(torch.zeros(6), torch.Generator().manual_seed(0))
    with torch.no_grad():
        sae.b_enc.copy_(torch.linspace(-0.1, 0.1, 16))
    parameters = ParameterStep(sae, 1e-8, None, Workspace())
    for first, second in parameters.moments.values():
        first.copy_(torch.randn(first.shape, generator=torch.Generator().manual_seed(1)))
        second.copy_(first.square())
    dead = DeadFeatures(16, window=1000)
    dead.since_fired_F.copy_(torch.arange(16))
    order = FrequencyOrder(sae)
    order.update(fired(*range(16)), rows=32)
    return sae, parameters, dead, order


def test_nothing_moves_between_the_times_of_ordering(ordered):
    sae, parameters, dead, order = ordered
    before = sae.W_dec.clone()
    assert not order.restore_order(99, parameters, dead)
    assert torch.equal(sae.W_dec, before)


def test_the_most_frequent_come_first_and_everything_goes_along(ordered):
    sae, parameters, dead, order = ordered
    x_BD = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    moments = {name: tensor.clone() for name, tensor in parameters.state().items()}
    reconstructed_BD, code_BF = sae.reconstruct(x_BD), sae.encode(x_BD)
    assert order.restore_order(100, parameters, dead)
    assert torch.equal(sae.W_dec, before["W_dec"].flip(0))
    assert torch.equal(sae.W_enc, before["W_enc"].flip(1))
    assert torch.equal(sae.b_enc, before["b_enc"].flip(0))
    assert torch.equal(sae.b_dec, before["b_dec"])
    after = parameters.state()
    for name, axis in (("W_dec", 0), ("W_enc", 1), ("b_enc", 0)):
        for part in ("first", "second"):
            assert torch.equal(after[f"{name}.{part}"], moments[f"{name}.{part}"].flip(axis))
    assert torch.equal(after["b_dec.first"], moments["b_dec.first"])
    assert torch.equal(dead.since_fired_F, torch.arange(16).flip(0))
    assert bool((order.frequency_F[:-1] >= order.frequency_F[1:]).all())
    torch.testing.assert_close(sae.reconstruct(x_BD), reconstructed_BD)
    assert torch.equal(sae.encode(x_BD), code_BF.flip(1))


def test_what_is_in_order_stays(ordered):
    _, parameters, dead, order = ordered
    order.restore_order(100, parameters, dead)
    assert not order.restore_order(200, parameters, dead)


@pytest.mark.parametrize("architecture", ["matryoshka", "lista"])
def test_a_trained_sae_has_its_frequent_features_first(architecture, rows, small):
    """With the option the density falls along the features; without it, it does not."""

    def trained(sort: bool) -> torch.Tensor:
        fields = {**small, "architecture": architecture, "num_epochs": 14.0}
        config = SAEConfig(**fields, architecture_options={"sort_features": sort})
        sae = SAETrainer(config, progress=SilentProgress()).train(rows).sae
        return (sae.encode(rows) > 0).float().mean(dim=0)

    def disorder(density_F: torch.Tensor) -> float:
        """Share of pairs of features of which the later fires more often."""
        later = density_F[None, :] > density_F[:, None]
        return float(later.triu(1).float().mean() * 2)

    assert disorder(trained(True)) < 0.5 * disorder(trained(False))
