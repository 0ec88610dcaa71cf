"""Which half of the text a place is in: one half labels are made from, the other they are scored on. As for hints, by document.

A document is in the score half if the first bit of a hash of its id is set (:func:`neuronmap.interpretation.hints.reading.in_score_half`).
Where one half would hold less than a quarter of the text (few documents, or one that is most of it), blocks of contexts are split instead.
Windows are cut at the ends of their document, so that no text of one half is ever shown with the other.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from neuronmap.features.storage.store import FeatureStore
from neuronmap.interpretation.hints.reading import in_score_half

__all__ = ["Half", "Halves"]

Half = Literal["explain", "score"]
_LEAST_SHARE = 0.25
_BLOCKS = 64
"""Both as for hints (a test holds them together), so that a rule is scored where it was not made."""


class Halves:
    """The two halves of an analysis' text.

    Args:
        store: the analysis.

    Attributes:
        split: ``documents`` or ``blocks of contexts``.
    """

    def __init__(self, store: FeatureStore) -> None:
        table = store.tables.read("documents", ["id", "sequence", "position"])
        self._length, self._contexts = store.context_length, store.num_contexts
        places = self._contexts * self._length
        self._starts = table["sequence"].to_numpy().astype(np.int64) * self._length + table["position"].to_numpy()
        self._score = np.array([in_score_half(str(name)) for name in table["id"].to_pylist()], bool)
        sizes = np.diff(self._starts, append=places)
        if len(sizes):
            sizes[0] += self._starts[0]  # what is before the first document counts to it
        share = float(sizes[self._score].sum()) / max(places, 1)
        self.split = "documents" if _LEAST_SHARE <= share <= 1 - _LEAST_SHARE else "blocks of contexts"
        self._block = max(1, self._contexts // _BLOCKS)

    def half(self, sequence: int, position: int) -> Half:
        """Which half a place is in."""
        if self.split != "documents":
            return "score" if sequence // self._block % 2 else "explain"
        return "score" if self._score[self._document(sequence, position)] else "explain"

    def document_span(self, sequence: int, position: int) -> tuple[int, int]:
        """First position of the place's document in its context, and one past the last."""
        first = sequence * self._length
        if not len(self._starts):
            return 0, self._length
        document = self._document(sequence, position)
        begin = 0 if document == 0 else max(int(self._starts[document]) - first, 0)
        after = int(self._starts[document + 1]) - first if document + 1 < len(self._starts) else self._length
        return begin, min(after, self._length)

    def _document(self, sequence: int, position: int) -> int:
        place = sequence * self._length + position
        return max(int(np.searchsorted(self._starts, place, side="right")) - 1, 0)
