"""Contexts as a feature store keeps them: token ids once, which positions were rows, where documents begin.

Shapes: C contexts of T tokens, V vocabulary, D documents, n places asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from neuronmap.errors import MismatchError

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet

__all__ = ["StoredContexts"]

_BATCH_TOKENS = 1 << 21


@dataclass(frozen=True)
class StoredContexts:
    """Token ids and documents of every place, read from the files of a store.

    Attributes:
        ids_CT: uint16 or uint32, mapped.
        kept_CB: uint8, numpy.packbits of which positions were rows.
        outside_CB: the same of which positions belong to no document (separators, BOS, padding).
        document_D: int32, numbers of the documents that begin here, ascending.
        start_D: int64, place of each one's first token in the flattened contexts.
        tokens: places before the padding.
        around: int64 [3, V], rows by the token before them, on them, after them, within the context.
    """

    ids_CT: npt.NDArray[Any]
    kept_CB: npt.NDArray[np.uint8]
    outside_CB: npt.NDArray[np.uint8]
    document_D: npt.NDArray[np.int32]
    start_D: npt.NDArray[np.int64]
    tokens: int
    around: npt.NDArray[np.int64]

    @classmethod
    def write(cls, tokens: TokenSet, kept_CB: npt.NDArray[np.uint8], vocabulary: int, folder: Path) -> StoredContexts:
        """Write ``tokens.npy`` and ``kept.npy`` in one pass over the tokens.

        Args:
            tokens: the contexts.
            kept_CB: packed, which positions were rows.
            vocabulary: V; ids are stored in 16 bits if they fit.
            folder: where the files go.

        Raises:
            MismatchError: a token id is not in the vocabulary.
        """
        np.save(folder / "kept.npy", np.ascontiguousarray(kept_CB))
        # written piece by piece and mapped afterwards: a full disk is an error here, and would end the program in a mapped file
        with open(folder / "tokens.npy", "wb") as file:
            facts = _read_all(tokens, kept_CB, vocabulary, file)
        return cls(np.load(folder / "tokens.npy", mmap_mode="r"), kept_CB, *facts)

    @property
    def context_length(self) -> int:
        """T."""
        return int(self.ids_CT.shape[1])

    def token(
        self, sequence_n: npt.NDArray[np.integer], position_n: npt.NDArray[np.integer], offset: int = 0
    ) -> npt.NDArray[np.int32]:
        """int32 [n]: the token ``offset`` places after each place in its context; -1 where there is none."""
        place_n = position_n.astype(np.int64) + offset
        there_n = (place_n >= 0) & (place_n < self.context_length)
        place_n = np.clip(place_n, 0, self.context_length - 1)
        there_n &= sequence_n.astype(np.int64) * self.context_length + place_n < self.tokens
        return np.where(there_n, self.ids_CT[sequence_n, place_n].astype(np.int32), np.int32(-1))

    def document(
        self, sequence_n: npt.NDArray[np.integer], position_n: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.int32]:
        """int32 [n]: number of the document of each place; -1 for separators, BOS and padding."""
        place_n = sequence_n.astype(np.int64) * self.context_length + position_n
        index_n = np.searchsorted(self.start_D, place_n, side="right") - 1
        bits_n = self.outside_CB[sequence_n, position_n // 8] >> (7 - position_n % 8).astype(np.uint8)
        outside_n = ((bits_n & 1) == 1) | (index_n < 0)
        if not len(self.document_D):
            return np.full(place_n.shape, -1, np.int32)
        return np.where(outside_n, np.int32(-1), self.document_D[np.maximum(index_n, 0)])


def _read_all(
    tokens: TokenSet, kept_CB: npt.NDArray[np.uint8], vocabulary: int, file: BinaryIO
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], npt.NDArray[np.int64], int, npt.NDArray[np.int64]]:
    """Write the ids as a .npy file, and find the other attributes of :class:`StoredContexts` on the way."""
    num, length = tokens.num_contexts, tokens.context_length
    dtype = np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (num, length)}
    np.lib.format.write_array_header_1_0(file, header)
    outside_CB = np.zeros((num, (length + 7) // 8), np.uint8)
    around = np.zeros((3, vocabulary), np.int64)
    documents: list[npt.NDArray[np.int32]] = []
    starts: list[npt.NDArray[np.int64]] = []
    last, real = -1, 0
    step = max(1, _BATCH_TOKENS // length)
    for first in range(0, num, step):
        stop = min(num, first + step)
        batch = tokens.contexts(first, stop)
        largest = int(batch.input_ids.max(initial=0))
        if largest >= vocabulary:
            raise MismatchError(
                f"Token {largest} of the text is not in the vocabulary of {vocabulary:,} tokens.",
                hint="Give the vocabulary of the tokenizer that made the tokens.",
            )
        file.write(batch.input_ids.astype(dtype).tobytes())
        outside_CB[first:stop] = np.packbits(batch.document < 0, axis=1)
        real += int(batch.attention.sum())
        flat = batch.document.ravel()
        inside = np.flatnonzero(flat >= 0)
        # documents lie one after the other: a new one begins where the number differs from the last one seen
        new = np.diff(flat[inside], prepend=np.int32(last)) != 0
        documents.append(flat[inside[new]])
        starts.append(inside[new].astype(np.int64) + first * length)
        last = int(flat[inside[-1]]) if len(inside) else last
        kept_BT = np.unpackbits(kept_CB[first:stop], axis=1, count=length).astype(bool)
        there_BT = batch.attention
        around[1] += np.bincount(batch.input_ids[kept_BT], minlength=vocabulary)
        around[0] += np.bincount(batch.input_ids[:, :-1][kept_BT[:, 1:]], minlength=vocabulary)
        after_BT = kept_BT[:, :-1] & there_BT[:, 1:]
        around[2] += np.bincount(batch.input_ids[:, 1:][after_BT], minlength=vocabulary)
    return outside_CB, np.concatenate(documents), np.concatenate(starts), real, around
