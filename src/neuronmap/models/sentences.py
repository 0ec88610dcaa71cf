"""``SentenceEncoder``: sentences as unit vectors that are near where meanings are near, by all-MiniLM-L6-v2 (sample package).

The vector of a sentence is the mean of the last hidden states over its tokens, divided by its length, as in Sentence-BERT
(arXiv 1908.10084) and in the model's own configuration of sentence-transformers, whose vectors these are.

Shapes: N sentences, L tokens of the longest in a batch, D hidden size (384).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from neuronmap.errors import ModelFormatError
from neuronmap.models.placement import choose_device, memory_errors
from neuronmap.models.quiet import quiet_libraries
from neuronmap.models.samples import SENTENCE_ENCODER

__all__ = ["MOST_TOKENS", "SentenceEncoder"]

MOST_TOKENS = 256
"""Of a sentence; the rest is left out, as in the model's own configuration."""
_BATCH_TOKENS = 3072
"""Tokens of a batch, padding included: larger ones are not faster on a CPU, whose cache they leave."""


class SentenceEncoder:
    """The encoder in memory. Make it with :meth:`load`.

    Args:
        module: a transformers encoder, on its device and in evaluation mode.
        tokenizer: its tokenizer.
        device: where it is.

    Example:
        >>> encoder = SentenceEncoder.load()                              # doctest: +SKIP
        >>> winter, cold, tax = encoder.embed(["winter", "the cold season", "an income tax"])    # doctest: +SKIP
        >>> winter @ cold > winter @ tax                                  # doctest: +SKIP
        True
    """

    def __init__(self, module: Any, tokenizer: Any, device: torch.device) -> None:
        self.module, self.tokenizer, self.device = module, tokenizer, device

    @classmethod
    def load(cls, device: str = "auto") -> SentenceEncoder:
        """Load it from the sample package.

        Args:
            device: as for :func:`~neuronmap.models.load_model`.

        Raises:
            ModelNotFoundError: the package is not installed; the hint installs it.
            ModelFormatError: its files cannot be read.
            MemoryExhaustedError: it does not fit.
        """
        weights = SENTENCE_ENCODER.require()
        target, _ = choose_device(device)
        with memory_errors(target, weights.stat().st_size, "The sentence encoder"):
            module, tokenizer = _read(weights.parent)
            return cls(module.to(target).eval(), tokenizer, target)

    @property
    def width(self) -> int:
        """D."""
        return int(self.module.config.hidden_size)

    @property
    def weight_bytes(self) -> int:
        """Of its weights."""
        return sum(weight.numel() * weight.element_size() for weight in self.module.parameters())

    def embed(
        self, sentences: Sequence[str], advance: Callable[[int], None] = lambda _: None
    ) -> npt.NDArray[np.float32]:
        """float32 [N, D]: unit vectors; zero for a sentence that is empty.

        Args:
            sentences: the texts; each is cut after :data:`MOST_TOKENS` tokens.
            advance: is told how many sentences are done.
        """
        vector_ND = np.zeros((len(sentences), self.width), np.float32)
        kept = [at for at, sentence in enumerate(sentences) if sentence.strip()]
        advance(len(sentences) - len(kept))
        if not kept:
            return vector_ND
        ids = self.tokenizer([sentences[at] for at in kept], truncation=True, max_length=MOST_TOKENS)["input_ids"]
        by_length = sorted(range(len(kept)), key=lambda at: len(ids[at]))
        while by_length:  # the longest first, so that memory that does not suffice is known at once
            length = len(ids[by_length[-1]])
            size = max(1, _BATCH_TOKENS // length)
            batch, by_length = by_length[-size:], by_length[:-size]
            vector_ND[[kept[at] for at in batch]] = self._run([ids[at] for at in batch], length)
            advance(len(batch))
        return vector_ND

    @torch.inference_mode()
    def _run(self, ids: Sequence[Sequence[int]], length: int) -> npt.NDArray[np.float32]:
        id_NL = torch.full((len(ids), length), int(self.tokenizer.pad_token_id or 0))
        mask_NL = torch.zeros_like(id_NL)
        for row, sentence in enumerate(ids):
            id_NL[row, : len(sentence)] = torch.tensor(sentence)
            mask_NL[row, : len(sentence)] = 1
        mask_NL = mask_NL.to(self.device)
        state_NLD = self.module(input_ids=id_NL.to(self.device), attention_mask=mask_NL).last_hidden_state
        weight_NL1 = mask_NL[:, :, None].to(state_NLD.dtype)
        mean_ND = (state_NLD * weight_NL1).sum(1) / weight_NL1.sum(1)
        unit_ND = torch.nn.functional.normalize(mean_ND.float(), dim=1)
        return np.asarray(unit_ND.cpu().numpy(), np.float32)


def _read(folder: Path) -> tuple[Any, Any]:
    """Module and tokenizer from a folder; only safetensors, and no code of the folder's."""
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    try:
        with quiet_libraries():
            module = AutoModel.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelFormatError(
            f"The sentence encoder cannot be read: {reason}",
            hint=SENTENCE_ENCODER.install.replace("install", "install --force-reinstall"),
        ) from error
    return module, tokenizer
