"""Small models with random weights, one for each architecture the room is tested on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
import transformers as hf

from neuronmap.models import LanguageModel, wrap_model

_COMMON = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
_SMALL = {**_COMMON, "intermediate_size": 80, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 1}
_GROUPED = {**_SMALL, "num_key_value_heads": 2, "pad_token_id": 2}
_GPT = {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "bos_token_id": 0, "eos_token_id": 1}

BUILDERS: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**_COMMON, intermediate_size=80, initializer_range=0.2)),
    "bloom": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(vocab_size=96, hidden_size=32, n_layer=3, n_head=4, initializer_range=0.2)
    ),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**_GROUPED, head_dim=16)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**_GROUPED, head_dim=16)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**_GPT, n_positions=64, initializer_range=0.2)),
    "gptj": lambda: hf.GPTJForCausalLM(hf.GPTJConfig(**_GPT, rotary_dim=4, n_positions=64, initializer_range=0.2)),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_GROUPED)),
    "mamba": lambda: hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=3, state_size=4)
    ),
    "neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_SMALL)),
    "neox-sequential": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_SMALL, use_parallel_residual=False)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**_GROUPED)),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(**_COMMON, ffn_dim=80, word_embed_proj_dim=32, init_std=0.2, max_position_embeddings=64)
    ),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**_SMALL)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**_GROUPED)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**_GROUPED, head_dim=16)),
    "qwen3-moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**_GROUPED, head_dim=8, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2)
    ),
}


@cache
def build(architecture: str) -> LanguageModel:
    """The small model of an architecture, the same one every time."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = BUILDERS[architecture]()
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):  # zero at initialisation; a wrong hook point must not hide behind that
                torch.nn.init.normal_(parameter, std=0.1)
        return wrap_model(module, name=architecture)


@pytest.fixture(params=sorted(BUILDERS))
def architecture(request: pytest.FixtureRequest) -> str:
    """The name of each architecture in turn."""
    return str(request.param)


@pytest.fixture
def any_model(architecture: str) -> LanguageModel:
    """The small model of each architecture in turn."""
    return build(architecture)


@pytest.fixture(name="ids_BT")
def token_ids() -> torch.Tensor:
    """Token ids [3, 7] that every small model knows."""
    return torch.randint(3, 96, (3, 7), generator=torch.Generator().manual_seed(5))
