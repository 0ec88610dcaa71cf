"""The text as hints see it: tokens, traits and documents by place, and which half of the documents a place is in.

Shapes: C contexts of T tokens, M = C x T places in a row, N rows of the coded sample, F features.

A *place* is a number in 0 .. M - 1: context * T + position. Memory: 20 bytes a token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neuronmap.errors import MismatchError
from neuronmap.interpretation.hints.traits import TokenTraits

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet
    from neuronmap.features.collect.state import FeatureState

__all__ = ["Reading", "in_score_half", "ngram_key", "read_text"]

_CONTEXTS_AT_ONCE = 2048
_LEAST_SHARE = 0.25
"""If one half of the documents held less than this share of the tokens, blocks of contexts are split instead."""
_BLOCKS = 64


def in_score_half(document_id: str) -> bool:
    """Whether a document is one that rules are scored on: the first bit of blake2b (8 bytes) of its id is set."""
    return hashlib.blake2b(document_id.encode(), digest_size=8).digest()[0] >= 128


@dataclass(frozen=True)
class Reading:
    """Every token of the text.

    Attributes:
        ids_M: int32, token ids.
        mask_M: uint64, traits (:data:`neuronmap.interpretation.hints.traits.TRAITS`).
        unit_M: int32, what is split and resampled as a whole: the document (separators count to the one before, BOS to the one
            after), or the block of contexts.
        score_M: bool, whether the place is in the half that rules are scored on.
        context_length: T.
        units: number of units.
        split: ``documents`` or ``blocks of contexts``.
    """

    ids_M: npt.NDArray[np.int32]
    mask_M: npt.NDArray[np.uint64]
    unit_M: npt.NDArray[np.int32]
    score_M: npt.NDArray[np.bool_]
    context_length: int
    units: int
    split: str

    def position(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Place in the context."""
        return places % self.context_length

    def token(self, places: npt.NDArray[np.int64], offset: int = 0) -> npt.NDArray[np.int64]:
        """int64: the token ``offset`` after each place, -1 outside the context."""
        position = self.position(places) + offset
        inside = (position >= 0) & (position < self.context_length)
        return np.where(inside, self.ids_M[np.where(inside, places + offset, 0)], -1).astype(np.int64)

    def ngram(self, places: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """int64: :func:`ngram_key` of the last ``length`` tokens, -1 where the context has fewer before."""
        key = ngram_key([self.token(places, offset) for offset in range(1 - length, 1)])
        return np.where(self.position(places) >= length - 1, key, -1)


def ngram_key(tokens: Sequence[npt.NDArray[np.int64] | int]) -> npt.NDArray[np.int64]:
    """A 63-bit hash of some tokens in a row, earliest first."""
    key = np.zeros(np.shape(tokens[0]) or (1,), np.uint64)
    for token in tokens:
        key = (key + np.asarray(token).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return (key >> np.uint64(1)).astype(np.int64)


def read_text(state: FeatureState, tokens: TokenSet, traits: TokenTraits) -> Reading:
    """Read all contexts of the token set once.

    Raises:
        MismatchError: the state is not of these tokens, or the tokens are not of this vocabulary.
    """
    contexts, length = int(state.facts["contexts"]), int(state.facts["context_length"])
    digest = state.facts.get("tokens_digest", tokens.digest)
    if (tokens.num_contexts, tokens.context_length) != (contexts, length) or digest != tokens.digest:
        raise MismatchError(
            f"The analysis is of {contexts:,} contexts of {length} tokens ({digest}), the tokens given are "
            f"{tokens.num_contexts:,} of {tokens.context_length} ({tokens.digest}).",
            hint="Give the token set that was analysed.",
        )
    ids_M = np.empty(contexts * length, np.int32)
    mask_M = np.empty(contexts * length, np.uint64)
    document_M = np.empty(contexts * length, np.int32)
    for low in range(0, contexts, _CONTEXTS_AT_ONCE):
        batch = tokens.contexts(low, min(low + _CONTEXTS_AT_ONCE, contexts))
        if (largest := int(batch.input_ids.max(initial=0))) >= traits.size:
            raise MismatchError(
                f"The text has token {largest}; the vocabulary given has tokens 0 to {traits.size - 1}.",
                hint="Give the vocabulary of the model's tokenizer.",
            )
        here = slice(low * length, (low + len(batch.input_ids)) * length)
        ids_M[here] = batch.input_ids.reshape(-1)
        mask_M[here] = traits.masks(batch.input_ids, batch.position == 0).reshape(-1)
        document_M[here] = _filled(batch.document).reshape(-1)
    unit_M, score_M, units, split = _split(document_M, tokens, length)
    return Reading(ids_M, mask_M, unit_M, score_M, length, units, split)


def _filled(document_BT: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Places outside documents get the document before them in the context, else the first one after, else -1."""
    place = np.broadcast_to(np.arange(document_BT.shape[1]), document_BT.shape)
    inside = document_BT >= 0
    before = np.maximum.accumulate(np.where(inside, place, -1), axis=1)
    first = np.where(inside.any(1), inside.argmax(1), 0)[:, None]
    filled: npt.NDArray[np.int32] = np.take_along_axis(document_BT, np.where(before >= 0, before, first), axis=1)
    return filled


def _split(
    document_M: npt.NDArray[np.int32], tokens: TokenSet, length: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], int, str]:
    documents, unit_M = np.unique(document_M, return_inverse=True)
    drawn = np.array([d >= 0 and in_score_half(tokens.document_id(int(d))) for d in documents], bool)
    score_M = drawn[unit_M]
    if _LEAST_SHARE <= score_M.mean() <= 1 - _LEAST_SHARE:
        return unit_M.astype(np.int32), score_M, len(documents), "documents"
    contexts = len(document_M) // length
    size = max(1, contexts // _BLOCKS)
    block_M = (np.arange(contexts) // size).repeat(length).astype(np.int32)
    return block_M, block_M % 2 == 1, int(block_M[-1]) + 1, "blocks of contexts"
