"""The logit lens, against what the language model gives with the direction in its stream, and against numpy and scipy."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import scipy.stats
import torch
import transformers as hf
from torch import Tensor

from neuronmap.errors import InputError, MismatchError
from neuronmap.features.directions import lens as lens_module
from neuronmap.features.directions.lens import LensFacts, lens_facts, lens_or_reason
from neuronmap.features.directions.weights import weight_facts
from neuronmap.models import HookPoint, LanguageModel, replaced, resolve_hook, wrap_model
from neuronmap.progress import SilentProgress
from neuronmap.saes import SparseAutoencoder, get_architecture

V, D = 301, 32
_SMALL = {
    "vocab_size": V, "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80,
    "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
_GROUPED = {**_SMALL, "num_key_value_heads": 2, "pad_token_id": 2}
_GPT = {"vocab_size": V, "n_embd": D, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 1}
BUILDERS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_GROUPED)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**_GPT, n_positions=64, initializer_range=0.2)),
    "neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_SMALL)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**_GROUPED, head_dim=16, final_logit_softcapping=None)),
}
ARCHITECTURES = sorted(BUILDERS)


@cache
def build(architecture: str) -> LanguageModel:
    """A small random model; no parameter is at its initial 0 or 1."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = BUILDERS[architecture]()
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        return wrap_model(module, name=architecture)


def random_sae(width: int, features: int = 40) -> SparseAutoencoder:
    """An SAE with random directions, of which feature 5 is zero."""
    sae = get_architecture("topk")(width, features)
    sae.initialise(torch.zeros(width), torch.Generator().manual_seed(1))
    with torch.no_grad():
        sae.W_enc.copy_(torch.randn(width, features, generator=torch.Generator().manual_seed(2)))
        sae.W_dec[5] = 0.0
    return sae


def facts_at(model: LanguageModel, hook: HookPoint, sae: SparseAutoencoder, entries: int = 6) -> LensFacts:
    return lens_facts(sae, model, hook, entries=entries, progress=SilentProgress())


def real_logits(model: LanguageModel, stream_FD: Tensor) -> Tensor:
    """[F, V]: logits of vectors as the last block's output, less those of zeros."""
    hook = resolve_hook(model, model.num_layers - 1, "residual")
    ids_FT = torch.full((len(stream_FD), 1), 3)

    def put(values_FD: Tensor) -> Tensor:
        with replaced(model, hook, lambda x_FTD: values_FD[:, None]):
            return model.logits(ids_FT)[:, 0]

    return put(stream_FD) - put(torch.zeros_like(stream_FD))


def assert_is_lens_of(facts: LensFacts, logits_FV: Tensor) -> None:
    """Lists and figures of these logits, where they are not all equal."""
    dense_FV = logits_FV.double().numpy()
    live_F = np.flatnonzero(dense_FV.std(axis=1) > 1e-9)
    order_FV = np.argsort(-dense_FV, axis=1, kind="stable")
    n = facts.promoted_FN.shape[1]
    scale = np.abs(dense_FV).max()
    for name, tokens_FN, logits_FN, expected_FN in (
        ("promoted", facts.promoted_FN, facts.promoted_logit_FN, order_FV[:, :n]),
        ("suppressed", facts.suppressed_FN, facts.suppressed_logit_FN, order_FV[:, ::-1][:, :n]),
    ):
        np.testing.assert_array_equal(tokens_FN[live_F], expected_FN[live_F], err_msg=name)
        np.testing.assert_allclose(
            logits_FN[live_F], np.take_along_axis(dense_FV, expected_FN, 1)[live_F], atol=1e-5 * scale
        )
    np.testing.assert_allclose(facts.mean_F, dense_FV.mean(axis=1), atol=1e-5 * scale)
    np.testing.assert_allclose(facts.std_F, dense_FV.std(axis=1), rtol=1e-4)
    np.testing.assert_allclose(facts.skew_F[live_F], scipy.stats.skew(dense_FV[live_F], axis=1), atol=1e-4)
    np.testing.assert_allclose(facts.kurtosis_F[live_F], scipy.stats.kurtosis(dense_FV[live_F], axis=1), atol=1e-4)


