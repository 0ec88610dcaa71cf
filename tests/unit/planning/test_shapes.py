"""Sizes of models: those of the papers, and those counted from a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import GPT2Config, LlamaConfig

from neuronmap.errors import ConfigError, ModelFormatError, ModelNotFoundError
from neuronmap.planning import PUBLISHED, find_shape


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("gpt2", 124.4e6), ("gemma-2-2b", 2.614e9), ("llama-3-70b", 70.55e9), ("smollm2-135m", 134.5e6)],
)
def test_published_sizes_add_up_to_the_published_number_of_weights(name: str, parameters: float) -> None:
    assert PUBLISHED[name].parameters == pytest.approx(parameters, rel=0.002)


def test_flops_are_two_a_weight_and_attention() -> None:
    shape = PUBLISHED["smollm2-135m"]
    block = 2 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536) + 2 * 128 * 576
    assert shape.flops_per_token(8, "residual", 128) == 9 * block
    assert shape.flops_per_token(8, "residual_pre", 128) == 8 * block
    assert shape.flops_per_token(0, "mlp", 128) == block
    assert shape.flops_per_token(0, "attention", 128) == block - 2 * 3 * 576 * 1536
    assert (shape.hook_width("mlp_hidden"), shape.hook_width("attention_heads"), shape.hook_width("mlp")) == (
        1536,
        576,
        576,
    )


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(
            vocab_size=300, hidden_size=32, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=False,
        ),
        GPT2Config(vocab_size=300, n_embd=32, n_layer=3, n_head=4, n_positions=64),
    ],
    ids=["llama", "gpt2"],
)  # fmt: skip
def test_a_folder_needs_its_configuration_only(config: LlamaConfig | GPT2Config, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    shape = find_shape(str(tmp_path))
    gated = isinstance(config, LlamaConfig)
    assert (shape.num_layers, shape.width, shape.vocabulary) == (3, 32, 300)
    assert shape.attention_weights == (2 * 32 * 32 + 2 * 32 * 16 if gated else 4 * 32 * 32)
    assert shape.mlp_weights == (3 * 32 * 80 if gated else 2 * 32 * 128)
    assert shape.embedding_weights == pytest.approx(2 * 300 * 32 if gated else (300 + 64) * 32, abs=64)  # the last norm
    assert shape.attention_width == 32
    assert shape.mlp_width == (80 if gated else 128)


def test_other_names_of_known_models() -> None:
    assert find_shape("google/gemma-2-2b") is find_shape("Gemma-2-2B") is PUBLISHED["gemma-2-2b"]


def test_what_cannot_be_planned_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no model 'gpt3'") as caught:
        find_shape("gpt3")
    assert "gpt2" in caught.value.hint
    with pytest.raises(ModelFormatError, match=r"has no config\.json"):
        find_shape(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(ModelFormatError, match="cannot be used"):
        find_shape(str(tmp_path))
    with pytest.raises(ConfigError, match="blocks 0 to 11"):
        PUBLISHED["gpt2"].flops_per_token(12, "residual", 128)
    with pytest.raises(ConfigError, match="a plan knows residual"):
        PUBLISHED["gpt2"].flops_per_token(1, "logits", 128)
