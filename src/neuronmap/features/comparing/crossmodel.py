"""Places where two tokenisations of the same text meet: what two models with different tokenizers can be compared on.

Shapes: N tokens of one tokenisation, C characters of a text, P places (pairs of overlapping tokens).

Each token covers a span of characters of its document (the tokenizer's offset mapping). Several tokens may share a character: an
emoji of four bytes is one to four tokens of a byte-level tokenizer, all with the same span. A character counts 1 and is shared
out evenly among the tokens of a tokenizer that cover it, so a token of A and a token of B meet with weight

    w(i, j) = sum over characters c of  [c in i] / k_A(c)  *  [c in j] / k_B(c)

with k(c) the number of tokens that cover c. The weights of all places add up to the characters that both tokenizers cover; where both
give the same tokens of whole characters, every token meets itself with its length. Whitespace that a tokenizer leaves out of its
offsets counts for nobody. All measures of firing are then sums over places, with these weights.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from neuronmap.corpora import open_corpus
from neuronmap.corpora.tokenizing import text_pieces
from neuronmap.errors import InputError, MismatchError
from neuronmap.features.comparing.firing import FiringRows, Origin

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet

__all__ = ["CharacterSpans", "Documents", "Places", "SharedText", "align", "meet_in_text", "overlaps", "spans_of_text"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SharedText:
    """The text that both models read, and how each of them cut it into tokens.

    Attributes:
        corpus: the text, as :func:`neuronmap.corpora.open_corpus` takes it.
        tokens_a, tokens_b: the token sets that the rows of each SAE were computed on.
        tokenizer_a, tokenizer_b: their tokenizers (transformers, with offsets: "fast" ones).
    """

    corpus: Any
    tokens_a: TokenSet
    tokens_b: TokenSet
    tokenizer_a: Any
    tokenizer_b: Any


@dataclass(frozen=True)
class CharacterSpans:
    """Tokens of a text and the characters they cover.

    Attributes:
        ids: int64 [N].
        start: int64 [N], first character.
        stop: int64 [N], one past the last; equal to ``start`` for a token that covers none.
    """

    ids: Ints
    start: Ints
    stop: Ints


@dataclass(frozen=True)
class Places:
    """Pairs of rows that cover the same text, in text order.

    Attributes:
        row_a: int64 [P], row of the first SAE's codes.
        row_b: int64 [P], row of the second's.
        weight: float64 [P], characters.
        documents: documents with at least one place.
    """

    row_a: Ints
    row_b: Ints
    weight: npt.NDArray[np.float64]
    documents: int


def spans_of_text(tokenizer: Any, text: str) -> CharacterSpans:
    """Tokenise one document as :func:`neuronmap.corpora.tokenize` does, and say which characters each token covers.

    Args:
        tokenizer: a transformers tokenizer that gives offsets.
        text: the document.

    Raises:
        InputError: if the tokenizer gives no offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"The tokenizer {type(tokenizer).__name__} does not say which characters its tokens cover (offset mapping).",
            hint="Load it with use_fast=True; if there is no fast form, these models cannot be compared by text.",
        )
    ids, start, stop, before = [], [], [], 0
    for piece in text_pieces(text):
        coded = tokenizer(piece, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False)
        span_N2 = np.asarray(coded["offset_mapping"], np.int64).reshape(-1, 2) + before
        ids.append(np.asarray(coded["input_ids"], np.int64))
        start.append(span_N2[:, 0])
        stop.append(span_N2[:, 1])
        before += len(piece)
    return CharacterSpans(*(np.concatenate(parts) for parts in (ids, start, stop)))


def overlaps(a: CharacterSpans, b: CharacterSpans) -> scipy.sparse.csr_matrix:
    """w(i, j) of the module's docstring for two tokenisations of one text: float64 CSR [N_a, N_b]."""
    characters = int(max(a.stop.max(initial=0), b.stop.max(initial=0)))
    return (_shares(a, characters) @ _shares(b, characters).T).tocsr()


