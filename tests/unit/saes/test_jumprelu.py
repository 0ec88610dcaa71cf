"""JumpReLU SAE: the rule, the straight-through estimates by hand-worked numbers, options, and short training runs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neuronmap.errors import ConfigError
from neuronmap.saes.base import SparseAutoencoder, StepState
from neuronmap.saes.jumprelu import JumpReLUOptions, JumpReLUSAE
from neuronmap.saes.topk import TopKOptions, TopKSAE
from neuronmap.saes.workspace import Workspace


def one_dimension(options: JumpReLUOptions, thresholds: list[float]) -> JumpReLUSAE:
    """D = 1, every encoder and decoder weight 1, no biases: every pre-activation is x."""
    sae = JumpReLUSAE(1, len(thresholds), options, dtype=torch.float64)
    with torch.no_grad():
        sae.W_enc.fill_(1.0)
        sae.W_dec.fill_(1.0)
        sae.threshold.copy_(torch.tensor(thresholds))
    return sae


def test_a_feature_at_its_threshold_is_off_and_above_it_is_not_shrunk() -> None:
    sae = one_dimension(JumpReLUOptions(), [0.0, 1.0, 2.0, 2.5])
    x = torch.tensor([[2.0], [-1.0], [0.0]], dtype=torch.float64)
    assert sae.encode(x).tolist() == [[2.0, 2.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4]


def test_features_just_below_their_threshold_feel_the_sparsity_term() -> None:
    """The window is on pre-activations: x = 1 lies below thresholds 1.1, inside a window of 0.4, outside one of 0.1."""
    for bandwidth, wanted in ((0.4, [-1 / 0.4, -1 / 0.4, 0.0]), (0.1, [0.0, 0.0, 0.0])):
        sae = one_dimension(JumpReLUOptions(sparsity_penalty=1.0, bandwidth=bandwidth), [1.1, 0.9, 1.3])
        loss = sae.training_loss(torch.ones(1, 1, dtype=torch.float64), StepState())
        loss.parts["sparsity"].backward()
        assert sae.threshold.grad is not None
        torch.testing.assert_close(sae.threshold.grad, torch.tensor(wanted, dtype=torch.float64))
        assert loss.fired_F.tolist() == [0, 1, 0]


def test_the_target_term_pulls_thresholds_towards_the_target_from_both_sides() -> None:
    x = torch.ones(1, 1, dtype=torch.float64)
    for target, sign in ((1.0, -1), (2.0, 0), (4.0, 1)):
        sae = one_dimension(JumpReLUOptions(target_l0=target, bandwidth=0.4), [0.9, 0.9, 1.1, 1.1])
        loss = sae.training_loss(x, StepState())
        assert float(loss.parts["sparsity"].detach()) == pytest.approx((2 / target - 1) ** 2)
        loss.parts["sparsity"].backward()
        # Descent moves against the gradient: too many active features raise the thresholds.
        assert torch.sign(sae.threshold.grad).tolist() == [sign] * 4


def test_an_annealed_target_falls_while_the_warm_up_lasts_and_weighs_as_much_all_along() -> None:
    x = torch.ones(1, 1, dtype=torch.float64)
    options = JumpReLUOptions(target_l0=1.0, target_anneal_factor=3.0, bandwidth=0.4)
    for scale, target in ((0.0, 3.0), (0.5, 2.0), (1.0, 1.0)):
        sae = one_dimension(options, [0.9, 0.9, 1.1, 1.1])
        loss = sae.training_loss(x, StepState(sparsity_scale=scale))
        assert float(loss.parts["sparsity"].detach()) == pytest.approx((2 / target - 1) ** 2)
        assert float((loss.total - loss.parts["mse"]).detach()) == pytest.approx(5 * (2 / target - 1) ** 2)


def test_step_estimates_train_thresholds_only_and_tanh_estimates_the_encoder_too() -> None:
    x = torch.ones(1, 1, dtype=torch.float64)
    for form, wanted in (("step", 0.0), ("tanh", 1.1 / 0.4)):
        options = JumpReLUOptions(sparsity_form=form, bandwidth=0.4, target_anneal_factor=1.0)
        sae = one_dimension(options, [1.1])
        loss = sae.training_loss(x, StepState(sparsity_scale=0.0))
        loss.total.backward()
        error_gradient = -2.0  # d mse / d xhat at xhat = 0, x = 1
        assert float(sae.threshold.grad) == pytest.approx(-1.1 / 0.4 * error_gradient)
        assert float(sae.b_enc.grad) == pytest.approx(wanted * error_gradient)


def test_tanh_penalty_saturates() -> None:
    sae = one_dimension(JumpReLUOptions(sparsity_form="tanh"), [0.0])
    with torch.no_grad():
        small, large = (
            sae.training_loss(torch.tensor([[v]]).double(), StepState()).parts["sparsity"] for v in (0.01, 50.0)
        )
    assert float(small) == pytest.approx(math.tanh(4.0 * 0.01))
    assert float(large) == pytest.approx(1.0)


@pytest.mark.parametrize("form", ["step", "tanh"])
def test_dead_features_alone_are_pulled_towards_firing(form: str) -> None:
    sae = one_dimension(JumpReLUOptions(sparsity_form=form, bandwidth=0.1, dead_penalty=0.5), [3.0, 3.0])
    x = torch.ones(4, 1, dtype=torch.float64)
    loss = sae.loss_and_gradients(x, StepState(dead_F=torch.tensor([True, False])), Workspace())
    assert float(loss.parts["aux"]) == 2.0
    assert sae.b_enc.grad.tolist() == [-0.5, 0.0]
    assert float(sae.threshold.grad[0]) == 0.5
    assert "aux" not in sae.loss_and_gradients(x, StepState(), Workspace()).parts


def test_thresholds_never_go_below_zero() -> None:
    sae = one_dimension(JumpReLUOptions(), [0.5, 0.5])
    with torch.no_grad():
        sae.threshold.copy_(torch.tensor([-1.0, 0.25]))
    state, x = StepState(), torch.ones(1, 1, dtype=torch.float64)
    sae.after_step(sae.training_loss(x, state), state)
    assert sae.threshold.tolist() == [0.0, 0.25]


def test_tanh_thresholds_stay_off_zero_where_they_would_have_no_gradient() -> None:
    sae = JumpReLUSAE(4, 8, JumpReLUOptions(sparsity_form="tanh"))
    sae.initialise(torch.zeros(4), torch.Generator().manual_seed(0))
    assert sae.threshold.tolist() == pytest.approx([0.1 / 2] * 8)
    with torch.no_grad():
        sae.threshold.fill_(-1.0)
    state = StepState()
    sae.after_step(sae.training_loss(torch.ones(1, 4), state), state)
    assert sae.threshold.tolist() == pytest.approx([0.01 / 2] * 8)


@pytest.mark.parametrize("mean_share", [0.0, 0.5])
def test_training_starts_near_the_chosen_number_of_active_features(mean_share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    mean_D = torch.full((64,), math.sqrt(mean_share / 64))
    x_BD = mean_D + torch.randn(2048, 64, generator=generator) * math.sqrt((1 - mean_share) / 64)
    sae = JumpReLUSAE(64, 512, JumpReLUOptions(target_l0=10, initial_l0=40))
    sae.initialise(mean_D, generator)
    assert float((sae.encode(x_BD) > 0).sum(dim=1).double().mean()) == pytest.approx(40, rel=0.1)


def test_initialise_depends_on_nothing_but_the_generator() -> None:
    first, second = (JumpReLUSAE(8, 16) for _ in range(2))
    for sae in (first, second):
        torch.rand(3)
        sae.initialise(torch.zeros(8), torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"target_l0": 5, "sparsity_penalty": 0.1}, "exclude each other"),
        ({"target_l0": 5, "sparsity_form": "tanh"}, "does not apply to sparsity_form = 'tanh'"),
        ({"target_anneal_factor": 2, "sparsity_penalty": 0.1}, "needs a target to fall to"),
        ({"target_anneal_factor": 2, "sparsity_form": "tanh"}, "needs a target to fall to"),
        ({"target_l0": 0}, "target_l0"),
        ({"bandwidth": -1.0}, "bandwidth"),
        ({"sparsity_form": "l1"}, "sparsity_form"),
    ],
)
def test_options_that_clash_or_cannot_be_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        JumpReLUOptions(**settings)


def test_a_target_above_the_number_of_features_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"target_l0 = 20.0 is more than the 16 features"):
        JumpReLUSAE(4, 16, JumpReLUOptions(target_l0=20))


@pytest.mark.parametrize(("d_sae", "target"), [(16, 2.0), (512, 64.0), (4096, 64.0)])
def test_the_default_target_fits_any_width(d_sae: int, target: float) -> None:
    assert JumpReLUSAE(4, d_sae).target_l0 == target


def test_folding_gives_the_same_reconstruction_on_raw_activations_and_files_read_back() -> None:
    sae = JumpReLUSAE(5, 12, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        sae.threshold.abs_()
    x = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    wanted = sae(0.25 * x) / 0.25
    sae.fold_input_scale(0.25)
    torch.testing.assert_close(sae(x), wanted)
    tensors = sae.saelens_tensors()
    assert sae.saelens_config() == {"architecture": "jumprelu"}
    assert tensors["threshold"].shape == (12,)
    again = JumpReLUSAE.from_saelens(sae.saelens_config(), tensors, JumpReLUOptions())
    assert torch.equal(again(x), sae(x))


def mixture(rows: int, d_in: int = 64, directions: int = 2048, l0: float = 10.0) -> Tensor:
    """Sparse sums of unit directions with Zipf-like frequencies, E|x|^2 = 1."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(directions, d_in, generator=generator), dim=1)
    rate = torch.arange(1, directions + 1).float() ** -0.8
    rate = (rate / rate.sum() * l0).clamp(max=0.5)
    on = torch.rand(rows, directions, generator=generator) < rate
    x = (on * (1 + 0.3 * torch.randn(rows, directions, generator=generator)).relu()) @ atoms
    return x / x.square().sum(dim=1).mean().sqrt()


