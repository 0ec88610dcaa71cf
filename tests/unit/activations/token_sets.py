"""A token set without files, and what the tests of this room share with the processes they start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from neuronmap.hashing import digest_bytes
from neuronmap.progress import SilentProgress, Task


@dataclass
class Contexts:
    input_ids: Any
    document: Any
    position: Any
    special: Any
    attention: Any


class PlainTokens:
    """Random contexts of documents of 21 tokens with a separator (id 0) between; padding ends the last context."""

    part = "all"

    def __init__(self, num_contexts: int, context_length: int, vocabulary: int = 300) -> None:
        self.num_contexts, self.context_length = num_contexts, context_length
        shape = (num_contexts, context_length)
        flat = np.arange(num_contexts * context_length)
        ids = np.random.default_rng(0).integers(3, vocabulary, size=flat.size)
        special = flat % 22 == 21
        ids[special] = 0
        attention = np.ones(flat.size, bool)
        attention[-5:] = False
        self.input_ids = ids.astype(np.int64).reshape(shape)
        self.document = np.where(special, -1, flat // 22).astype(np.int32).reshape(shape)
        self.position = (flat % 22).astype(np.int32).reshape(shape)
        self.special = special.reshape(shape)
        self.attention = attention.reshape(shape)
        self.num_tokens = int(attention.sum())
        self.digest = digest_bytes(self.input_ids.tobytes())
        self.report = self

    def contexts(self, start: int, stop: int) -> Contexts:
        parts = (self.input_ids, self.document, self.position, self.special, self.attention)
        return Contexts(*(part[start:stop] for part in parts))

    def to_dict(self) -> dict[str, Any]:
        return {"corpus": "random", "reused": False}

    def kept(self, first_positions: int = 1, specials: bool = False) -> np.ndarray:
        """bool [contexts, T] by plain definition: what the token part of the mask keeps."""
        kept = self.attention & (self.special * (not specials) == 0)
        kept[:, :first_positions] = False
        return kept


class Notes(SilentProgress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.advanced = 0  # by tasks that harvest

    def note(self, message: str) -> None:
        self.lines.append(message)

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        owner = self

        class Counting:
            def advance(self, amount: int, **figures: str) -> None:
                owner.advanced += amount if title.startswith("Harvesting") else 0

        yield Counting()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def tuned_with(**changes: Any) -> None:
    """Settings as ``neuronmap doctor --tune`` would have left them."""
    from neuronmap.models.tuned import Tuned, machine_name

    device, threads = torch.device("cpu"), torch.get_num_threads()
    usual = Tuned(machine_name(device), "tiny", "2030-01-02", threads, threads, 2048, "sdpa", "float32", 1.0, 1.0, 0.0)
    replace(usual, **changes).save(device)


def tiny_model() -> Any:
    """A Llama of 2 blocks and hidden size 16, the same in every process."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from neuronmap.models import wrap_model

    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return wrap_model(LlamaForCausalLM(config), name="tiny")
