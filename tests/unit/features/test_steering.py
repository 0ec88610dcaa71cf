"""Interventions against hooks written by hand, generation with and without a cache, controls, displays, refusals."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from random_saes import F, random_sae

from neuronmap.errors import ConfigError, InputError, MismatchError
from neuronmap.features.live.attached import attach
from neuronmap.features.live.interventions import Intervention, random_directions
from neuronmap.features.live.steering import FeatureSteering
from neuronmap.models import LanguageModel, capture, resolve_hook, wrap_model
from neuronmap.progress import SilentProgress
from neuronmap.saes import SparseAutoencoder

QUIET = SilentProgress()
TEXT = "A sparse autoencoder finds directions in the residual stream."


@pytest.fixture
def sae(tiny_llama: LanguageModel) -> SparseAutoencoder:
    """A random SAE at block 1 of the tiny Llama."""
    return random_sae(tiny_llama)


@pytest.fixture
def steering(sae: SparseAutoencoder) -> FeatureSteering:
    return FeatureSteering(sae, progress=QUIET)


def ids_of(model: LanguageModel, text: str) -> torch.Tensor:
    return torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])


def common_feature(model: LanguageModel, sae: SparseAutoencoder, text: str = TEXT) -> int:
    """The feature that fires on most tokens of the text."""
    x_TD = capture(model, ids_of(model, text), [resolve_hook(model, 1)])[resolve_hook(model, 1).name][0]
    return int((sae.encode(x_TD[1:]) > 0).sum(0).argmax())


def losses_by_hand(model: LanguageModel, layer: int, change: Any, text: str = TEXT) -> tuple[np.ndarray, np.ndarray]:
    """Loss and log-probabilities at positions 1 .. T - 2, with ``change(x_TD)`` in place of the block's output."""
    ids_BT = ids_of(model, text)

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        x = output[0] if isinstance(output, tuple) else output
        new = x.clone()
        new[0, 1:] = change(x[0, 1:])
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = model.module.model.layers[layer].register_forward_hook(hook)
    try:
        with torch.no_grad():
            log_p_TV = model.module(input_ids=ids_BT).logits[0].log_softmax(-1)
    finally:
        handle.remove()
    loss_T = -log_p_TV[1:-1].gather(1, ids_BT[0, 2:, None]).squeeze(1)
    return loss_T.double().numpy(), log_p_TV[1:-1].double().numpy()


CASES = {
    "clamp": (Intervention.clamp, 3.0, lambda f: torch.full_like(f, 3.0)),
    "scale": (Intervention.scale, -2.0, lambda f: -2.0 * f),
    "add": (Intervention.add, 1.5, lambda f: f + 1.5),
    "remove": (lambda feature, _value: Intervention.remove(feature), 0.0, torch.zeros_like),
}


@pytest.mark.parametrize("kind", CASES)
def test_an_intervention_is_the_hook_written_by_hand(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, steering: FeatureSteering, kind: str
) -> None:
    make, value, rule = CASES[kind]
    feature = common_feature(tiny_llama, sae)

    def change(x_ND: torch.Tensor) -> torch.Tensor:
        f_N = sae.encode(x_ND)[:, feature]
        return x_ND + (rule(f_N) - f_N)[:, None] * sae.W_dec[feature]

    expected_N, log_q_NV = losses_by_hand(tiny_llama, 1, change)
    clean_N, log_p_NV = losses_by_hand(tiny_llama, 1, lambda x: x)
    found = steering.score(TEXT, make(feature, value), controls=0)
    np.testing.assert_allclose(found.clean_N, clean_N, atol=1e-5)
    np.testing.assert_allclose(found.steered_N, expected_N, atol=1e-5)
    np.testing.assert_allclose(found.kl_N, (np.exp(log_p_NV) * (log_p_NV - log_q_NV)).sum(1), atol=1e-5)
    assert np.abs(expected_N - clean_N).max() > 1e-3
    assert found.change == pytest.approx((expected_N - clean_N).mean(), abs=1e-5)
    assert found.token_N.tolist() == ids_of(tiny_llama, TEXT)[0, 2:].tolist()