def train(sae: SparseAutoencoder, x_ND: Tensor, steps: int, rate: float, rows: int = 512) -> None:
    generator, workspace = torch.Generator().manual_seed(0), Workspace()
    sae.initialise(x_ND.mean(dim=0), generator)
    adam = torch.optim.Adam(sae.parameters(), lr=rate, betas=sae.adam_betas, eps=1e-10)
    for step in range(steps):
        state = StepState(step=step, sparsity_scale=min(1.0, 10 * step / steps))
        x_BD = x_ND[torch.randint(len(x_ND), (rows,), generator=generator)]
        loss = sae.loss_and_gradients(x_BD, state, workspace)
        sae.project_decoder_gradient()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        adam.param_groups[0]["lr"] = rate * min(1.0, 5 * (1 - step / steps))
        adam.step()
        sae.after_step(loss, state)


def held_out(sae: SparseAutoencoder, x_ND: Tensor) -> tuple[float, float]:
    """L0 and explained variance."""
    with torch.no_grad():
        f_NF = sae.encode(x_ND)
        error = (x_ND - sae.decode(f_NF)).square().sum()
    l0 = float((f_NF > 0).sum(dim=1).double().mean())
    return l0, 1 - float(error / (x_ND - x_ND.mean(dim=0)).square().sum())


