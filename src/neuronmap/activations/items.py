"""A model read at given words of given texts: one forward pass for all hook points and all data sets.

A text that several data sets use is run once. Texts of equal length form a batch, so there is no padding, and what is read does not
depend on batch size or padding side. Position 0 is never read: in many models its activation is a hundred times larger than any other,
whatever the token (2402.17762), and a probe would see only that.

Legend: N items, W width, B texts, T tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronmap.concepts.items import ConceptData, Item
from neuronmap.errors import InputError, ModelError
from neuronmap.models import HookPoint, LanguageModel, capture
from neuronmap.progress import Progress, default

__all__ = ["BATCH_TOKENS", "TokenizedText", "read_hooks", "run_items", "tokenize_text"]

BATCH_TOKENS = 1024
"""Tokens in one forward pass; a batch holds the activations of all layers at once."""


@dataclass(frozen=True)
class TokenizedText:
    """Token ids of a text with the characters that each stands for."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    def position(self, span: tuple[int, int]) -> int | None:
        """Position of the last token that overlaps a span of characters; None if none does."""
        start, stop = span
        found = [at for at, (left, right) in enumerate(self.offsets) if left < stop and right > start and right > left]
        return found[-1] if found else None


def tokenize_text(model: LanguageModel, text: str) -> TokenizedText:
    """A text as the model reads it, with the tokens that the tokenizer adds by itself.

    Raises:
        ModelError: the model has no tokenizer, or one that cannot say which characters a token stands for.
        InputError: the text is longer than the model takes.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ModelError(f"{model.identity.name} has no tokenizer, so it cannot read texts.")
    if not tokenizer.is_fast:
        raise ModelError(
            f"The tokenizer of {model.identity.name} ({type(tokenizer).__name__}) cannot say which characters a token stands for.",
            hint="A fast tokenizer (tokenizer.json) is needed.",
        )
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids = tuple(encoded["input_ids"])
    if model.max_length is not None and len(ids) > model.max_length:
        raise InputError(
            f"A text of {len(ids):,} tokens is longer than the {model.max_length:,} that {model.identity.name} takes: "
            f"{text[:60]!r}..."
        )
    return TokenizedText(ids, tuple((int(left), int(right)) for left, right in encoded["offset_mapping"]))


def read_hooks(
    model: LanguageModel, data: Sequence[ConceptData], hooks: Sequence[HookPoint], *, progress: Progress | None = None
) -> list[tuple[ConceptData, list[Tensor]]]:
    """Read the items of some concepts at any hook points, in one pass.

    Returns:
        For each concept its items that could be read, and float32 [N, W] for each hook.
    """
    places, taken = run_items(model, data, hooks, BATCH_TOKENS, "Reading concepts", progress)
    return [
        (
            ConceptData(part.name, part.classes, tuple(item for item, _ in found), part.warnings),
            [torch.stack([taken[item.text, position][1 + at] for item, position in found]) for at in range(len(hooks))],
        )
        for part, found in zip(data, places, strict=True)
    ]


def run_items(
    model: LanguageModel,
    data: Sequence[ConceptData],
    hooks: Sequence[HookPoint],
    batch_tokens: int,
    title: str,
    progress: Progress | None,
) -> tuple[list[list[tuple[Item, int]]], dict[tuple[str, int], list[Tensor]]]:
    """Run every text once.

    Returns:
        Items with their positions, by concept; and for each text and position the mean of the first hook over positions 1 to it, followed
        by the activation at every hook.
    """
    tokenized = {text: tokenize_text(model, text) for text in {item.text: None for part in data for item in part.items}}
    places = [_places(model, part, tokenized) for part in data]
    wanted: dict[str, set[int]] = defaultdict(set)
    for found in places:
        for item, position in found:
            wanted[item.text].add(position)
    taken: dict[tuple[str, int], list[Tensor]] = {}
    with (progress or default()).task(title, sum(len(tokenized[text].ids) for text in wanted), "tokens") as task:
        for batch in _batches({text: tokenized[text] for text in wanted}, batch_tokens):
            ids_BT = torch.tensor([tokenized[text].ids for text in batch])
            found_BTW = capture(model, ids_BT, hooks)
            for row, text in enumerate(batch):
                for position in wanted[text]:
                    before_TW = found_BTW[hooks[0].name][row, 1 : position + 1]
                    rows = [found_BTW[hook.name][row, position] for hook in hooks]
                    taken[text, position] = [part.float().cpu() for part in (before_TW.float().mean(0), *rows)]
            task.advance(ids_BT.numel())
    return places, taken


def _places(model: LanguageModel, data: ConceptData, tokenized: dict[str, TokenizedText]) -> list[tuple[Item, int]]:
    """The items that can be read, each with the position of its token."""
    found = []
    for item in data.items:
        position = tokenized[item.text].position(item.span)
        if position is None:
            raise InputError(
                f"Concept {data.name}: no token of {model.identity.name} stands for {item.word!r} in {item.text!r}, so there is "
                "nothing to read."
            )
        if position > 0:
            found.append((item, position))
    if not found:
        raise InputError(
            f"Concept {data.name}: every item would be read at position 0 of {model.identity.name}, whose activation says nothing.",
            hint="Put words before the word that is read.",
        )
    return found


def _batches(tokenized: dict[str, TokenizedText], batch_tokens: int) -> list[list[str]]:
    """Texts of equal length in batches, the longest first (so that memory runs out at once if it does)."""
    by_length: dict[int, list[str]] = defaultdict(list)
    for text, found in tokenized.items():
        by_length[len(found.ids)].append(text)
    batches = []
    for length in sorted(by_length, reverse=True):
        texts, size = by_length[length], max(1, batch_tokens // max(length, 1))
        batches += [texts[start : start + size] for start in range(0, len(texts), size)]
    return batches
