"""Fixtures of this room: a tokenizer that adds BOS by itself, and a progress that remembers its notes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from neuronmap.progress import SilentProgress, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Notes(SilentProgress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tasks: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        self.tasks.append(title)
        with super().task(title, total, unit) as task:
            yield task


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture(scope="session")
def bos_tokenizer(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with a template that puts ``<s>`` first, as Llama and Gemma do."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