def _shares(spans: CharacterSpans, characters: int) -> scipy.sparse.csr_matrix:
    """[N, C]: each token's share of each character."""
    length_N = np.maximum(spans.stop - spans.start, 0)
    offset_N = np.concatenate([[0], np.cumsum(length_N)])
    character_E = np.arange(offset_N[-1]) - np.repeat(offset_N[:-1] - spans.start, length_N)
    covered_C = np.bincount(character_E, minlength=characters)
    return scipy.sparse.csr_matrix(
        (1.0 / covered_C[character_E], character_E, offset_N), shape=(len(length_N), characters)
    )


def align(a: FiringRows, b: FiringRows, documents: Iterator[tuple[int, int, CharacterSpans, CharacterSpans]]) -> Places:
    """Places where rows of a and rows of b cover the same characters.

    Args:
        a, b: rows by (document, position), each in the documents of its own token set.
        documents: for each shared document its index in a's and in b's token set, and its tokens in both.
    """
    order_a, order_b = np.argsort(a.key, kind="stable"), np.argsort(b.key, kind="stable")
    key_a, key_b = a.key[order_a], b.key[order_b]
    found: list[tuple[Ints, Ints, npt.NDArray[np.float64]]] = []
    for document_a, document_b, spans_a, spans_b in documents:
        rows_a, rows_b = (
            order[np.searchsorted(key, document << 32) : np.searchsorted(key, (document + 1) << 32)]
            for order, key, document in ((order_a, key_a, document_a), (order_b, key_b, document_b))
        )
        if not len(rows_a) or not len(rows_b):
            continue
        weight = overlaps(spans_a, spans_b)[a.position[rows_a]][:, b.position[rows_b]].tocoo()
        by_text = np.lexsort((weight.col, weight.row))
        if len(by_text):
            found.append((rows_a[weight.row[by_text]], rows_b[weight.col[by_text]], weight.data[by_text]))
    if not found:
        nothing = np.empty(0, np.int64)
        return Places(nothing, nothing, np.empty(0), 0)
    row_a, row_b, weight_P = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Places(row_a, row_b, weight_P, len(found))


def meet_in_text(a: FiringRows, b: FiringRows, text: SharedText) -> Places:
    """Places of the shared text where both SAEs have rows.

    Raises:
        MismatchError: if a tokenizer does not give the tokens that the token set holds.
        InputError: if a tokenizer gives no offsets.
    """
    index_a, index_b = (
        {tokens.document_id(index): index for index in np.unique(rows.document).tolist()}
        for tokens, rows in ((text.tokens_a, a), (text.tokens_b, b))
    )

    def shared() -> Iterator[tuple[int, int, CharacterSpans, CharacterSpans]]:
        corpus = open_corpus(text.corpus)
        for document in corpus.documents():
            one, other = index_a.get(document.id), index_b.get(document.id)
            if one is not None and other is not None:
                yield (
                    one,
                    other,
                    _checked(text.tokenizer_a, document.text, text.tokens_a, one),
                    _checked(text.tokenizer_b, document.text, text.tokens_b, other),
                )

    return align(a, b, shared())


@dataclass(frozen=True)
class Documents:
    """Takes about one of ``stride`` documents, by a hash of their ids: the same ones whatever the tokenizer."""

    tokens: TokenSet
    stride: int

    def __call__(self, origin: Origin) -> npt.NDArray[np.bool_]:
        """Which rows to read."""
        indices, place_N = np.unique(origin.document, return_inverse=True)
        chosen = [
            index >= 0 and zlib.crc32(self.tokens.document_id(index).encode(errors="surrogatepass")) % self.stride == 0
            for index in indices.tolist()
        ]
        chosen_N: npt.NDArray[np.bool_] = np.array(chosen, bool)[place_N]
        return chosen_N


def _checked(tokenizer: Any, text: str, tokens: TokenSet, document: int) -> CharacterSpans:
    spans = spans_of_text(tokenizer, text)
    stored = tokens.tokens_of_document(document)
    if not np.array_equal(spans.ids[: len(stored)], stored):
        raise MismatchError(
            f"Document {tokens.document_id(document)} has {len(stored):,} tokens in the token set, and the tokenizer gives others for"
            " its text.",
            hint="Give the tokenizer and the corpus that the token set was made with.",
        )
    return spans
