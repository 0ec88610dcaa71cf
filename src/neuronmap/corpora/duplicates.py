"""A corpus without documents that were there before: exact repeats, found by the digest of their content.

What was seen is kept as 16-byte digests (BLAKE2b; among 10 billion documents two different ones agree with a chance of 1 in 10^18): up
to 2 million in memory, about 200 MB, and past that in a table on disk that lives as long as the reading, about 40 bytes a document, of
which 64 MiB are held in memory.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator

from neuronmap.corpora.document import Corpus, CorpusReport, Document
from neuronmap.hashing import digest_json

__all__ = ["DeduplicatedCorpus"]

MEMORY_DIGESTS = 2_000_000
_CACHE_KIB = 64 << 10


class DeduplicatedCorpus:
    """Another corpus, each content only the first time. How many were left out is in the report (``duplicates``).

    Going on from a place reads what came before once more, without tokenising it: the digests have to be there again.

    Args:
        corpus: what is read.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self.name = corpus.name
        self.description = f"{corpus.description}, without repeated documents"
        self.streamed = corpus.streamed

    def __repr__(self) -> str:
        return f"<DeduplicatedCorpus {self.name}: {self.description}>"

    def documents(self, report: CorpusReport | None = None) -> Iterator[Document]:
        """The documents whose content has not come before."""
        report = CorpusReport() if report is None else report
        seen = _Seen()
        try:
            for document in self._corpus.documents(report):
                if seen.add(hashlib.blake2b(document.content(), digest_size=16).digest()):
                    yield document
                else:
                    report.repeated()
        finally:
            seen.close()

    def digest(self) -> str:
        """Follows from that of the corpus: nothing is read twice for it."""
        return digest_json({"deduplicated 1": self._corpus.digest()})

    def size_hint(self) -> int | None:
        """An upper bound: that of the corpus."""
        return self._corpus.size_hint()


class _Seen:
    """A set of digests that moves to a file when it is large."""

    def __init__(self) -> None:
        self._memory: set[bytes] = set()
        self._disk: sqlite3.Connection | None = None

    def add(self, digest: bytes) -> bool:
        """Whether it is new."""
        if self._disk is not None:
            return self._disk.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount > 0
        if digest in self._memory:
            return False
        self._memory.add(digest)
        if len(self._memory) > MEMORY_DIGESTS:
            self._move()
        return True

    def _move(self) -> None:
        # "" is a file that SQLite deletes with the connection, however it ends
        self._disk = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in (f"cache_size = -{_CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
            self._disk.execute(f"PRAGMA {setting}")
        self._disk.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._disk.execute("BEGIN")
        self._disk.executemany("INSERT INTO seen VALUES (?)", ((digest,) for digest in sorted(self._memory)))
        self._memory.clear()

    def close(self) -> None:
        if self._disk is not None:
            self._disk.close()
