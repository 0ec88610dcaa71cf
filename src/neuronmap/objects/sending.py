"""Telling a store's errors from those of whoever sends the bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

__all__ = ["Sending"]


class Sending:
    """Bytes on their way into a store.

    Args:
        chunks: what is sent.

    Attributes:
        size: bytes so far.
        error: what the sender raised, if it did; the store lets it go on as it is.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.size = 0
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                self.size += len(chunk)
                if chunk:
                    yield chunk
        except BaseException as error:
            self.error = error
            raise
