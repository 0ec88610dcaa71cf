"""What a corpus is: documents in a fixed order, a digest of its content, and a count of what could not be used.

A reader gives *rows* (a place and whatever lies there); :class:`CheckedCorpus` turns each row into a
:class:`Document` or counts it, by reason, in a :class:`CorpusReport`. Nothing is dropped without a count.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from neuronmap.hashing import canonical_json

__all__ = ["CheckedCorpus", "ContentHash", "Corpus", "CorpusReport", "Document", "check_row"]

EXAMPLES_KEPT = 3


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a corpus, or one sequence of token ids that somebody else tokenised.

    Args:
        id: where it comes from, unique in its corpus: a file name, ``file.jsonl:17``, a row number.
        text: the text; empty when ``ids`` is given.
        ids: token ids, int64 [n], or None for text.
    """

    id: str
    text: str
    ids: NDArray[np.int64] | None = None

    def content(self) -> bytes:
        """The bytes that digests and the held-out split hash: UTF-8 of the text, or the ids as little-endian int64."""
        return self.text.encode() if self.ids is None else self.ids.astype("<i8").tobytes()


@dataclass
class CorpusReport:
    """What was read: good documents, and bad rows counted by reason with a few places to look at."""

    documents: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    duplicates: int = 0
    """Documents left out because their content had come before, when that was asked for."""

    def reject(self, reason: str, where: str) -> None:
        """Count one row that cannot be used; the first three places of each reason are kept."""
        self.bad[reason] = self.bad.get(reason, 0) + 1
        places = self.examples.setdefault(reason, [])
        if len(places) < EXAMPLES_KEPT:
            places.append(where)

    def repeated(self) -> None:
        """Count the last document as one that has come before."""
        self.documents -= 1
        self.duplicates += 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for :meth:`restore`."""
        return {"documents": self.documents, "bad": self.bad, "examples": self.examples, "duplicates": self.duplicates}

    def restore(self, values: dict[str, Any]) -> None:
        """Take over what :meth:`to_dict` gave, in place of everything counted so far."""
        self.documents, self.duplicates = int(values["documents"]), int(values["duplicates"])
        self.bad, self.examples = (
            dict(values["bad"]),
            {name: list(places) for name, places in values["examples"].items()},
        )

    @property
    def num_bad(self) -> int:
        """Rows that could not be used."""
        return sum(self.bad.values())

    def bad_line(self) -> str:
        """``3 invalid JSON (a.jsonl:1, a.jsonl:5, a.jsonl:9), 1 empty text (a.jsonl:2)``; empty when all is good."""
        return ", ".join(
            f"{count:,} {reason} ({', '.join(self.examples[reason])})" for reason, count in self.bad.items()
        )


@runtime_checkable
class Corpus(Protocol):
    """A text source: the one contract of this room. Plug-ins may give their own objects of this shape."""

    name: str
    description: str
    streamed: bool
    """True when the content is only known after reading (a generator, a stream without end)."""

    def documents(self, report: CorpusReport | None = None) -> Iterator[Document]:
        """All documents from the start, always in the same order; ``report`` is filled while reading."""

    def digest(self) -> str:
        """Digest of the content, ``sha256:<hex>``. Does not depend on where files lie. Reads a streamed corpus whole."""

    def size_hint(self) -> int | None:
        """Bytes of text, when that is known without reading; used to check disk space."""


class CheckedCorpus(ABC):
    """Base of the built-in corpora: subclasses read rows, this class checks them and counts the bad ones."""

    streamed = False

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self.description = description

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.description}>"

    @abstractmethod
    def rows(self, report: CorpusReport, /) -> Iterator[tuple[str, Any]]:
        """Pairs (place, value). Rows that cannot even be parsed are rejected in ``report`` by the reader itself."""

    def documents(self, report: CorpusReport | None = None) -> Iterator[Document]:
        """All good documents in source order; bad rows are counted in ``report``."""
        report = CorpusReport() if report is None else report
        for where, value in self.rows(report):
            checked = check_row(where, value)
            if isinstance(checked, Document):
                report.documents += 1
                yield checked
            else:
                report.reject(checked, where)

    def digest(self) -> str:
        """Digest over every document (id and content) and the counts of bad rows: one pass over the source."""
        state = ContentHash()
        report = CorpusReport()
        for document in self.documents(report):
            state.add(document)
        return state.finish(report)

    def size_hint(self) -> int | None:
        """Unknown unless a subclass knows better."""
        return None


class ContentHash:
    """SHA-256 over documents as they go by."""

    def __init__(self) -> None:
        self._state = hashlib.sha256(b"neuronmap documents 1")

    def add(self, document: Document) -> None:
        """Hash one document; lengths are hashed too, so borders count."""
        content = document.content()
        label = document.id.encode(errors="surrogatepass")
        self._state.update(b"%d:%d:%d:" % (document.ids is None, len(label), len(content)))
        self._state.update(label)
        self._state.update(content)

    def finish(self, report: CorpusReport) -> str:
        """The digest, bad rows counted in: two sources that differ only in them report different things."""
        self._state.update(canonical_json([report.bad, report.examples]).encode(errors="surrogatepass"))
        return f"sha256:{self._state.hexdigest()}"


def check_row(where: str, value: Any) -> Document | str:
    """One row's value as a document, or the reason why it cannot be one.

    Args:
        where: place of the row; becomes the document's id.
        value: text, or a sequence of token ids (list, tuple, one-dimensional integer array).
    """
    if isinstance(value, str):
        if not value or value.isspace():
            return "empty text"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "undecodable bytes"
        return Document(where, value)
    if value is None:
        return "missing text"
    if isinstance(value, (bytes, bytearray)) or not (isinstance(value, Sequence) or hasattr(value, "__array__")):
        return "neither text nor token ids"
    return _check_ids(where, value)


def _check_ids(where: str, value: Any) -> Document | str:
    try:
        ids = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        return "neither text nor token ids"
    if ids.ndim == 1 and ids.size == 0:
        return "empty text"
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        return "neither text nor token ids"
    if int(ids.min()) < 0 or int(ids.max()) > np.iinfo(np.int32).max:
        return "token id out of the vocabulary"
    return Document(where, "", ids.astype(np.int64))