@pytest.mark.parametrize("component", ["residual", "residual_pre", "attention", "mlp"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_lens_is_what_the_model_gives_with_the_direction_as_its_stream(architecture: str, component: str) -> None:
    model, sae = build(architecture), random_sae(D)
    facts = facts_at(model, resolve_hook(model, 0, component), sae)
    assert_is_lens_of(facts, real_logits(model, 1000 * sae.W_dec.detach()))
    assert facts.vocabulary == V


@pytest.mark.parametrize("component", ["attention_heads", "mlp_hidden"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_inner_directions_go_through_the_projection_and_the_norm_behind_it(architecture: str, component: str) -> None:
    model = build(architecture)
    hook = resolve_hook(model, 1, component)
    sae = random_sae(hook.width)
    facts = facts_at(model, hook, sae)
    # The model's own modules, biases taken out by a difference; the block's norm sees a large vector.
    block = model.blocks.modules[1]
    projection = block.get_submodule(hook.module_path.removeprefix(f"{model.blocks.prefix}.1."))
    with torch.inference_mode():
        stream_FD = projection(1000 * sae.W_dec) - projection(torch.zeros_like(sae.W_dec))
        if architecture == "gemma2":
            norm = (
                block.post_attention_layernorm if component == "attention_heads" else block.post_feedforward_layernorm
            )
            stream_FD = norm(stream_FD)  # type: ignore[operator]
    assert_is_lens_of(facts, real_logits(model, 1000 * stream_FD))
    assert facts.input_tokens_FN.shape == (40, 0)


def test_a_projection_under_its_own_name_is_the_same_place() -> None:
    model, sae = build("llama"), random_sae(D)
    named = facts_at(model, resolve_hook(model, 0, "mlp"), sae)
    explicit = facts_at(model, resolve_hook(model, None, "model.layers.0.mlp.down_proj:out"), sae)
    np.testing.assert_array_equal(named.promoted_FN, explicit.promoted_FN)
    # In Gemma 2 a norm comes between that projection and the stream.
    gemma = build("gemma2")
    before = facts_at(gemma, resolve_hook(gemma, None, "model.layers.0.mlp.down_proj:out"), sae)
    with torch.inference_mode():
        stream_FD = gemma.blocks.modules[0].post_feedforward_layernorm(1000 * sae.W_dec)  # type: ignore[operator]
    assert_is_lens_of(before, real_logits(gemma, 1000 * stream_FD))


@pytest.mark.parametrize("entries", [1, 20])
def test_lists_ties_and_flat_features(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sae = build("llama"), random_sae(D)
    monkeypatch.setattr(lens_module, "_BLOCK_VALUES", 16 * V)
    monkeypatch.setattr(lens_module, "_SLICE_VALUES", 3 * V)
    facts = facts_at(model, resolve_hook(model, 0, "residual"), sae, entries)
    assert_is_lens_of(facts, real_logits(model, 1000 * sae.W_dec.detach()))
    assert facts.promoted_FN[5].tolist() == facts.suppressed_FN[5].tolist() == list(range(entries))
    assert facts.std_F[5] == facts.mean_F[5] == 0.0
    assert np.isnan(facts.skew_F[5])
    assert np.isnan(facts.kurtosis_F[5])


def test_the_histogram_counts_every_token_once_in_bins_of_a_quarter() -> None:
    model, sae = build("gpt2"), random_sae(D)
    facts = facts_at(model, resolve_hook(model, 0, "residual"), sae)
    logits_FV = real_logits(model, 1000 * sae.W_dec.detach()).double().numpy()
    with np.errstate(invalid="ignore"):
        z_FV = np.nan_to_num((logits_FV - logits_FV.mean(1, keepdims=True)) / logits_FV.std(1, keepdims=True))
    inner = np.linspace(-8, 8, 65)[1:-1]
    expected_F64 = np.stack([np.bincount(np.searchsorted(inner, z, "right"), minlength=64) for z in z_FV])
    assert (facts.histogram_F64.sum(axis=1) == V).all()
    # A token within rounding of an edge may be in the bin beside it.
    assert np.abs(facts.histogram_F64.astype(int) - expected_F64).sum() <= 4
    assert facts.histogram_F64[5, 32] == V


def test_open_ends_and_odd_sizes_of_the_histogram() -> None:
    z_SV = torch.tensor([[-99.0, -8.1, -7.99, 0.0, 0.25, 7.99, 8.0, 99.0, 0.3], [1.0] * 9])
    counts = lens_module._histogram(z_SV.clone())
    assert counts.dtype == np.uint32
    assert {int(b): int(counts[0, b]) for b in np.flatnonzero(counts[0])} == {0: 3, 32: 1, 33: 2, 63: 3}
    assert {int(b): int(counts[1, b]) for b in np.flatnonzero(counts[1])} == {36: 9}


def test_input_tokens_are_the_embeddings_that_the_encoder_reads() -> None:
    model, sae = build("gpt2"), random_sae(D)
    embedding_VD = model.module.get_input_embeddings().weight.detach().double().numpy()
    unit_VD = embedding_VD / np.linalg.norm(embedding_VD, axis=1, keepdims=True)
    scores_FV = sae.W_enc.T.detach().double().numpy() @ unit_VD.T
    expected_FN = np.argsort(-scores_FV, axis=1, kind="stable")[:, :6]
    for component in ("residual", "residual_pre"):
        facts = facts_at(model, resolve_hook(model, 1, component), sae)
        np.testing.assert_array_equal(facts.input_tokens_FN, expected_FN)
        np.testing.assert_allclose(facts.input_scores_FN, np.take_along_axis(scores_FV, expected_FN, 1), atol=1e-5)
    assert facts_at(model, resolve_hook(model, 1, "mlp"), sae).input_tokens_FN.shape == (40, 0)


def test_low_precision_models_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = BUILDERS["llama"]().to(torch.bfloat16)
    model, sae = wrap_model(module, name="half"), random_sae(D)
    hook = resolve_hook(model, 0, "residual")
    whole = facts_at(model, hook, sae)
    monkeypatch.setattr(lens_module, "_CHUNK_VALUES", 64)
    exact = wrap_model(module.float(), name="exact")
    np.testing.assert_array_equal(whole.promoted_FN, facts_at(exact, hook, sae).promoted_FN)


def test_only_tokens_of_the_tokenizer_are_listed(tiny_llama: LanguageModel) -> None:
    tokenizer = tiny_llama.tokenizer
    config = hf.LlamaConfig(**{**_GROUPED, "vocab_size": len(tokenizer) + 84})  # type: ignore[arg-type]
    padded = wrap_model(hf.LlamaForCausalLM(config), tokenizer, name="padded")
    facts = facts_at(padded, resolve_hook(padded, 0, "residual"), random_sae(D), entries=10_000)
    assert facts.vocabulary == len(tokenizer)  # type: ignore[arg-type]
    assert facts.promoted_FN.shape == (40, len(tokenizer))  # type: ignore[arg-type]


def test_places_without_direct_logits_give_a_reason() -> None:
    model = build("llama")
    for path, width, reason in (
        ("model.layers.0.self_attn.q_proj:out", D, "neither added to the residual stream"),
        ("model.embed_tokens:out", D, "outside the model's blocks"),
    ):
        lens, note = lens_or_reason(
            random_sae(width), model, resolve_hook(model, None, path), entries=3, progress=SilentProgress()
        )
        assert lens is None
        assert reason in note
    headless = wrap_model(hf.GPT2Model(hf.GPT2Config(**_GPT, n_positions=64)), name="headless")
    facts = weight_facts(
        random_sae(D),
        neighbours=3,
        model=headless,
        hook=resolve_hook(headless, 0, "residual"),
        progress=SilentProgress(),
    )
    assert facts.lens is None
    assert "no language-model head" in facts.lens_note


def test_an_sae_of_another_width_and_a_missing_hook_are_refused() -> None:
    model = build("llama")
    with pytest.raises(MismatchError, match=r"reads 31 dimensions, but model.layers.0:out has 32"):
        lens_or_reason(random_sae(31), model, resolve_hook(model, 0, "residual"), entries=3, progress=SilentProgress())
    with pytest.raises(InputError, match="needs the hook"):
        weight_facts(random_sae(D), neighbours=3, model=model, progress=SilentProgress())


def test_facts_of_an_sae_with_its_model() -> None:
    model, sae = build("llama"), random_sae(D)
    facts = weight_facts(
        sae,
        neighbours=3,
        lens_tokens=4,
        model=model,
        hook=resolve_hook(model, 1, "residual"),
        progress=SilentProgress(),
    )
    assert facts.lens is not None
    assert facts.lens_note == ""
    assert facts.lens.promoted_FN.shape == facts.lens.input_tokens_FN.shape == (40, 4)
    assert facts.neighbours_FN.shape == (40, 3)
