"""The way from the residual stream to the logits, against what the model itself gives."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from neuronmap.errors import ModelFormatError
from neuronmap.models import LanguageModel, replaced, resolve_hook, wrap_model
from neuronmap.models.unembedding import DirectionMap, find_unembedding

NORMALISATION = {  # layer where not here
    **dict.fromkeys(["gemma2", "gemma3", "llama", "mamba", "olmo2", "qwen2", "qwen3", "qwen3-moe"], "rms"),
}


def real_logits(model: LanguageModel, d_BD: Tensor) -> Tensor:
    """[B, V]: the model's logits with these vectors in place of the last block's output, less those with zeros there."""
    hook = resolve_hook(model, model.num_layers - 1, "residual")
    ids_1T = torch.arange(3, 3 + len(d_BD))[None]

    def put(values_BD: Tensor) -> Tensor:
        with replaced(model, hook, lambda x_BTD: values_BD[None].to(x_BTD.dtype)):
            return model.logits(ids_1T)[0]

    return put(d_BD) - put(torch.zeros_like(d_BD))


def test_every_architecture_gives_what_the_model_gives(
    any_model: LanguageModel, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if architecture == "bert":
        with pytest.raises(ModelFormatError, match=r"transform_act_fn.*neither linear nor a normalisation"):
            find_unembedding(any_model)
        return
    if architecture == "gemma2":  # the soft cap is left out on purpose
        monkeypatch.setattr(any_model.module.config, "final_logit_softcapping", None)
    found = find_unembedding(any_model)
    assert found.before_head.normalisation == NORMALISATION.get(architecture, "layer")
    d_BD = torch.randn(5, 32, generator=torch.Generator().manual_seed(1)) + 0.3
    expected_BV = real_logits(any_model, 1000 * d_BD)
    logits_BV = found.before_head(d_BD) @ found.weight_VE.T
    torch.testing.assert_close(logits_BV, expected_BV, rtol=1e-4, atol=1e-4)
    # Neither the length of a direction nor an epsilon matters; zero stays zero.
    torch.testing.assert_close(found.before_head(d_BD * 1e-8), found.before_head(d_BD), rtol=1e-4, atol=1e-5)
    assert not found.before_head(torch.zeros(1, 32)).any()


def test_a_projection_after_the_blocks_is_followed_and_nothing_is_normalised() -> None:
    config = hf.OPTConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=80, word_embed_proj_dim=16,
        do_layer_norm_before=False, init_std=0.2, max_position_embeddings=64,
    )  # fmt: skip
    model = wrap_model(hf.OPTForCausalLM(config), name="opt-350m-like")
    found = find_unembedding(model)
    assert found.before_head.normalisation == "none"
    assert found.before_head.width == 16
    assert [name.rpartition(".")[2] for name in found.before_head.names] == ["project_out"]
    d_BD = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        found.before_head(d_BD) @ found.weight_VE.T, real_logits(model, d_BD), rtol=1e-4, atol=1e-4
    )


def test_low_precision_weights_are_used_in_float32() -> None:
    config = hf.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2)
    model = wrap_model(hf.GPT2LMHeadModel(config).to(torch.bfloat16), name="half")
    found = find_unembedding(model)
    assert found.weight_VE.dtype == torch.bfloat16
    assert found.before_head(torch.ones(1, 32) + torch.arange(32)).dtype == torch.float32


def test_a_model_without_a_head_says_so() -> None:
    config = hf.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    with pytest.raises(ModelFormatError, match="no language-model head"):
        find_unembedding(wrap_model(hf.GPT2Model(config), name="headless"))


def test_a_nonlinear_module_is_refused_by_name() -> None:
    with pytest.raises(ModelFormatError, match=r"'gate' \(GELU\) is neither linear nor a normalisation"):
        DirectionMap({"down": nn.Linear(8, 8), "gate": nn.GELU()}, 8, "cpu")


def test_norms_with_a_large_epsilon_and_a_bias_are_seen_through() -> None:
    norm = nn.LayerNorm(8, eps=1e-2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    d_BD = 1e-3 * torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    centred_BD = d_BD - d_BD.mean(dim=1, keepdim=True)
    expected_BD = centred_BD / centred_BD.std(dim=1, correction=0, keepdim=True) * norm.weight
    torch.testing.assert_close(DirectionMap({"norm": norm}, 8, "cpu")(d_BD), expected_BD, rtol=1e-4, atol=1e-4)
