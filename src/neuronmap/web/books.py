"""The book of labels of a server: opened when somebody first needs it, and not made before somebody says something."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from neuronmap import paths
from neuronmap.interpretation.labels.database import LABELS

if TYPE_CHECKING:
    from neuronmap.features.storage.store import GivenLabel
    from neuronmap.interpretation.labels.book import LabelBook

__all__ = ["Books", "GivenLabels"]


class Books:
    """The book. Several threads may ask.

    Args:
        url: of the database; the usual one when left out.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url, self._lock = url, threading.Lock()
        self._opened: LabelBook | None = None

    def reading(self) -> LabelBook | None:
        """The book; None where there is none yet, since nobody has said anything."""
        if self._opened is None and not self._exists():
            return None
        return self.writing()

    def writing(self) -> LabelBook:
        """The book, made if it is not there.

        Raises:
            ConfigError, MismatchError, ResourceError, DamagedError: it cannot be used.
        """
        with self._lock:
            if self._opened is None:
                from neuronmap.interpretation.labels.book import LabelBook

                self._opened = LabelBook.open(self._url)
            return self._opened

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _exists(self) -> bool:
        return bool(self._url or os.environ.get(LABELS.variable)) or (paths.home() / LABELS.file).exists()


class GivenLabels:
    """What features of one SAE are called by people and models, for pages that show one label a feature.

    Args:
        books: the server's book.
        sae: digest of the SAE's weights.
    """

    def __init__(self, books: Books, sae: str) -> None:
        self._books, self._sae = books, sae

    def __call__(self, features: Sequence[int]) -> dict[int, GivenLabel]:
        from neuronmap.features.storage.store import GivenLabel

        book = self._books.reading()
        if book is None or not self._sae:
            return {}
        found = book.best(self._sae, features)
        return {
            feature: GivenLabel(held.label.text, held.label.author.name, held.conflict)
            for feature, held in found.items()
        }
