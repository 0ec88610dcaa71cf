"""Ablation against a hook written by hand, attribution against finite differences and against ablation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_stores import live_store
from random_saes import F, random_sae

from neuronmap.errors import InputError
from neuronmap.features.live.effects import FeatureEffects
from neuronmap.features.storage.store import FeatureStore
from neuronmap.models import LanguageModel, capture, resolve_hook
from neuronmap.progress import SilentProgress
from neuronmap.saes import SparseAutoencoder

QUIET = SilentProgress()
TEXTS = [
    "A sparse autoencoder finds directions in the residual stream.",
    "The quick brown fox jumps.",
    "Numbers: 12, 345.",
]


@pytest.fixture
def sae(tiny_llama: LanguageModel) -> SparseAutoencoder:
    """A random SAE at block 1 of the tiny Llama."""
    return random_sae(tiny_llama)


@pytest.fixture
def effects(sae: SparseAutoencoder) -> FeatureEffects:
    return FeatureEffects(sae, batch_tokens=60, progress=QUIET)


def ids_of(model: LanguageModel, text: str) -> torch.Tensor:
    return torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])


def log_p_with(model: LanguageModel, text: str, change: Any) -> torch.Tensor:
    """Log-probabilities [T, V], with ``change(x_TD)`` at positions 1 .. after block 1."""

    def hook(_module: Any, _args: Any, x: torch.Tensor) -> torch.Tensor:
        new = x.clone()
        new[0, 1:] = change(x[0, 1:])
        return new

    handle = model.module.model.layers[1].register_forward_hook(hook)
    try:
        with torch.no_grad():
            return model.module(input_ids=ids_of(model, text)).logits[0].log_softmax(-1).double()
    finally:
        handle.remove()


def loss_of(model: LanguageModel, text: str, log_p_TV: torch.Tensor) -> torch.Tensor:
    return -log_p_TV[1:-1].gather(1, ids_of(model, text)[0, 2:, None]).squeeze(1)


def codes(model: LanguageModel, sae: SparseAutoencoder, text: str) -> torch.Tensor:
    hook = resolve_hook(model, 1)
    return sae.encode(capture(model, ids_of(model, text), [hook])[hook.name][0, 1:])


def common(model: LanguageModel, sae: SparseAutoencoder, count: int) -> list[int]:
    fired = sum((codes(model, sae, text) > 0).sum(0) for text in TEXTS)
    return fired.topk(count).indices.tolist()


def test_ablation_is_the_hook_written_by_hand(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, effects: FeatureEffects
) -> None:
    chosen = common(tiny_llama, sae, 3)
    found = effects.ablate(chosen, TEXTS)
    for feature, effect in zip(chosen, found.effects, strict=True):

        def take_out(x_ND: torch.Tensor, feature: int = feature) -> torch.Tensor:
            return x_ND - sae.encode(x_ND)[:, feature, None] * sae.W_dec[feature]

        changes, gaps, log_gaps, kls, firings = [], [], [], [], 0
        for text in TEXTS:
            clean, without = log_p_with(tiny_llama, text, lambda x: x), log_p_with(tiny_llama, text, take_out)
            fires = codes(tiny_llama, sae, text)[:, feature] > 0
            changes.append((loss_of(tiny_llama, text, without) - loss_of(tiny_llama, text, clean)).sum())
            gaps.append((clean.exp() - without.exp())[1:-1][fires[:-1]])
            log_gaps.append((clean - without)[1:-1][fires[:-1]])
            kls.append((clean.exp() * (clean - without)).sum(-1)[1:-1])
            firings += int(fires.sum())
        assert effect.firings == firings > 0
        np.testing.assert_allclose(effect.by_context, torch.stack(changes).numpy(), atol=1e-4)
        assert effect.loss_change == pytest.approx(float(torch.stack(changes).sum()), abs=1e-4)
        assert effect.kl == pytest.approx(float(torch.cat(kls).mean()), abs=1e-5)
        mean_V = torch.cat(gaps).mean(0)
        assert [one.probability for one in effect.promoted] == pytest.approx(mean_V.topk(10).values.tolist(), abs=1e-5)
        best = int(mean_V.argmax())
        assert effect.promoted[0].token == effects.vocabulary.shown(best)
        assert effect.promoted[0].log_probability == pytest.approx(float(torch.cat(log_gaps).mean(0)[best]), abs=1e-4)
        assert effect.suppressed[0].probability == pytest.approx(float(mean_V.min()), abs=1e-5)


def test_attribution_is_the_slope_of_a_small_ablation(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, effects: FeatureEffects
) -> None:
    found = effects.attribute(TEXTS)
    step = 1e-2
    for feature in common(tiny_llama, sae, 4):
        slopes = []
        for text in TEXTS:
            losses = []
            for sign in (1, -1):

                def nudge(x_ND: torch.Tensor, feature: int = feature, by: float = sign * step) -> torch.Tensor:
                    return x_ND - by * sae.encode(x_ND)[:, feature, None] * sae.W_dec[feature]

                losses.append(loss_of(tiny_llama, text, log_p_with(tiny_llama, text, nudge)).sum())
            slopes.append((losses[0] - losses[1]) / (2 * step))
        assert found.change_F[feature] == pytest.approx(float(sum(slopes)), rel=2e-2, abs=2e-3)
    codes_NF = torch.cat([codes(tiny_llama, sae, text) for text in TEXTS])
    np.testing.assert_array_equal(found.firings_F, (codes_NF > 0).sum(0).numpy())
    np.testing.assert_allclose(found.largest_F, codes_NF.max(0).values.numpy(), rtol=1e-4)


def test_estimates_come_close_where_effects_are_small_and_the_rest_is_reported(tiny_llama: LanguageModel) -> None:
    sae = random_sae(tiny_llama)
    with torch.no_grad():
        sae.W_dec.mul_(0.02)  # nearly linear: each feature moves the activation a little
    small = FeatureEffects(sae, progress=QUIET).compare(TEXTS, top=12)
    assert small.correlation > 0.99
    assert small.relative_error < 0.1
    assert small.slope == pytest.approx(1, abs=0.05)
    large = FeatureEffects(random_sae(tiny_llama), progress=QUIET).compare(TEXTS, top=12)
    assert large.relative_error > 3 * small.relative_error  # and it says so
    table = large.to_pandas()
    np.testing.assert_allclose(table["error"], table["estimate"] - table["truth"])
    total = np.abs(table["error"]).sum() / np.abs(table["truth"]).sum()
    assert large.relative_error == pytest.approx(total)
    assert f"{large.correlation:.3f}" in str(large)


def test_correlations_are_those_of_scipy() -> None:
    from scipy.stats import pearsonr, spearmanr

    from neuronmap.features.live.effect_tables import EffectComparison
    from neuronmap.features.live.naming import FeatureNames

    a, b = np.array([1.0, 2.0, 2.0, -3.0, 0.5]), np.array([0.5, 2.5, 1.0, -1.0, 2.5])
    found = EffectComparison(np.arange(5, dtype=np.int32), a, b, np.ones(5, np.int64), FeatureNames(None, 5), "")
    assert found.correlation == pytest.approx(pearsonr(a, b).statistic)
    assert found.rank_correlation == pytest.approx(spearmanr(a, b).statistic)
    assert found.same_sign == 1.0


def test_batches_change_nothing(sae: SparseAutoencoder) -> None:
    one = FeatureEffects(sae, batch_tokens=1, progress=QUIET)
    many = FeatureEffects(sae, batch_tokens=4000, progress=QUIET)
    np.testing.assert_allclose(one.attribute(TEXTS).change_F, many.attribute(TEXTS).change_F, atol=1e-4)
    pair = [effects.ablate([3, 5], TEXTS) for effects in (one, many)]
    for a, b in zip(*pair, strict=True):  # type: ignore[call-overload]
        assert a.loss_change == pytest.approx(b.loss_change, abs=1e-4)


def test_contexts_may_be_token_ids(tiny_llama: LanguageModel, effects: FeatureEffects) -> None:
    ids = [ids_of(tiny_llama, text)[0].tolist() for text in TEXTS]
    np.testing.assert_allclose(effects.attribute(ids).change_F, effects.attribute(TEXTS).change_F)


def test_a_silent_feature_changes_nothing(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, effects: FeatureEffects
) -> None:
    fired = sum((codes(tiny_llama, sae, text) > 0).sum(0) for text in TEXTS)
    silent = int((fired == 0).nonzero()[0])
    effect = effects.ablate(silent, TEXTS)[0]
    assert (effect.firings, effect.loss_change, effect.kl, effect.promoted) == (0, 0.0, 0.0, ())
    assert effect.per_firing == 0.0
    assert effect.positions > 0


def test_estimate_and_truth_on_a_features_own_examples(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, tmp_path: Path
) -> None:
    store = FeatureStore.open(live_store(tmp_path / "store", tiny_llama, sae))
    effects = FeatureEffects(sae, store=store, progress=QUIET)
    chosen = [int(feature) for feature in np.flatnonzero(store.alive)[:2]]
    found = effects.compare(features=chosen, max_examples=3)
    assert found.features.tolist() == chosen
    for place, feature in enumerate(chosen):
        own = [store.context(s) for s in dict.fromkeys(e.sequence for e in store.examples(feature, "top"))][:3]
        assert found.truth[place] == pytest.approx(effects.ablate(feature, own)[0].loss_change, abs=1e-5)
        assert found.estimate[place] == pytest.approx(effects.attribute(own).change_F[feature], abs=1e-5)
        assert found.firings[place] > 0
    with pytest.raises(InputError, match="Neither texts nor features"):
        effects.compare()


def test_bad_requests_are_refused(effects: FeatureEffects) -> None:
    with pytest.raises(InputError, match=r"no feature 64, 99: ids are 0 to 63"):
        effects.ablate([3, F, 99], TEXTS)
    with pytest.raises(InputError, match="no feature store"):
        effects.ablate(3)
    with pytest.raises(InputError, match="too short"):
        effects.attribute("a")
    with pytest.raises(InputError, match="empty"):
        effects.ablate(3, [""])


def test_results_show_themselves(effects: FeatureEffects) -> None:
    found = effects.ablate([3, 5], TEXTS)
    assert found.to_pandas()["feature"].tolist() == [3, 5]
    for result in (found, effects.attribute(TEXTS), effects.compare(TEXTS, [3, 5, 7])):
        assert "<table" in result._repr_html_()
        assert "topk SAE at model.layers.1:out" in str(result)
        assert result.to_arrow().num_rows
