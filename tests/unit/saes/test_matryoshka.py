"""Matryoshka: levels, the averaged nested loss, and that prefixes stand alone.

Shapes: B rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuronmap.errors import ConfigError
from neuronmap.saes.base import StepState
from neuronmap.saes.batchtopk import BatchTopKSAE
from neuronmap.saes.matryoshka import MatryoshkaOptions, MatryoshkaSAE
from neuronmap.saes.workspace import Workspace


def rows(count: int = 40, seed: int = 1) -> Tensor:
    return torch.randn(count, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(cls=MatryoshkaSAE, **options):
    sae = cls(10, 32, cls.Options(k=4, **options), dtype=torch.float64)
    sae.initialise(rows().mean(dim=0), torch.Generator().manual_seed(0))
    return sae


def test_default_levels_are_a_sixteenth_then_doubling_and_end_at_the_width():
    assert MatryoshkaOptions().level_widths(4096) == (256, 768, 1792, 4096)
    assert built().level_widths() == (2, 6, 14, 32)


def test_fractions_that_are_not_exact_in_binary_still_give_whole_groups():
    assert MatryoshkaOptions(group_fractions=(0.1, 0.2, 0.7)).level_widths(30) == (3, 9, 30)
    assert MatryoshkaOptions(group_fractions=(1 / 3, 1 / 3, 1 / 3)).level_widths(30) == (10, 20, 30)


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (0.5, 0.6), (-0.5, 1.5), (0.0, 1.0), ()])
def test_fractions_must_be_positive_and_sum_to_one(fractions):
    with pytest.raises(ConfigError, match="group_fractions"):
        MatryoshkaOptions(group_fractions=fractions)


def test_a_width_the_fractions_do_not_divide_is_refused_with_the_groups():
    with pytest.raises(ConfigError, match=r"d_sae = 40 .*2\.5, 5, 10, 22\.5") as caught:
        MatryoshkaSAE(10, 40)
    assert "16" in caught.value.hint
    MatryoshkaSAE(10, 40, MatryoshkaOptions(group_fractions=(0.25, 0.75)))


@pytest.mark.parametrize("fractions", [(1 / 16, 1 / 8, 1 / 4, 9 / 16), (0.25, 0.75), (0.125,) * 8])
def test_the_loss_is_the_mean_over_levels_of_the_prefixes_errors(fractions):
    sae = built(group_fractions=fractions)
    x_BD = rows()
    with torch.no_grad():
        pre_BF = (x_BD - sae.b_dec) @ sae.W_enc + sae.b_enc
        cut = pre_BF.reshape(-1).topk(4 * 40).values[-1]
        f_BF = torch.where(pre_BF >= cut, pre_BF, 0.0).relu()
        errors = [
            (x_BD - f_BF[:, :width] @ sae.W_dec[:width] - sae.b_dec).square().sum(dim=1).mean()
            for width in sae.level_widths()
        ]
    for loss in (sae.training_loss(x_BD, StepState()), sae.loss_and_gradients(x_BD, StepState(), Workspace())):
        torch.testing.assert_close(loss.total.detach(), torch.stack(errors).mean())
        torch.testing.assert_close(loss.parts["mse"].detach(), errors[-1])
    torch.testing.assert_close(loss.extra["level_mse"], torch.stack(errors))


def test_one_level_is_batchtopk():
    x_BD, state = rows(), StepState(dead_F=torch.arange(32) % 3 == 0)
    nested, plain = built(group_fractions=(1.0,)), built(BatchTopKSAE)
    found = [sae.loss_and_gradients(x_BD, state, Workspace()) for sae in (nested, plain)]
    torch.testing.assert_close(found[0].total, found[1].total)
    for one, other in zip(nested.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_prefixes_reconstruct_better_than_those_of_batchtopk():
    """What the architecture is for: the first features alone already explain most."""
    prefix_errors = {}
    data = rows(4096, seed=5) @ torch.diag(torch.linspace(2, 0.2, 10, dtype=torch.float64))
    for cls in (MatryoshkaSAE, BatchTopKSAE):
        sae = built(cls)
        optimiser, workspace = torch.optim.Adam(sae.parameters(), lr=5e-3), Workspace()
        order = torch.Generator().manual_seed(2)
        for step in range(300):
            x_BD = data[torch.randint(0, 4096, (256,), generator=order)]
            loss = sae.loss_and_gradients(x_BD, StepState(step=step), workspace)
            sae.project_decoder_gradient()
            optimiser.step()
            sae.after_step(loss, StepState(step=step))
        with torch.no_grad():
            f_NF = sae.encode(data)
            prefix = f_NF[:, :6] @ sae.W_dec[:6] + sae.b_dec
            prefix_errors[cls] = float((data - prefix).square().sum(dim=1).mean())
    assert prefix_errors[MatryoshkaSAE] < 0.8 * prefix_errors[BatchTopKSAE]
