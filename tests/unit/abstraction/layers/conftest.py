"""Small models that differ from the shared ones: another tokenizer and width, an encoder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from neuronmap.models import LanguageModel


@pytest.fixture(scope="session")
def coarse_gpt2() -> LanguageModel:
    """A GPT-2 of 3 blocks and hidden size 48 with larger tokens than the shared tokenizer's, and BOS before each text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from neuronmap.models import wrap_model

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(
        ["the river froze in winter and children walked across it to school while such were written"], trainer
    )
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", model_max_length=64)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=48, n_layer=3, n_head=4, n_positions=64, initializer_range=0.2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return wrap_model(GPT2LMHeadModel(config), tokenizer, name="coarse-gpt2")


@pytest.fixture(scope="session")
def tiny_bert(tiny_tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    """A BERT of 2 blocks and hidden size 24."""
    from transformers import BertConfig, BertModel

    from neuronmap.models import wrap_model

    config = BertConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return wrap_model(BertModel(config), tiny_tokenizer, name="tiny-bert")
