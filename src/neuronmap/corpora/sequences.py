"""Texts that are already in Python: lists, and iterators that can be read only once."""

from __future__ import annotations

import json
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any

from neuronmap.corpora.columns import choose_column, kinds_of_rows
from neuronmap.corpora.document import CheckedCorpus, CorpusReport, Document, check_row

__all__ = ["IteratorCorpus", "SequenceCorpus"]

SPOOL_MEMORY_BYTES = 32 << 20


def _column_of(samples: list[Any], text_column: str | None, name: str) -> str | None:
    rows = [row for row in samples if isinstance(row, dict)]
    return choose_column(kinds_of_rows(rows), text_column, name) if rows else None


def _value(item: Any, column: str | None) -> Any:
    return item.get(column) if isinstance(item, dict) and column is not None else item


class SequenceCorpus(CheckedCorpus):
    """A list (or any container that can be read again) of texts, of token-id sequences, or of row dictionaries."""

    def __init__(self, items: Iterable[Any], *, text_column: str | None = None, name: str | None = None) -> None:
        label = name or "texts"
        self._items = items
        self._column = _column_of(list(islice(items, 100)), text_column, label)
        count = f"{len(items):,}" if isinstance(items, Sized) else "some"
        super().__init__(label, f"{count} texts given in Python")

    def rows(self, _report: CorpusReport, /) -> Iterator[tuple[str, Any]]:
        for index, item in enumerate(self._items):
            yield str(index), _value(item, self._column)


class IteratorCorpus(CheckedCorpus):
    """A generator or other one-shot iterator; it may have no end.

    What has been pulled is kept (in memory up to 32 MiB, beyond that in an unnamed temporary file), so that the
    documents can be read again, for instance for the held-out part. It is not safe to read it from two threads.
    """

    streamed = True

    def __init__(self, items: Iterator[Any], *, text_column: str | None = None, name: str | None = None) -> None:
        super().__init__(name or "texts", "texts from a Python iterator")
        self._items = items
        self._text_column = text_column
        self._column: str | None = None
        self._pulled = 0
        self._spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY_BYTES)  # noqa: SIM115 - lives with self
        self._end = 0
        self._closer = weakref.finalize(self, self._spool.close)

    def rows(self, report: CorpusReport, /) -> Iterator[tuple[str, Any]]:
        at = 0
        while True:
            if at == self._end and not self._pull():
                return
            self._spool.seek(at)
            line = self._spool.readline()
            at = self._spool.tell()
            index, text, ids, reason = json.loads(line)
            if reason is not None:
                report.reject(reason, index)
            else:
                yield index, text if ids is None else ids

    def _pull(self) -> bool:
        """Move one item from the iterator to the end of the spool."""
        try:
            item = next(self._items)
        except StopIteration:
            return False
        if isinstance(item, dict) and self._column is None:
            self._column = _column_of([item], self._text_column, self.name)
        index = str(self._pulled)
        checked = check_row(index, _value(item, self._column))
        if isinstance(checked, Document):
            record = [index, checked.text, None if checked.ids is None else checked.ids.tolist(), None]
        else:
            record = [index, None, None, checked]
        self._spool.seek(self._end)
        self._spool.write(json.dumps(record).encode() + b"\n")
        self._end = self._spool.tell()
        self._pulled += 1
        return True
