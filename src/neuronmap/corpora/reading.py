"""Reading a corpus so that it can be gone on with: after a kill, in another process, from the place where it stood.

A place is plain JSON. Corpora that can go to a row give places of their own (``reading(report, place)``): files skip whole files,
data sets their rows, streamed data sets whole shards. Any other corpus, a plug-in's too, is read again from its start and what was read
before is thrown away: that costs reading, not tokenising.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

from neuronmap.corpora.document import Corpus, CorpusReport, Document, check_row

__all__ = ["Place", "Reading", "ReplayedReading", "RowReading", "read_from"]

Place = dict[str, Any]
"""Where a reading stands, in JSON types."""


class Reading(Protocol):
    """Documents from some place on, one after the other."""

    def __iter__(self) -> Iterator[Document]: ...

    def __next__(self) -> Document: ...

    def place(self) -> Place:
        """Where to go on so that the document after the last one given comes next."""


def read_from(corpus: Corpus, report: CorpusReport, place: Place | None = None) -> Reading:
    """Read a corpus from its start, or from a place.

    Args:
        corpus: what is read.
        report: is filled on the way. After going on from a place, whatever the way there has put into it must be replaced by what it
            held when the place was taken (:meth:`CorpusReport.restore`).
        place: of an earlier reading of the same content.
    """
    own: Callable[[CorpusReport, Place | None], Reading] | None = getattr(corpus, "reading", None)
    return ReplayedReading(corpus, report, place) if own is None else own(report, place)


class ReplayedReading:
    """Goes to a place by reading everything before it again."""

    def __init__(self, corpus: Corpus, report: CorpusReport, place: Place | None) -> None:
        self._documents = iter(corpus.documents(report))
        self._given = 0 if place is None else int(place["documents"])
        deque(islice(self._documents, self._given), maxlen=0)

    def __iter__(self) -> Iterator[Document]:
        return self

    def __next__(self) -> Document:
        document = next(self._documents)
        self._given += 1
        return document

    def place(self) -> Place:
        return {"documents": self._given}


class RowReading:
    """Documents of rows, from a source that knows where it stands.

    Args:
        rows: pairs (where, value), from the place on.
        place: says where the rows stand now.
        report: is filled.
    """

    def __init__(self, rows: Iterator[tuple[str, Any]], place: Callable[[], Place], report: CorpusReport) -> None:
        self._rows, self._place, self._report = rows, place, report

    def __iter__(self) -> Iterator[Document]:
        return self

    def __next__(self) -> Document:
        for where, value in self._rows:
            checked = check_row(where, value)
            if isinstance(checked, Document):
                self._report.documents += 1
                return checked
            self._report.reject(checked, where)
        raise StopIteration

    def place(self) -> Place:
        return self._place()