def test_several_saes_at_several_layers_act_together(tiny_llama: LanguageModel) -> None:
    low, high = random_sae(tiny_llama, layer=1), random_sae(tiny_llama, layer=2, seed=1)
    steering = FeatureSteering({"low": low, "high": high}, progress=QUIET)
    both = [
        Intervention.add(3, 2.0, sae="low"),
        Intervention.add(5, 1.0, sae="high"),
        Intervention.clamp(3, 4.0, sae="low"),
    ]

    def by_hand() -> np.ndarray:
        ids_BT = ids_of(tiny_llama, TEXT)

        def first(_m: Any, _a: Any, x: torch.Tensor) -> torch.Tensor:
            f_T = low.encode(x[0, 1:])[:, 3]
            new = x.clone()
            new[0, 1:] += (4.0 - f_T)[:, None] * low.W_dec[3]  # the last word on feature 3 is the clamp
            return new

        def second(_m: Any, _a: Any, x: torch.Tensor) -> torch.Tensor:
            new = x.clone()
            new[0, 1:] += high.W_dec[5]
            return new

        layers = tiny_llama.module.model.layers
        handles = [layers[1].register_forward_hook(first), layers[2].register_forward_hook(second)]
        with torch.no_grad():
            log_p_TV = tiny_llama.module(input_ids=ids_BT).logits[0].log_softmax(-1)
        for handle in handles:
            handle.remove()
        return -log_p_TV[1:-1].gather(1, ids_BT[0, 2:, None]).squeeze(1).numpy()

    np.testing.assert_allclose(steering.score(TEXT, both, controls=1).steered_N, by_hand(), atol=1e-5)
    with pytest.raises(ConfigError, match="names no SAE; there are: low, high"):
        steering.score(TEXT, Intervention.remove(3))


@pytest.mark.parametrize("change", [Intervention.add(3, 0.0), Intervention.scale(3, 1.0)])
def test_strength_zero_is_the_clean_run_bit_for_bit(steering: FeatureSteering, change: Intervention) -> None:
    scored = steering.score(TEXT, change)
    np.testing.assert_array_equal(scored.steered_N, scored.clean_N)
    np.testing.assert_array_equal(scored.control_loss[0], scored.clean_N)
    assert not scored.kl_N.any()
    made = steering.generate("The winter", change, temperature=1.0, seed=3, max_tokens=12)
    assert made.steered.ids == made.clean.ids
    assert made.steered.same == len(made.clean.ids)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("positions", ["all", "prompt", "generated", (4, 6)])
def test_generation_with_a_cache_is_generation_without(
    steering: FeatureSteering, temperature: float, positions: Any
) -> None:
    changes = [Intervention.clamp(3, 6.0, positions=positions), Intervention.add(9, 4.0, positions=positions)]
    made = [
        steering.generate("The winter was", changes, temperature=temperature, seed=2, max_tokens=16, cache=cache)
        for cache in (True, False)
    ]
    assert [run.ids for run in made[0].runs] == [run.ids for run in made[1].runs]


def test_positions_decide_where_a_change_acts(steering: FeatureSteering) -> None:
    prompt = steering.generate("The winter was", Intervention.add(3, 30.0, positions="prompt"), max_tokens=8)
    later = steering.generate("The winter was", Intervention.add(3, 30.0, positions="generated"), max_tokens=8)
    assert later.steered.ids[0] == later.clean.ids[0]  # the first token comes from the prompt alone
    assert later.steered.ids != later.clean.ids
    assert prompt.steered.ids[0] != prompt.clean.ids[0]
    scored = steering.score(TEXT, Intervention.add(3, 5.0, positions=(4,)), controls=0)
    before = scored.position_N <= 4  # predictions of tokens up to 4 are made before position 4
    np.testing.assert_array_equal(scored.steered_N[before], scored.clean_N[before])
    assert (scored.steered_N != scored.clean_N)[~before].any()