@pytest.mark.parametrize(("target", "tolerance"), [(4, 0.08), (16, 0.05)])
def test_a_short_run_reaches_its_target_and_reconstructs_as_well_as_topk(target: int, tolerance: float) -> None:
    """At a learning rate and length at which a start from thresholds near zero misses it (docs/experiments.md)."""
    x_ND = mixture(12_000)
    sae, rival = JumpReLUSAE(64, 256, JumpReLUOptions(target_l0=target)), TopKSAE(64, 256, TopKOptions(k=target))
    for each in (sae, rival):
        train(each, x_ND[2000:], steps=500, rate=5e-4)
    l0, explained = held_out(sae, x_ND[:2000])
    assert l0 == pytest.approx(target, rel=tolerance)
    assert explained > held_out(rival, x_ND[:2000])[1] - 0.01
    thresholds = sae.threshold.detach()
    assert float(thresholds.std() / thresholds.mean()) > 0.02  # each has moved on its own


def test_a_short_tanh_run_grows_sparser_with_the_penalty_and_does_not_collapse() -> None:
    x_ND = mixture(12_000)
    found = []
    for penalty in (0.0005, 0.005):
        sae = JumpReLUSAE(64, 256, JumpReLUOptions(sparsity_form="tanh", sparsity_penalty=penalty))
        train(sae, x_ND[2000:], steps=300, rate=5e-4)
        found.append(held_out(sae, x_ND[:2000]))
        assert float(sae.threshold.detach().std()) > 1e-3
    (loose_l0, loose_explained), (tight_l0, tight_explained) = found
    assert 2 < tight_l0 < loose_l0 / 3
    assert 0.4 < tight_explained < loose_explained
