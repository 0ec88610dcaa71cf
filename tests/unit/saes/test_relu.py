"""ReLU SAE: the rule and the loss by hand-worked numbers."""

from __future__ import annotations

import pytest
import torch

from neuronmap.errors import ConfigError
from neuronmap.saes.base import StepState
from neuronmap.saes.relu import ReLUOptions, ReLUSAE


def tiny() -> ReLUSAE:
    """D = 2, F = 3: W_dec rows of norm 1, 2 and 5."""
    sae = ReLUSAE(2, 3, ReLUOptions(sparsity_penalty=0.5), dtype=torch.float64)
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]))
        sae.b_enc.copy_(torch.tensor([0.0, -1.0, 0.0]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]))
        sae.b_dec.copy_(torch.tensor([1.0, 0.0]))
    return sae


def test_encode_subtracts_the_decoder_bias_and_cuts_at_zero() -> None:
    x = torch.tensor([[3.0, 4.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    assert tiny().encode(x).tolist() == [[2.0, 3.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_loss_is_squared_error_plus_the_penalty_weighted_by_decoder_norms() -> None:
    # Row (3, 4): f = (2, 3, 0), xhat = (3, 6), error 4, weighted L1 = 2*1 + 3*2 = 8.
    with torch.no_grad():
        loss = tiny().training_loss(torch.tensor([[3.0, 4.0]], dtype=torch.float64), StepState(sparsity_scale=0.25))
    assert float(loss.parts["mse"]) == 4.0
    assert float(loss.parts["sparsity"]) == 8.0
    assert float(loss.total) == 4.0 + 0.25 * 0.5 * 8.0
    assert loss.fired_F.tolist() == [1, 1, 0]


def test_the_penalty_is_blind_to_moving_scale_between_encoder_and_decoder() -> None:
    sae, x = tiny(), torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    before = float(sae.training_loss(x, StepState()).total.detach())
    with torch.no_grad():
        sae.W_enc.mul_(4.0)
        sae.b_enc.mul_(4.0)
        sae.W_dec.div_(4.0)
    assert float(sae.training_loss(x, StepState()).total.detach()) == before


def test_folding_gives_the_same_reconstruction_on_raw_activations() -> None:
    sae = tiny()
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = sae(0.25 * x) / 0.25
    sae.fold_input_scale(0.25)
    torch.testing.assert_close(sae(x), wanted)


def test_saelens_tensors_are_those_of_a_standard_sae_and_read_back() -> None:
    sae = tiny()
    tensors = sae.saelens_tensors()
    assert sae.saelens_config() == {"architecture": "standard"}
    assert {n: tuple(t.shape) for n, t in tensors.items()} == {
        "W_enc": (2, 3), "b_enc": (3,), "W_dec": (3, 2), "b_dec": (2,),
    }  # fmt: skip
    again = ReLUSAE.from_saelens(sae.saelens_config(), tensors, ReLUOptions())
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(again(x), sae(x))


@pytest.mark.parametrize("penalty", [0.0, -1.0])
def test_a_penalty_that_is_not_positive_is_refused(penalty: float) -> None:
    with pytest.raises(ConfigError, match="sparsity_penalty"):
        ReLUOptions(sparsity_penalty=penalty)
