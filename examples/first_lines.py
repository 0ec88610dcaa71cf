"""The first lines a user writes, on a GPT-2-shaped model made on the spot (12 blocks, width 768, random weights).

    python examples/first_lines.py

With internet, ``model_name="gpt2"`` trains on the real one; everything else stays.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from neuronmap import SAEConfig, SAETrainer


def make_model(folder: Path, texts: list[str]) -> Path:
    """Save a GPT-2 with random weights and a byte-level tokenizer trained on the texts."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=1000, special_tokens=["<|endoftext|>"], show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=256, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def main() -> None:
    from pydoc_data.topics import topics

    texts = [text for _, text in sorted(topics.items())][:6]
    with tempfile.TemporaryDirectory() as folder:
        gpt2 = str(make_model(Path(folder) / "gpt2", texts))

        config = SAEConfig(
            model_name=gpt2,
            layer=8,
            component="mlp",
            input_dim=768,
            hidden_dim=4096,
            sparsity_penalty=0.01,
            learning_rate=0.0001,
            batch_size=32,
            num_epochs=100,
        )
        result = SAETrainer(config).train(texts)

        summary = result.metrics["summary"]
        print(
            f"{result.sae.architecture}: {result.sae.d_in} -> {result.sae.d_sae} features, {result.metadata.steps} steps"
        )
        print(
            f"explained variance {summary['explained_variance']:.3f}, L0 {summary['l0']:.1f}, bundle in {result.bundle}"
        )


if __name__ == "__main__":
    main()