def test_generation_is_that_of_the_model_and_reproducible(tiny_llama: LanguageModel, steering: FeatureSteering) -> None:
    made = steering.generate("The winter", Intervention.add(3, 4.0), max_tokens=10)
    ids = ids_of(tiny_llama, "The winter")
    for token in made.clean.ids:
        assert int(tiny_llama.logits(ids)[0, -1].argmax()) == token
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    one, two, other = (
        steering.generate("The winter", Intervention.add(3, 4.0), temperature=1.0, seed=seed, max_tokens=20)
        for seed in (5, 5, 6)
    )
    assert [run.ids for run in one.runs] == [run.ids for run in two.runs]
    assert one.clean.ids != other.clean.ids
    loss = torch.nn.functional.cross_entropy(tiny_llama.logits(ids)[0, -11:-1], ids[0, -10:])
    assert made.clean.clean_loss == pytest.approx(float(loss), rel=1e-5)


def test_sampling_follows_the_softmax() -> None:
    from neuronmap.features.live.generation import _choose

    logits_V = torch.tensor([0.0, 1.0, 2.0, -float("inf")])
    generator = torch.Generator().manual_seed(0)
    drawn = np.bincount([_choose(logits_V, 0.7, generator) for _ in range(8000)], minlength=4) / 8000
    np.testing.assert_allclose(drawn, torch.softmax(logits_V / 0.7, 0).numpy(), atol=0.02)


@pytest.mark.parametrize("count", [1, 3])
def test_controls_have_the_same_lengths_and_are_orthogonal(sae: SparseAutoencoder, count: int) -> None:
    rows_JD = sae.W_dec[:count] * torch.tensor([1.0, 2.5, 0.3])[:count, None]
    control_JD = random_directions(rows_JD, seed=4)
    assert torch.allclose(control_JD @ control_JD.T, rows_JD @ rows_JD.T, atol=1e-5)
    assert float((control_JD @ rows_JD.T).abs().max()) < 1e-5
    assert torch.equal(control_JD, random_directions(rows_JD, seed=4))
    assert not torch.allclose(control_JD, random_directions(rows_JD, seed=5), atol=1e-2)


def test_a_control_moves_every_position_as_far(tiny_llama: LanguageModel, sae: SparseAutoencoder) -> None:
    from neuronmap.features.live.interventions import sites
    from neuronmap.features.live.naming import FeatureNames

    here = attach(sae)
    changes = [
        Intervention.clamp(common_feature(tiny_llama, sae), 2.0),
        Intervention.scale(7, 3.0),
        Intervention.add(9, -1.0),
    ]
    x_BTD = capture(tiny_llama, ids_of(tiny_llama, TEXT), [here.hook])[here.hook.name]
    moved = []
    for control in (None, 0, 1):
        site = sites({"": here}, changes, {"": FeatureNames(None, F)}, control)[0]
        site.begin(torch.zeros(x_BTD.shape[:2], dtype=torch.uint8), 0, x_BTD.shape[1])
        moved.append((site(x_BTD) - x_BTD).norm(dim=-1))
    assert float(moved[0].min()) > 0
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moved[2], moved[0], rtol=1e-3, atol=1e-4)


def test_masked_positions_are_left_alone(sae: SparseAutoencoder) -> None:
    from neuronmap.features.live.interventions import sites
    from neuronmap.features.live.naming import FeatureNames

    here = attach(sae)
    site = sites({"": here}, [Intervention.add(3, 2.0)], {"": FeatureNames(None, F)})[0]
    masked_BT = torch.tensor([[1, 0, 2, 0]], dtype=torch.uint8)
    site.begin(masked_BT, 0, 4)
    x_BTD = torch.randn(1, 4, 32)
    moved_BT = (site(x_BTD) != x_BTD).any(-1)
    assert moved_BT.tolist() == [[False, True, False, True]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "push"}, "allowed are clamp, scale, add and remove"),
        ({"kind": "add", "unit": "sigma"}, "allowed are activation and max"),
        ({"kind": "add", "positions": "end"}, "allowed are all, prompt, generated, or numbers"),
        ({"kind": "add", "value": float("nan")}, "finite"),
    ],
)
def test_impossible_interventions_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Intervention(3, **values)


