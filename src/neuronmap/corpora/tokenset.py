"""Packed contexts of a tokenised corpus, memory-mapped, any context at once.

Shapes: B contexts asked for, T tokens in a context, M = contexts x T, the flattened set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from neuronmap.corpora.packing import NOT_IN_DOCUMENT
from neuronmap.errors import EmptyCorpusError, InputError
from neuronmap.hashing import digest_json

__all__ = ["ContextBatch", "DocumentTable", "Part", "TokenArrays", "TokenReport", "TokenSet"]

Part = Literal["train", "heldout", "all"]


@dataclass(frozen=True)
class TokenReport:
    """What tokenising found and did; stored with the tokens.

    Args:
        corpus: name of the corpus.
        source: the corpus in words.
        part: ``train``, ``heldout`` or ``all``.
        tokenizer: its name.
        context_length: tokens in a context.
        contexts: whole contexts.
        documents: documents with at least one token in the contexts.
        documents_read: good documents read, those of the other part included.
        tokens: tokens in the contexts without padding; separators and BOS count.
        dropped_tail_tokens: tokens after the last whole context, left out.
        padding_tokens: padding in the only context of a very small corpus, else 0.
        bad_rows: unusable rows by reason, over all that was read.
        bad_examples: up to three places for each reason.
        separator: the token between two documents, or None.
        bos: the token at the start of each context, or None.
        documents_in_pieces: very long documents that were tokenised in pieces cut at line ends.
        stopped_early: reading ended because ``max_tokens`` was reached.
        reused: read from the cache, not tokenised now.
        duplicates: documents left out because their content had come before; 0 where that was not asked for.
    """

    corpus: str
    source: str
    part: Part
    tokenizer: str
    context_length: int
    contexts: int
    documents: int
    documents_read: int
    tokens: int
    dropped_tail_tokens: int
    padding_tokens: int
    bad_rows: dict[str, int]
    bad_examples: dict[str, list[str]]
    separator: str | None
    bos: str | None
    documents_in_pieces: int = 0
    stopped_early: bool = False
    reused: bool = False
    duplicates: int = 0

    @property
    def num_bad_rows(self) -> int:
        """All unusable rows together."""
        return sum(self.bad_rows.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TokenReport:
        """Read back what :meth:`to_dict` gave."""
        return cls(**values)

    def summary(self) -> str:
        """One line for people."""
        facts = [
            f"{self.num_bad_rows:,} bad rows",
            f"separator {self.separator}" if self.separator else "no separator",
        ]
        if self.bos:
            facts.append(f"BOS {self.bos}")
        if self.padding_tokens:
            facts.append(f"{self.padding_tokens:,} padding tokens")
        if self.stopped_early:
            facts.append("stopped at max_tokens")
        else:
            facts.append(f"{self.dropped_tail_tokens:,} tail tokens dropped")
        if self.documents_in_pieces:
            facts.append(f"{self.documents_in_pieces:,} long documents tokenised in pieces")
        if self.duplicates:
            facts.append(f"{self.duplicates:,} repeated documents left out")
        if self.reused:
            facts.append("reused from the cache")
        return (
            f"{self.corpus}/{self.part}: {_count(self.documents, 'document')}, {_count(self.tokens, 'token')}, "
            f"{_count(self.contexts, 'context')} of {self.context_length} ({', '.join(facts)})"
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


@dataclass(frozen=True)
class ContextBatch:
    """Some contexts in a row.

    Args:
        input_ids: int64 [B, T].
        document: index of each token's document, int32 [B, T]; -1 for separators, BOS and padding.
        position: index of the token within its document, int32 [B, T]; -1 likewise.
        special: bool [B, T], the tokenizer's special tokens and the separators.
        attention: bool [B, T], False on padding.
    """

    input_ids: NDArray[np.int64]
    document: NDArray[np.int32]
    position: NDArray[np.int32]
    special: NDArray[np.bool_]
    attention: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.input_ids)


class DocumentTable(Protocol):
    """The documents of a token set, by index."""

    def __len__(self) -> int: ...

    def id(self, index: int) -> str:
        """Where the document comes from."""

    def start(self, index: int) -> int:
        """Place of its first token in the flattened contexts."""


@dataclass(frozen=True)
class TokenArrays:
    """What a token set and its views read from: arrays of M, mapped or in memory."""

    input_ids_M: NDArray[Any]
    document_M: NDArray[np.int32]
    position_M: NDArray[np.int32]
    special_ids: NDArray[np.int64]
    padding: int
    documents: DocumentTable


class TokenSet:
    """Packed contexts of one part of a corpus. Made by :func:`neuronmap.corpora.tokenize`.

    Args:
        arrays: the stored tokens.
        report: what tokenising found; for a view, cut to its range.
        digest: digest of all inputs (corpus, tokenizer, options), ``sha256:<hex>``.
        folder: where it is cached, or None when it lives in memory.
        first: first context of a view.
    """

    def __init__(
        self, arrays: TokenArrays, report: TokenReport, digest: str, *, folder: Path | None = None, first: int = 0
    ) -> None:
        self._arrays = arrays
        self._first = first
        self.report = report
        self.digest = digest
        self.folder = folder
        self.part: Part = report.part
        self.context_length = report.context_length
        self.num_contexts = report.contexts
        self.num_tokens = report.tokens
        self.num_documents = report.documents

    def __len__(self) -> int:
        return self.num_contexts

    def __repr__(self) -> str:
        return f"<TokenSet {self.summary()}>"

    def summary(self) -> str:
        """One line: documents, tokens, contexts, bad rows, separator, what was dropped."""
        return self.report.summary()

    def contexts(self, start: int, stop: int) -> ContextBatch:
        """Contexts ``start`` to ``stop`` (exclusive), read from the map now.

        Raises:
            InputError: the range is not within ``0 <= start <= stop <= num_contexts``.
        """
        if not 0 <= start <= stop <= self.num_contexts:
            raise InputError(f"Contexts {start} to {stop} were asked for, but there are {self.num_contexts}.")
        length = self.context_length
        low, high = (self._first + start) * length, (self._first + stop) * length
        shape = (stop - start, length)
        ids_BT = np.asarray(self._arrays.input_ids_M[low:high]).astype(np.int64).reshape(shape)
        document_BT = np.array(self._arrays.document_M[low:high], dtype=np.int32).reshape(shape)
        position_BT = np.array(self._arrays.position_M[low:high], dtype=np.int32).reshape(shape)
        real = len(self._arrays.input_ids_M) - self._arrays.padding
        attention_BT = (np.arange(low, high) < real).reshape(shape)
        special_BT = np.isin(ids_BT, self._arrays.special_ids) | (document_BT == NOT_IN_DOCUMENT)
        return ContextBatch(ids_BT, document_BT, position_BT, special_BT, attention_BT)

    def batches(self, rows: int, start: int = 0) -> Iterator[ContextBatch]:
        """All contexts from ``start`` on, ``rows`` at a time; the last batch may be shorter."""
        if rows < 1:
            raise InputError(f"rows = {rows}; at least 1 context a batch is needed.")
        for low in range(start, self.num_contexts, rows):
            yield self.contexts(low, min(low + rows, self.num_contexts))

    def document_id(self, index: int) -> str:
        """Where a document comes from (file, ``file.jsonl:17``, row), by the index in ``ContextBatch.document``."""
        self._check_document(index)
        return self._arrays.documents.id(index)

    def tokens_of_document(self, index: int) -> NDArray[np.int64]:
        """The token ids of one document that lie in the stored contexts, int64 [n]; the tail may be cut off."""
        self._check_document(index)
        documents = self._arrays.documents
        last = index + 1 == len(documents)
        low = documents.start(index)
        high = len(self._arrays.input_ids_M) if last else documents.start(index + 1)
        own = np.asarray(self._arrays.document_M[low:high]) == index
        ids: NDArray[np.int64] = np.asarray(self._arrays.input_ids_M[low:high])[own].astype(np.int64)
        return ids

    def _check_document(self, index: int) -> None:
        if not 0 <= index < len(self._arrays.documents):
            raise InputError(f"Document {index} was asked for, but there are {len(self._arrays.documents)}.")

    def subset(self, start: int, stop: int) -> TokenSet:
        """A view of some contexts, with its own digest and counts; document indices stay those of the whole.

        Raises:
            InputError: the range is empty or outside.
        """
        if not 0 <= start < stop <= self.num_contexts:
            raise InputError(f"Contexts {start} to {stop} were asked for, but there are {self.num_contexts}.")
        low, high = ((self._first + at) * self.context_length for at in (start, stop))
        document = np.asarray(self._arrays.document_M[low:high])
        inside = document[document != NOT_IN_DOCUMENT]
        padding = max(0, high - (len(self._arrays.input_ids_M) - self._arrays.padding))
        report = replace(
            self.report,
            contexts=stop - start,
            tokens=high - low - padding,
            # documents lie one after the other, so the indices of a range have no gaps
            documents=int(inside[-1] - inside[0]) + 1 if len(inside) else 0,
            padding_tokens=padding,
            dropped_tail_tokens=self.report.dropped_tail_tokens if stop == self.num_contexts else 0,
        )
        digest = digest_json({"contexts of": self.digest, "start": start, "stop": stop})
        return TokenSet(self._arrays, report, digest, folder=self.folder, first=self._first + start)

    def split_contexts(self, fraction: float) -> tuple[TokenSet, TokenSet]:
        """Two views, the second with the last ``fraction`` of the contexts (at least one): a held-out part for
        a corpus of too few documents to split by document.

        Raises:
            EmptyCorpusError: there are fewer than two contexts.
            InputError: ``fraction`` is not between 0 and 1.
        """
        if not 0.0 < fraction < 1.0:
            raise InputError(f"fraction = {fraction}; a number between 0 and 1 is needed.")
        if self.num_contexts < 2:
            raise EmptyCorpusError(
                f"{self.report.corpus} has only {self.num_contexts} context of {self.context_length} tokens; "
                "two are needed to split it.",
                hint="Give more text, or a shorter context_length.",
            )
        border = self.num_contexts - min(self.num_contexts - 1, max(1, round(self.num_contexts * fraction)))
        return self.subset(0, border), self.subset(border, self.num_contexts)
