"""Gated SAE: the rule by hand-worked numbers, and which term trains what."""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.saes.base import StepState
from neuronmap.saes.gated import GatedOptions, GatedSAE


def random_sae() -> GatedSAE:
    sae = GatedSAE(5, 12, GatedOptions(sparsity_penalty=0.1), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return sae


def rows() -> Tensor:
    return torch.randn(20, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_feature_needs_an_open_gate_and_a_positive_magnitude() -> None:
    sae = GatedSAE(1, 4, dtype=torch.float64)
    with torch.no_grad():
        sae.W_enc.fill_(1.0)
        sae.b_gate.copy_(torch.tensor([0.0, -3.0, 0.0, -2.0]))  # the last gate is exactly 0: shut
        sae.b_mag.copy_(torch.tensor([1.0, 1.0, -9.0, 1.0]))
        sae.r_mag.fill_(torch.tensor(3.0).log().item())
    torch.testing.assert_close(
        sae.encode(torch.tensor([[2.0]], dtype=torch.float64)), torch.tensor([[7.0, 0, 0, 0]]).double()
    )


def gradients_of_part(sae: GatedSAE, part: str) -> dict[str, float]:
    sae.zero_grad(set_to_none=True)
    sae.training_loss(rows(), StepState()).parts[part].backward()
    return {name: 0.0 if p.grad is None else float(p.grad.abs().sum()) for name, p in sae.named_parameters()}


def test_reconstruction_does_not_train_the_gate() -> None:
    found = gradients_of_part(random_sae(), "mse")
    assert found["b_gate"] == 0
    assert all(found[name] > 0 for name in ("b_mag", "r_mag", "W_enc", "W_dec", "b_dec"))


def test_the_auxiliary_reconstruction_trains_the_gate_but_not_the_decoder() -> None:
    found = gradients_of_part(random_sae(), "aux")
    assert found["b_gate"] > 0
    assert found["W_dec"] == found["b_mag"] == found["r_mag"] == 0


def test_the_auxiliary_term_reconstructs_from_the_gates_alone() -> None:
    sae, x_BD = random_sae(), rows()
    gate_BF = torch.relu((x_BD - sae.b_dec) @ sae.W_enc + sae.b_gate)
    wanted = (x_BD - sae.decode(gate_BF)).square().sum(dim=1).mean()
    loss = sae.training_loss(x_BD, StepState(sparsity_scale=0.5))
    torch.testing.assert_close(loss.parts["aux"], wanted)
    l1 = (gate_BF * sae.W_dec.norm(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(loss.total, loss.parts["mse"] + 0.5 * 0.1 * l1 + wanted)


def test_folding_gives_the_same_reconstruction_on_raw_activations() -> None:
    sae = random_sae()
    wanted = sae(0.25 * rows()) / 0.25
    sae.fold_input_scale(0.25)
    torch.testing.assert_close(sae(rows()), wanted)


def test_saelens_tensors_have_no_encoder_bias_and_read_back() -> None:
    sae = random_sae()
    tensors = sae.saelens_tensors()
    assert sae.saelens_config() == {"architecture": "gated"}
    assert set(tensors) == {"W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"}
    again = GatedSAE.from_saelens(sae.saelens_config(), tensors, GatedOptions())
    assert torch.equal(again(rows()), sae(rows()))
