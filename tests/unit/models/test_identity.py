"""Digests change with content and with nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from neuronmap.errors import DamagedError, ModelFormatError
from neuronmap.models import LanguageModel, ModelIdentity, list_samples, tokenizer_digest, wrap_model


def test_digest_of_a_model_in_memory(tiny_llama: LanguageModel) -> None:
    twin = wrap_model(copy.deepcopy(tiny_llama.module), name="other-name")
    assert twin.identity.model_digest == tiny_llama.identity.model_digest
    with torch.no_grad():
        twin.module.model.norm.weight[0] += 1e-3
    assert wrap_model(twin.module).identity.model_digest != tiny_llama.identity.model_digest
    other = copy.deepcopy(tiny_llama.module)
    other.config.rms_norm_eps = 0.5
    assert wrap_model(other).identity.model_digest != tiny_llama.identity.model_digest


def test_tokenizer_digest_ignores_use(tiny_llama: LanguageModel) -> None:
    tokenizer = copy.deepcopy(tiny_llama.tokenizer)
    assert tokenizer is not None
    before = tokenizer_digest(tokenizer)
    tokenizer(["one", "another text"], padding=True, truncation=True, max_length=4)
    assert tokenizer_digest(tokenizer) == before == tiny_llama.identity.tokenizer_digest
    tokenizer.add_tokens(["newword"])
    assert tokenizer_digest(tokenizer) != before


def test_identity_is_strict_about_fields(tiny_llama: LanguageModel) -> None:
    stored = tiny_llama.identity.to_dict()
    with pytest.raises(DamagedError, match="colour"):
        ModelIdentity.from_dict({**stored, "colour": "red"})
    stored.pop("dtype")
    with pytest.raises(DamagedError, match="dtype"):
        ModelIdentity.from_dict(stored)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelFormatError, match="Linear is not a Hugging Face"):
        wrap_model(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_another_tokenizer_shares_the_weights(tiny_gpt2: LanguageModel) -> None:
    tokenizer = copy.deepcopy(tiny_gpt2.tokenizer)
    assert tokenizer is not None
    tokenizer.add_tokens(["newword"])
    other = tiny_gpt2.with_tokenizer(tokenizer)
    assert other.module is tiny_gpt2.module
    assert other.identity.tokenizer_digest != tiny_gpt2.identity.tokenizer_digest
    assert tiny_gpt2.tokenizer is not tokenizer


def test_samples_say_what_they_are() -> None:
    for sample in list_samples():
        assert sample.licence
        assert sample.install.startswith("pip install")
