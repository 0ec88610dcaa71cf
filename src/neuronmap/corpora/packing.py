"""Documents in, full contexts out: the one place that decides which token stands where.

Packing joins all documents (a separator between two) into one stream and cuts it into contexts of equal length,
so no position is spent on padding. Each token keeps its document's index and its position in that document.

Shapes: n tokens of a document, M tokens of a block (whole contexts, flattened).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "Packer"]

NOT_IN_DOCUMENT = -1


@dataclass(frozen=True)
class Block:
    """Whole contexts, flattened: ids, document index and position in it; -1 for separators, BOS and padding."""

    input_ids_M: NDArray[np.int64]
    document_M: NDArray[np.int32]
    position_M: NDArray[np.int32]


class Packer:
    """Takes documents one by one and gives the contexts that are complete.

    Args:
        context_length: tokens in a context, BOS included.
        separator_id: put between two documents, or None.
        bos_id: put at the start of every context, or None.
    """

    def __init__(self, context_length: int, *, separator_id: int | None, bos_id: int | None) -> None:
        self.context_length = context_length
        self._separator_id = separator_id
        self._bos_id = bos_id
        self._body = context_length - (bos_id is not None)  # stream tokens in one context
        self._pieces: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]] = []
        self._stream = 0  # stream tokens so far
        self._taken = 0  # stream tokens given out
        self.num_documents = 0

    @property
    def pending(self) -> int:
        """Tokens (separators counted) that do not fill a context yet, or are not taken yet."""
        return self._stream - self._taken

    @property
    def ready(self) -> int:
        """Whole contexts that :meth:`take` would give."""
        return self.pending // self._body

    def state(self) -> dict[str, Any]:
        """Everything that decides what comes next, in JSON types: less than a context of tokens."""
        parts = zip(*self._pieces, strict=True) if self._pieces else ((), (), ())
        pending = [[value for part in column for value in part.tolist()] for column in parts]
        return {"pending": pending, "stream": self._stream, "taken": self._taken, "documents": self.num_documents}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        ids, document, position = state["pending"]
        self._pieces = [(np.array(ids, np.int64), np.array(document, np.int32), np.array(position, np.int32))]
        self._stream, self._taken = int(state["stream"]), int(state["taken"])
        self.num_documents = int(state["documents"])

    def add(self, ids_n: NDArray[np.int64], *, separate: bool = True) -> int:
        """Append one document (n > 0); a separator goes before it unless it is the first, or ``separate`` is False.

        Returns:
            Where its first token will lie in the flattened contexts.
        """
        if self._separator_id is not None and separate and self.num_documents:
            outside = np.full(1, NOT_IN_DOCUMENT, dtype=np.int32)
            self._append(np.full(1, self._separator_id, dtype=np.int64), outside, outside)
        context, offset = divmod(self._stream, self._body)
        start = context * self.context_length + offset + (self._bos_id is not None)
        count = len(ids_n)
        self._append(ids_n, np.full(count, self.num_documents, dtype=np.int32), np.arange(count, dtype=np.int32))
        self.num_documents += 1
        return start

    def _append(self, ids_n: NDArray[np.int64], document_n: NDArray[np.int32], position_n: NDArray[np.int32]) -> None:
        self._pieces.append((ids_n, document_n, position_n))
        self._stream += len(ids_n)

    def take(self, limit: int | None = None) -> Block | None:
        """All complete contexts, at most ``limit``; None if there are none."""
        contexts = self.ready if limit is None else min(self.ready, limit)
        if contexts <= 0:
            return None
        return self._cut(contexts * self._body)

    def take_padded(self, pad_id: int) -> tuple[Block, int]:
        """What is left as one context filled up with padding, and the number of padding tokens."""
        missing = self._body - self.pending
        outside = np.full(missing, NOT_IN_DOCUMENT, dtype=np.int32)
        self._append(np.full(missing, pad_id, dtype=np.int64), outside, outside)
        return self._cut(self._body), missing

    def _cut(self, tokens: int) -> Block:
        ids, document, position = (np.concatenate(parts) for parts in zip(*self._pieces, strict=True))
        self._pieces = [(ids[tokens:].copy(), document[tokens:].copy(), position[tokens:].copy())]
        self._taken += tokens
        return Block(
            self._with_bos(ids[:tokens], self._bos_id),
            self._with_bos(document[:tokens], None if self._bos_id is None else NOT_IN_DOCUMENT),
            self._with_bos(position[:tokens], None if self._bos_id is None else NOT_IN_DOCUMENT),
        )

    def _with_bos(self, stream: NDArray[Any], first: int | None) -> NDArray[Any]:
        if first is None:
            return stream
        contexts = len(stream) // self._body
        whole = np.empty((contexts, self.context_length), dtype=stream.dtype)
        whole[:, 0] = first
        whole[:, 1:] = stream.reshape(contexts, self._body)
        return whole.reshape(-1)
