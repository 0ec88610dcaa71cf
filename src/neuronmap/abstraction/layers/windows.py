"""Which tokens layers are compared on: short windows of text, each read at one token or two, far into it and never at its start.

Tokens of one text depend on each other, so each context of the token set gives one window first, and a second one only where there are too
few contexts. A window is as short as it can be: the model's time goes by its length.

Two models read the same characters. With one tokenizer they read the same tokens; otherwise the window is turned back into text, each
tokenises that, and both read the last token of the same word.

Legend: T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from neuronmap.corpora import TokenSet
from neuronmap.corpora.vocabulary import vocabulary_of
from neuronmap.errors import EmptyCorpusError, InputError
from neuronmap.models import LanguageModel

__all__ = ["Window", "draw_shared_windows", "draw_windows"]

CONTEXTS = 768
"""Windows by default: the standard error of CKA is then about 0.01."""
WINDOW = 32
"""Tokens of a window at most; 135M parameters read some 280 tokens a second and core."""
FIRST = 8
"""First position that is read."""
_LEAST_READ = 2


@dataclass(frozen=True)
class Window:
    """A piece of text for one model.

    Attributes:
        ids: its tokens, BOS included where contexts have one.
        reads: positions that are read, ascending; never 0.
        context: the context of the token set that it is from.
    """

    ids: tuple[int, ...]
    reads: tuple[int, ...]
    context: int


def draw_windows(
    tokens: TokenSet,
    *,
    contexts: int = CONTEXTS,
    per_context: int = 1,
    window: int = WINDOW,
    first: int = FIRST,
    seed: int = 0,
) -> list[Window]:
    """Windows of a token set, each with read positions drawn uniformly from ``first`` on; special tokens and padding are never read.

    Args:
        tokens: contexts of the text.
        contexts: windows at most; fewer if the text has no more.
        per_context: tokens read in each, 1 or 2.
        window: tokens of a window at most.
        first: first position that may be read, at least 1 (less than it in very short contexts).
        seed: of the choice of contexts and positions.

    Raises:
        InputError: a number is out of range.
        EmptyCorpusError: no token can be read.
    """
    _check(contexts, per_context, window, first)
    rng = np.random.default_rng(seed)
    found: list[Window] = []
    for piece in _pieces(tokens, window, rng):
        least = min(first, max(1, len(piece.ids) // 2))
        allowed = np.flatnonzero(piece.readable[least:]) + least
        if len(allowed) >= per_context:
            chosen = np.sort(rng.choice(allowed, per_context, replace=False))
            found.append(Window(tuple(piece.ids.tolist()), tuple(chosen.tolist()), piece.context))
            if len(found) == contexts:
                break
    return _some(found, tokens)


def draw_shared_windows(
    tokens: TokenSet,
    model: LanguageModel,
    other: LanguageModel,
    *,
    contexts: int = CONTEXTS,
    window: int = WINDOW,
    first: int = FIRST,
    seed: int = 0,
) -> tuple[list[Window], list[Window]]:
    """Windows for two models, one of each for the same text, read at the end of the same word.

    Args:
        tokens: contexts of the text, by the first model's tokenizer.
        model, other: the models; their tokenizers say which characters a token covers, unless they are equal.
        contexts, window, first, seed: as for :func:`draw_windows`; both models read at ``first`` or later.

    Raises:
        InputError: a number is out of range, or a tokenizer is missing or gives no offsets.
        EmptyCorpusError: no token can be read.
    """
    if _same_tokenizer(model, other):
        windows = draw_windows(tokens, contexts=contexts, window=window, first=first, seed=seed)
        return windows, windows
    _check(contexts, 1, window, first)
    readers = _TextReader.of(model), _TextReader.of(other)
    rng = np.random.default_rng(seed)
    found: list[tuple[Window, Window]] = []
    for piece in _pieces(tokens, window, rng):
        text = readers[0].text(piece.longest_run())
        mine, theirs = (reader.read(text) for reader in readers)
        least = min(first, max(_LEAST_READ, min(len(mine.ids), len(theirs.ids)) // 2))
        ends = [end for end in _word_ends(text) if min(mine.at.get(end, 0), theirs.at.get(end, 0)) >= least]
        if ends:
            end = ends[int(rng.integers(len(ends)))]
            found.append((mine.window(end, piece.context), theirs.window(end, piece.context)))
            if len(found) == contexts:
                break
    _some([pair[0] for pair in found], tokens)
    return [pair[0] for pair in found], [pair[1] for pair in found]


@dataclass(frozen=True)
class _Piece:
    """A stretch of a context.

    Attributes:
        ids: int64 [T].
        readable: bool [T], False for special tokens and padding.
        document: int32 [T], the document of each; -1 for none.
        context: which context.
    """

    ids: npt.NDArray[np.int64]
    readable: npt.NDArray[np.bool_]
    document: npt.NDArray[np.int32]
    context: int

    def longest_run(self) -> list[int]:
        """The tokens of the document that has most of them here."""
        inside = self.document[self.readable & (self.document >= 0)]
        if not len(inside):
            return []
        documents, counts = np.unique(inside, return_counts=True)
        chosen: list[int] = self.ids[self.readable & (self.document == documents[counts.argmax()])].tolist()
        return chosen


@dataclass(frozen=True)
class _Tokenized:
    """Text as one model's tokens, and the token that ends at each character."""

    ids: tuple[int, ...]
    at: dict[int, int]

    def window(self, end: int, context: int) -> Window:
        return Window(self.ids, (self.at[end],), context)