def test_impossible_requests_are_refused(steering: FeatureSteering) -> None:
    with pytest.raises(InputError, match="no feature 64"):
        steering.generate("a b", Intervention.remove(F))
    with pytest.raises(InputError, match="no feature store") as caught:
        steering.score(TEXT, Intervention.add(3, 1.0, unit="max"))
    assert "store=" in caught.value.hint
    with pytest.raises(ConfigError, match="There is no intervention"):
        steering.score(TEXT, [])
    with pytest.raises(ConfigError, match=r"more than tiny-llama can take \(64 tokens\)"):
        steering.generate("The winter", Intervention.remove(3), max_tokens=64)
    with pytest.raises(ConfigError, match="temperature = -1"):
        steering.generate("The winter", Intervention.remove(3), temperature=-1.0)
    with pytest.raises(InputError, match="too short"):
        steering.score("a", Intervention.remove(3))


def test_saes_of_different_models_are_refused(tiny_llama: LanguageModel, tiny_gpt2: LanguageModel) -> None:
    with pytest.raises(MismatchError, match="model digest"):
        FeatureSteering({"a": random_sae(tiny_llama), "b": random_sae(tiny_gpt2)}, progress=QUIET)


def test_other_architectures_and_precisions(tiny_llama: LanguageModel, tiny_gpt2: LanguageModel) -> None:
    on_gpt2 = FeatureSteering(random_sae(tiny_gpt2), progress=QUIET)
    made = [
        on_gpt2.generate("The winter was", Intervention.clamp(3, 8.0), max_tokens=12, cache=cache)
        for cache in (True, False)
    ]
    assert [run.ids for run in made[0].runs] == [run.ids for run in made[1].runs]
    half = wrap_model(copy.deepcopy(tiny_llama.module).bfloat16(), tiny_llama.tokenizer, name="half")
    steering = FeatureSteering(random_sae(half), progress=QUIET)
    nothing = steering.score(TEXT, Intervention.scale(3, 1.0))
    np.testing.assert_array_equal(nothing.steered_N, nothing.clean_N)
    assert steering.score(TEXT, Intervention.add(3, 8.0)).kl > 0


def test_another_seed_is_another_control(steering: FeatureSteering) -> None:
    push = Intervention.add(3, 9.0)
    scores = [steering.score(TEXT, push, controls=2, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(scores[0].control_loss, scores[1].control_loss)
    np.testing.assert_array_equal(scores[0].steered_N, scores[2].steered_N)
    assert not np.isclose(scores[0].control_loss, scores[2].control_loss).all(axis=1).any()
    assert not np.isclose(scores[0].control_loss[1], scores[2].control_loss[0]).all()


def test_results_show_themselves(steering: FeatureSteering) -> None:
    made = steering.generate("<b>The winter</b>", Intervention.add(3, 9.0), max_tokens=6, controls=2)
    assert made.to_pandas()["run"].tolist() == ["clean", "steered", "control 1", "control 2"]
    assert "&lt;b&gt;" in made._repr_html_()
    assert "<b>The" not in made._repr_html_()
    assert "#3 +9" in str(made)
    scored = steering.score([TEXT, "<i>dogs</i> jump"], Intervention.remove(3), controls=2)
    assert scored.control_loss.shape == (2, len(scored.clean_N))
    assert len(scored.to_pandas()) == len(scored.clean_N)
    assert "<i>" not in scored._repr_html_()
    assert "control 2" in str(scored)
    with pytest.raises(InputError, match="no text 2"):
        scored.strip(2)
