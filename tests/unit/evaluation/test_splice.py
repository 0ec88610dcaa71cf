"""Loss and KL with an SAE in the model's place, on a small model with random weights."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hand_made import Added, Constant, Scaled, token_set

from neuronmap.activations import MaskConfig, harvest
from neuronmap.corpora import TokenSet
from neuronmap.errors import ConfigError, EmptyCorpusError, HookPointError, InputError, MismatchError
from neuronmap.evaluation import CoreMetrics, evaluate_sae
from neuronmap.models import HookPoint, LanguageModel, capture, replaced, resolve_hook
from neuronmap.progress import SilentProgress

QUIET = SilentProgress()
WIDTH = 32


@pytest.fixture
def hook(tiny_llama: LanguageModel) -> HookPoint:
    return resolve_hook(tiny_llama, 2, "residual")


def evaluate(sae: object, model: LanguageModel, hook: HookPoint, tokens: TokenSet, **settings: object) -> CoreMetrics:
    return evaluate_sae(
        sae, tokens, model=model, hook=hook, progress=QUIET, **{"bootstrap": 50, "mask": MaskConfig(), **settings}
    )


def scored_mask(tokens: TokenSet) -> np.ndarray:
    """bool [C, T] by plain definition of the default mask (no outliers in these sets)."""
    batch = tokens.contexts(0, tokens.num_contexts)
    scored = batch.attention & ~batch.special
    scored[:, 0] = False
    return scored


def predicted_mask(tokens: TokenSet) -> np.ndarray:
    """bool [C, T]: scored, and the next token is real."""
    batch = tokens.contexts(0, tokens.num_contexts)
    predicted = scored_mask(tokens)
    predicted[:, :-1] &= batch.attention[:, 1:]
    predicted[:, -1] = False
    return predicted


def all_rows(model: LanguageModel, hook: HookPoint, tokens: TokenSet) -> torch.Tensor:
    """[C, T, W] float32 activations."""
    batch = tokens.contexts(0, tokens.num_contexts)
    attention_BT = torch.from_numpy(batch.attention)
    return capture(model, torch.from_numpy(batch.input_ids), [hook], attention_mask_BT=attention_BT)[hook.name]


def naive(model: LanguageModel, hook: HookPoint, tokens: TokenSet, sae: object) -> dict[str, float]:
    """CE and KL over full float64 log-probabilities, position by position."""
    batch = tokens.contexts(0, tokens.num_contexts)
    ids_BT, attention_BT = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention)
    scored_BT = torch.from_numpy(scored_mask(tokens))

    def log_probabilities() -> torch.Tensor:
        return model.logits(ids_BT, attention_BT).double().log_softmax(-1)

    def spliced(x_BTW: torch.Tensor) -> torch.Tensor:
        return torch.where(scored_BT.unsqueeze(-1), sae.decode(sae.encode(x_BTW)), x_BTW)

    clean = log_probabilities()
    with replaced(model, hook, spliced):
        changed = log_probabilities()
    ce_clean = ce_sae = kl = count = 0.0
    for b, t in np.argwhere(predicted_mask(tokens)):
        target = ids_BT[b, t + 1]
        ce_clean -= float(clean[b, t, target])
        ce_sae -= float(changed[b, t, target])
        kl += float((clean[b, t].exp() * (clean[b, t] - changed[b, t])).sum())
        count += 1
    return {"ce_clean": ce_clean / count, "ce_sae": ce_sae / count, "kl_sae": kl / count, "count": count}


def test_identity_changes_nothing(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    metrics = evaluate(Scaled(WIDTH), tiny_llama, hook, tokens)
    behaviour = metrics.behaviour
    assert behaviour is not None
    assert behaviour.kl_sae.value == 0.0
    assert behaviour.delta_ce.value == 0.0
    for score in (behaviour.ce_score_zero, behaviour.ce_score_mean, behaviour.kl_score_zero, behaviour.kl_score_mean):
        assert score is not None
        assert score.value == 1.0
    assert metrics.reconstruction.explained_variance.value == 1.0
    assert metrics.sparsity.l0.value == WIDTH


def test_zero_output_is_zero_ablation(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    """Exactly 0 only if the SAE is spliced in where the ablation ablates."""
    behaviour = evaluate(Constant(torch.zeros(WIDTH)), tiny_llama, hook, tokens).behaviour
    assert behaviour is not None
    assert behaviour.ce_score_zero is not None
    assert behaviour.ce_score_zero.value == 0.0
    assert behaviour.kl_score_zero is not None
    assert behaviour.kl_score_zero.value == 0.0
    assert behaviour.kl_sae.value == behaviour.kl_zero.value > 0


def test_constant_mean_is_mean_ablation(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    x_BTW = all_rows(tiny_llama, hook, tokens)
    mean_W = x_BTW[torch.from_numpy(scored_mask(tokens))].double().mean(0).float()
    metrics = evaluate(Constant(mean_W), tiny_llama, hook, tokens)
    assert metrics.reconstruction.explained_variance.value == pytest.approx(0.0, abs=1e-9)
    assert metrics.behaviour is not None
    assert metrics.behaviour.ce_score_mean is not None
    assert metrics.behaviour.ce_score_mean.value == pytest.approx(0.0, abs=1e-5)
    assert metrics.behaviour.kl_score_mean is not None
    assert metrics.behaviour.kl_score_mean.value == pytest.approx(0.0, abs=1e-5)
    assert metrics.behaviour.mean_of == f"the {metrics.protocol.tokens} rows scored for reconstruction"


def test_loss_and_kl_equal_a_naive_float64_recomputation(
    tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet
) -> None:
    sae = Added(WIDTH, 0.3)
    behaviour = evaluate(sae, tiny_llama, hook, tokens).behaviour
    expected = naive(tiny_llama, hook, tokens, sae)
    assert behaviour is not None
    assert behaviour.ce_clean.count == expected["count"] == predicted_mask(tokens).sum()
    assert behaviour.ce_clean.value == pytest.approx(expected["ce_clean"], abs=1e-6)
    assert behaviour.ce_sae.value == pytest.approx(expected["ce_sae"], abs=1e-6)
    assert behaviour.kl_sae.value == pytest.approx(expected["kl_sae"], abs=1e-6)
    assert behaviour.kl_sae.value > 1e-3


def test_a_small_kl_is_resolved(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    sae = Added(WIDTH, 1e-3)
    behaviour = evaluate(sae, tiny_llama, hook, tokens).behaviour
    assert behaviour is not None
    assert behaviour.kl_sae.value == pytest.approx(naive(tiny_llama, hook, tokens, sae)["kl_sae"], rel=0.05, abs=2e-8)


def test_batches_and_chunks_change_nothing(
    tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = evaluate(Added(WIDTH, 0.2), tiny_llama, hook, tokens, batch_tokens=16)
    monkeypatch.setattr("neuronmap.models.predictions._CHUNK_VALUES", 3 * 300)
    other = evaluate(Added(WIDTH, 0.2), tiny_llama, hook, tokens, batch_tokens=16 * 7)
    assert one.protocol == other.protocol
    for name, value in one.summary().items():
        assert other.summary()[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_padding_changes_nothing(tiny_llama: LanguageModel, hook: HookPoint) -> None:
    """A last context cut short by padding scores what the same tokens score without it."""
    padded, full = token_set(3, 16, padding=7), token_set(3, 16)
    batch = full.contexts(0, 3)
    kept = np.ones((3, 16), bool)
    kept[2, 9:] = False
    sae = Added(WIDTH, 0.2)
    found = evaluate(sae, tiny_llama, hook, padded).behaviour
    expected = naive(tiny_llama, hook, padded, sae)
    assert found is not None
    assert found.ce_sae.value == pytest.approx(expected["ce_sae"], abs=1e-6)
    special = batch.special
    by_hand = sum(kept[b, t] and kept[b, t + 1] and not special[b, t] for b in range(3) for t in range(1, 15))
    assert found.ce_sae.count == by_hand


def test_the_loss_of_predicting_a_separator_counts_and_the_loss_after_one_does_not(
    tiny_llama: LanguageModel, hook: HookPoint
) -> None:
    tokens = token_set(2, 16)  # flat position 21 is the separator: context 1, position 5
    behaviour = evaluate(Scaled(WIDTH), tiny_llama, hook, tokens).behaviour
    assert behaviour is not None
    assert behaviour.ce_clean.count == 14 + 13


def test_a_huge_first_position_has_no_influence(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    """Position 0 a thousand times larger, the rest untouched: no figure of the rows moves."""

    def enlarged(x_BTW: torch.Tensor) -> torch.Tensor:
        y_BTW = x_BTW.clone()
        y_BTW[:, 0] = 1e5
        return y_BTW

    first_block = resolve_hook(tiny_llama, 2, "residual")
    sae = Added(WIDTH, 0.2)
    plain = evaluate(sae, tiny_llama, hook, tokens, max_ce_tokens=0)
    with replaced(tiny_llama, first_block, enlarged):
        large = evaluate(sae, tiny_llama, hook, tokens, max_ce_tokens=0)
    assert large.summary() == plain.summary()
    assert large.protocol.outlier_threshold == plain.protocol.outlier_threshold


def test_outliers_are_neither_replaced_nor_scored(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    norms_BT = all_rows(tiny_llama, hook, tokens).norm(dim=-1)
    scored = scored_mask(tokens)
    median = float(norms_BT[torch.from_numpy(scored)].median())
    factor = 1.05
    kept = scored & (norms_BT <= factor * median).numpy()
    assert 0 < kept.sum() < scored.sum()
    metrics = evaluate(Scaled(WIDTH), tiny_llama, hook, tokens, mask=MaskConfig(outlier_factor=factor))
    assert metrics.protocol.tokens == kept.sum()
    assert metrics.protocol.dropped["outliers"] == scored.sum() - kept.sum()
    assert metrics.behaviour is not None
    real_next = tokens.contexts(0, tokens.num_contexts).attention[:, 1:]
    assert metrics.behaviour.ce_clean.count == (kept[:, :-1] & real_next).sum()
    zero = evaluate(
        Constant(torch.zeros(WIDTH)), tiny_llama, hook, tokens, mask=MaskConfig(outlier_factor=factor)
    ).behaviour
    assert zero is not None
    assert zero.ce_score_zero is not None
    assert zero.ce_score_zero.value == 0.0


def test_a_known_threshold_is_taken_as_it_is(
    tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated = evaluate(Scaled(WIDTH), tiny_llama, hook, tokens)
    monkeypatch.setattr("neuronmap.evaluation.measuring.calibrate", None)
    threshold = calibrated.protocol.outlier_threshold
    known = evaluate(Scaled(WIDTH), tiny_llama, hook, tokens, outlier_threshold=threshold)
    assert known.summary() == calibrated.summary()
    assert known.protocol.outlier_threshold_from == "as given"
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="outlier_threshold"):
            evaluate(Scaled(WIDTH), tiny_llama, hook, tokens, outlier_threshold=wrong)


def test_only_the_ablations_asked_for_are_run(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    behaviour = evaluate(Scaled(WIDTH), tiny_llama, hook, tokens, ablations=("mean",)).behaviour
    assert behaviour is not None
    assert behaviour.ce_zero is None
    assert behaviour.ce_score_zero is None
    assert behaviour.ce_mean is not None
    none = evaluate(Scaled(WIDTH), tiny_llama, hook, tokens, ablations=()).behaviour
    assert none is not None
    assert (none.ce_mean, none.mean_of) == (None, None)


def test_fewer_tokens_for_the_loss_are_spread_and_counted(
    tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet
) -> None:
    metrics = evaluate(Scaled(WIDTH), tiny_llama, hook, tokens, max_ce_tokens=64, max_tokens=128)
    assert metrics.protocol.behaviour_contexts == 4
    assert metrics.protocol.contexts == 8
    predicted = predicted_mask(tokens)
    assert metrics.behaviour is not None
    assert metrics.behaviour.ce_clean.count == sum(predicted[index].sum() for index in (0, 3, 6, 9))


def test_stored_rows_and_the_model_together(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    """Rows from a store, loss from the model: the same figures as from the model alone."""
    store = harvest(tiny_llama, tokens, [hook], dtype="float32", progress=QUIET)[hook.name]
    alone = evaluate(Added(WIDTH, 0.2), tiny_llama, hook, tokens)
    both = evaluate_sae(Added(WIDTH, 0.2), store, model=tiny_llama, tokens=tokens, progress=QUIET, bootstrap=50)
    rows_only = evaluate_sae(Added(WIDTH, 0.2), store, progress=QUIET, bootstrap=50)
    for name, value in alone.summary().items():
        assert both.summary()[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    assert rows_only.behaviour is None
    assert rows_only.protocol.resampled == "context"
    assert rows_only.protocol.contexts == alone.protocol.contexts == 12
    assert rows_only.protocol.mask == MaskConfig().to_dict()
    assert rows_only.protocol.hook == hook.name
    assert rows_only.reconstruction.mse.error == pytest.approx(alone.reconstruction.mse.error, rel=1e-5)
    assert rows_only.protocol.dropped == alone.protocol.dropped


def test_the_record_says_how_it_was_made(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    metrics = evaluate(Scaled(WIDTH), tiny_llama, hook, tokens)
    protocol = metrics.protocol
    assert protocol.model == "tiny-llama"
    assert protocol.hook == hook.name
    assert protocol.source_digest == tokens.digest
    assert protocol.dropped["padding"] == 5
    assert protocol.dropped["first_positions"] == 12
    assert protocol.dropped["special"] == 8
    assert protocol.outlier_threshold_from == "the first 12 contexts of these tokens"
    assert set(protocol.versions) == {"neuronmap", "torch", "transformers"}
    assert CoreMetrics.from_dict(json.loads(json.dumps(metrics.to_dict(), allow_nan=False))) == metrics


def test_a_hook_can_be_named(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    by_name = evaluate_sae(
        Scaled(WIDTH), model=tiny_llama, tokens=tokens, hook=hook.name, progress=QUIET, bootstrap=0, max_ce_tokens=0
    )
    assert by_name.protocol.hook == hook.name
    with pytest.raises(HookPointError):
        evaluate_sae(Scaled(WIDTH), model=tiny_llama, tokens=tokens, hook="model.layers.77:out", progress=QUIET)


def test_everything_masked_is_an_error(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    for factor in (10.0, None):
        with pytest.raises(EmptyCorpusError, match="drops every position"):
            evaluate(
                Scaled(WIDTH),
                tiny_llama,
                hook,
                tokens,
                mask=MaskConfig(skip_first_positions=16, outlier_factor=factor),
            )


def test_wrong_width_is_a_mismatch(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    with pytest.raises(MismatchError, match="32 wide, the SAE takes 31"):
        evaluate(Scaled(31), tiny_llama, hook, tokens)


def test_a_store_of_another_hook_or_model_is_a_mismatch(
    tiny_llama: LanguageModel, tiny_gpt2: LanguageModel, hook: HookPoint, tokens: TokenSet
) -> None:
    store = harvest(tiny_llama, tokens, [hook], dtype="float32", progress=QUIET)[hook.name]
    elsewhere = resolve_hook(tiny_llama, 1, "residual")
    with pytest.raises(MismatchError, match=r"harvested at .*layers\.2.*hook is .*layers\.1"):
        evaluate_sae(Scaled(WIDTH), store, model=tiny_llama, tokens=tokens, hook=elsewhere, progress=QUIET)
    other = resolve_hook(tiny_gpt2, 2, "residual")
    with pytest.raises(MismatchError, match="harvested from tiny-llama"):
        evaluate_sae(Scaled(WIDTH), store, model=tiny_gpt2, tokens=tokens, hook=other, progress=QUIET)


def test_another_mask_than_the_stores_is_refused(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    store = harvest(tiny_llama, tokens, [hook], dtype="float32", progress=QUIET)[hook.name]
    with pytest.raises(ConfigError, match="differs from the mask the stored rows"):
        evaluate_sae(Scaled(WIDTH), store, mask=MaskConfig(skip_first_positions=3), progress=QUIET)


def test_model_and_tokens_go_together(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    with pytest.raises(ConfigError, match="without tokens="):
        evaluate_sae(Scaled(WIDTH), model=tiny_llama, hook=hook, progress=QUIET)
    with pytest.raises(ConfigError, match="without model="):
        evaluate_sae(Scaled(WIDTH), tokens=tokens, progress=QUIET)
    with pytest.raises(ConfigError, match="hook= is needed"):
        evaluate_sae(Scaled(WIDTH), model=tiny_llama, tokens=tokens, progress=QUIET)
    with pytest.raises(ConfigError, match="Two token sets"):
        evaluate_sae(Scaled(WIDTH), tokens, tokens=tokens, model=tiny_llama, hook=hook, progress=QUIET)


@pytest.mark.parametrize(("broken_call", "said"), [(0, "NaN or infinite logits"), (1, "With 'sae' in the activation")])
def test_a_model_that_overflows_is_an_error_and_no_figure(
    tiny_llama: LanguageModel,
    hook: HookPoint,
    tokens: TokenSet,
    monkeypatch: pytest.MonkeyPatch,
    broken_call: int,
    said: str,
) -> None:
    """As half-precision models do: the clean pass, or the one with the reconstruction in place."""
    plain, calls = LanguageModel.logits, []

    def overflowing(self: LanguageModel, *args: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return plain(self, *args) * (torch.nan if len(calls) == broken_call + 1 else 1.0)

    monkeypatch.setattr(LanguageModel, "logits", overflowing)
    with pytest.raises(InputError, match=said):
        evaluate(Scaled(WIDTH), tiny_llama, hook, tokens)


def test_tokens_that_no_logits_allow_add_nothing_to_kl(
    tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some models give -inf to unused entries of a padded vocabulary."""
    plain = LanguageModel.logits

    def forbidding(self: LanguageModel, *args: torch.Tensor) -> torch.Tensor:
        logits_BTV = plain(self, *args).clone()
        logits_BTV[..., 1] = -torch.inf  # no context holds token 1
        return logits_BTV

    monkeypatch.setattr(LanguageModel, "logits", forbidding)
    behaviour = evaluate(Added(WIDTH, 0.2), tiny_llama, hook, tokens).behaviour
    assert behaviour is not None
    assert behaviour.kl_sae.value is not None
    assert behaviour.kl_sae.value > 0


def test_the_model_is_left_as_it_was(tiny_llama: LanguageModel, hook: HookPoint, tokens: TokenSet) -> None:
    ids_BT = torch.from_numpy(tokens.contexts(0, 2).input_ids)
    before = tiny_llama.logits(ids_BT)
    evaluate(Constant(torch.zeros(WIDTH)), tiny_llama, hook, tokens)
    assert torch.equal(before, tiny_llama.logits(ids_BT))


def test_a_hook_inside_a_module_is_spliced_too(tiny_llama: LanguageModel, tokens: TokenSet) -> None:
    hidden = resolve_hook(tiny_llama, 1, "mlp_hidden")
    behaviour = evaluate(Constant(torch.zeros(hidden.width)), tiny_llama, hidden, tokens).behaviour
    assert behaviour is not None
    assert behaviour.ce_score_zero is not None
    assert behaviour.ce_score_zero.value == 0.0
    assert dataclasses.asdict(hidden)["side"] == "in"