@dataclass(frozen=True)
class _TextReader:
    """A tokenizer with the token that it puts first, if any."""

    tokenizer: Any
    prefix: tuple[int, ...]

    @classmethod
    def of(cls, model: LanguageModel) -> _TextReader:
        tokenizer = model.tokenizer
        if tokenizer is None or not tokenizer.is_fast:
            kind = "no tokenizer" if tokenizer is None else f"the tokenizer {type(tokenizer).__name__}"
            raise InputError(
                f"{model.identity.name} has {kind}, so there is nothing that says which characters its tokens cover.",
                hint="Two models with different tokenizers need fast ones (tokenizer.json).",
            )
        bos = vocabulary_of(
            tokenizer, separator=None, prepend_bos="auto", digest=model.identity.tokenizer_digest
        ).bos_id
        return cls(tokenizer, () if bos is None else (bos,))

    def text(self, ids: list[int]) -> str:
        """What the tokens stand for, without characters that were cut."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.strip("\N{REPLACEMENT CHARACTER}")

    def read(self, text: str) -> _Tokenized:
        coded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans = enumerate(coded["offset_mapping"], start=len(self.prefix))
        # several tokens may share a character; the last of them has seen all of it
        return _Tokenized(
            (*self.prefix, *coded["input_ids"]), {stop: at for at, (start, stop) in spans if stop > start}
        )


def _pieces(tokens: TokenSet, window: int, rng: np.random.Generator) -> Iterator[_Piece]:
    """Windows in random order: the first of every context, then the second of every one, ..."""
    length = tokens.context_length
    bos = 1 if tokens.report.bos is not None and length > 1 else 0
    body = min(window, length) - bos
    for place in range((length - bos) // body):
        for context in rng.permutation(len(tokens)).tolist():
            batch = tokens.contexts(context, context + 1)
            chosen = np.r_[np.arange(bos), bos + place * body + np.arange(body)]
            readable = batch.attention[0, chosen] & ~batch.special[0, chosen]
            # padding is at the end; what is before it is a shorter window
            chosen = chosen[: int(batch.attention[0, chosen].sum())]
            if len(chosen) > 1:
                ids, document = batch.input_ids[0, chosen], batch.document[0, chosen]
                yield _Piece(ids, readable[: len(chosen)], document, context)


def _word_ends(text: str) -> list[int]:
    """One past the last character of each word, but of the last one if nothing says that it ends there."""
    return [at for at in range(1, len(text)) if text[at - 1].isalnum() and not text[at].isalnum()]


def _same_tokenizer(model: LanguageModel, other: LanguageModel) -> bool:
    digest = model.identity.tokenizer_digest
    return model is other or (digest is not None and digest == other.identity.tokenizer_digest)


def _check(contexts: int, per_context: int, window: int, first: int) -> None:
    for name, value, least, most in (
        ("contexts", contexts, 1, None),
        ("per_context", per_context, 1, 2),
        ("window", window, 2, None),
        ("first", first, 1, None),
    ):
        if value < least or (most is not None and value > most):
            allowed = f"{least} or more" if most is None else f"{least} or {most}"
            raise InputError(f"{name} = {value}; it must be {allowed}.")


def _some(found: list[Window], tokens: TokenSet) -> list[Window]:
    if not found:
        raise EmptyCorpusError(
            f"None of the {tokens.num_contexts:,} contexts of {tokens.context_length} tokens has a token to read"
            " beyond the first, apart from special tokens and padding.",
            hint="Give more text, or longer contexts.",
        )
    return found
