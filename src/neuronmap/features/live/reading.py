"""From texts to what a language model runs: token ids with a record of what was cut, and padded batches of them.

Shapes: B contexts of a batch, T tokens of the longest of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap.corpora.vocabulary import vocabulary_of
from neuronmap.errors import ConfigError, InputError, MismatchError

if TYPE_CHECKING:
    from neuronmap.models import LanguageModel

__all__ = ["LONGEST_TEXT", "Batch", "Context", "as_contexts", "batches", "read_texts", "special_ids"]

LONGEST_TEXT = 1024
"""Tokens of a text that are looked at unless more are asked for."""


@dataclass(frozen=True)
class Context:
    """Tokens that go through the model together, from position 0.

    Attributes:
        ids_T: int64 [T].
        special_T: bool [T], the tokenizer's special tokens.
        left_out: tokens of the text that were cut off at its end.
    """

    ids_T: npt.NDArray[np.int64]
    special_T: npt.NDArray[np.bool_]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.ids_T)


@dataclass(frozen=True)
class Batch:
    """Contexts side by side, padded on the right.

    Attributes:
        numbers: which contexts they are.
        ids_BT: int64 [B, T], on the model's device.
        attention_BT: bool [B, T], False on padding; None when there is none.
    """

    numbers: list[int]
    ids_BT: Tensor
    attention_BT: Tensor | None

    @property
    def real(self) -> Tensor:
        """bool [B, T], False on padding."""
        return torch.ones_like(self.ids_BT, dtype=torch.bool) if self.attention_BT is None else self.attention_BT


def read_texts(model: LanguageModel, texts: str | Sequence[str], max_tokens: int | None = None) -> list[Context]:
    """Tokenise texts, each a context of its own, as the model's tokenizer begins a text (with BOS or without).

    Args:
        model: the language model, with its tokenizer.
        texts: one text or several.
        max_tokens: most tokens of a text; the rest is cut off and counted. None: :data:`LONGEST_TEXT`, or what the model
            can take if that is less.

    Raises:
        InputError: no text, an empty text, something that is no text, or a model without a tokenizer.
        ConfigError: ``max_tokens`` is below 1 or above what the model can take.
    """
    given = [texts] if isinstance(texts, str) else list(texts)
    if not given:
        raise InputError("No text was given.", hint="Give a text, or a list of texts.")
    for number, text in enumerate(given):
        if not isinstance(text, str):
            raise InputError(f"Text {number} is a {type(text).__name__}, not a string.")
        if not text.strip():
            raise InputError(
                f"Text {number} is empty." if len(given) > 1 else "The text is empty.", hint="Leave empty texts out."
            )
    if model.tokenizer is None:
        raise InputError(f"{model.identity.name} has no tokenizer, so it cannot read text.")
    limit = _limit(model, max_tokens)
    facts = vocabulary_of(model.tokenizer, separator=None, prepend_bos="auto", digest="")
    options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    encoded = model.tokenizer(given, add_special_tokens=False, truncation=False, **options)["input_ids"]
    special = np.array(facts.special_ids, dtype=np.int64)
    contexts = []
    for number, ids in enumerate(encoded):
        if not ids:
            raise InputError(f"Text {number} has no tokens.", hint="Leave it out.")
        ids_T = np.asarray([*([] if facts.bos_id is None else [facts.bos_id]), *ids], dtype=np.int64)
        kept_T = ids_T[:limit]
        contexts.append(Context(kept_T, np.isin(kept_T, special), len(ids_T) - len(kept_T)))
    _check_ids(model, contexts)
    return contexts


def as_contexts(model: LanguageModel, ids: Sequence[Sequence[int] | npt.NDArray[np.integer]]) -> list[Context]:
    """Take contexts that are token ids already (of a feature store), as they are.

    Raises:
        InputError: there are none, or one is empty.
        MismatchError: an id is not in the model's vocabulary.
    """
    special = special_ids(model)
    contexts = []
    for number, row in enumerate(ids):
        ids_T = np.asarray(row, dtype=np.int64)
        if ids_T.ndim != 1 or not ids_T.size:
            raise InputError(f"Context {number} must be a list of token ids and not empty, got shape {ids_T.shape}.")
        contexts.append(Context(ids_T, np.isin(ids_T, special)))
    if not contexts:
        raise InputError("No contexts were given.", hint="Give texts, or lists of token ids.")
    _check_ids(model, contexts)
    return contexts


def special_ids(model: LanguageModel) -> npt.NDArray[np.int64]:
    """int64, the tokenizer's special tokens; empty for a model without a tokenizer."""
    if model.tokenizer is None:
        return np.array([], dtype=np.int64)
    facts = vocabulary_of(model.tokenizer, separator=None, prepend_bos=False, digest="")
    return np.array(facts.special_ids, dtype=np.int64)


def batches(model: LanguageModel, contexts: Sequence[Context], batch_tokens: int) -> Iterator[Batch]:
    """Contexts in batches of at most ``batch_tokens`` tokens (padding counted), but at least one; similar lengths together."""
    order = sorted(range(len(contexts)), key=lambda number: (-len(contexts[number]), number))
    start = 0
    while start < len(order):
        longest = len(contexts[order[start]])
        numbers = order[start : start + max(1, batch_tokens // longest)]
        start += len(numbers)
        ids_BT = torch.zeros(len(numbers), longest, dtype=torch.int64)
        real_BT = torch.zeros(len(numbers), longest, dtype=torch.bool)
        for row, number in enumerate(numbers):
            length = len(contexts[number])
            ids_BT[row, :length] = torch.from_numpy(contexts[number].ids_T)
            real_BT[row, :length] = True
        # An all-ones mask changes nothing but may cost the fast attention path.
        attention_BT = None if bool(real_BT.all()) else real_BT.to(model.device)
        yield Batch(numbers, ids_BT.to(model.device), attention_BT)


def _limit(model: LanguageModel, max_tokens: int | None) -> int:
    if max_tokens is None:
        return min(LONGEST_TEXT, model.max_length or LONGEST_TEXT)
    if max_tokens < 1:
        raise ConfigError(f"max_tokens = {max_tokens}: at least 1 token of a text must be read.")
    if model.max_length is not None and max_tokens > model.max_length:
        raise ConfigError(
            f"max_tokens = {max_tokens} is more than {model.identity.name} can take ({model.max_length} tokens)."
        )
    return max_tokens


def _check_ids(model: LanguageModel, contexts: Sequence[Context]) -> None:
    size = int(model.module.get_input_embeddings().weight.shape[0])
    largest = max(int(context.ids_T.max()) for context in contexts)
    if largest >= size or min(int(context.ids_T.min()) for context in contexts) < 0:
        raise MismatchError(
            f"Token id {largest:,} is outside the vocabulary of {model.identity.name} ({size:,} entries).",
            hint="Tokenise with this model's own tokenizer.",
        )
