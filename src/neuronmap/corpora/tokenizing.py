"""From a corpus to packed contexts: split by document, tokenise in batches, pack, cache."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuronmap.config import FrozenConfig
from neuronmap.corpora.document import ContentHash, Corpus, CorpusReport, Document
from neuronmap.corpora.packing import Block, Packer
from neuronmap.corpora.reading import Reading, read_from
from neuronmap.corpora.source import open_corpus
from neuronmap.corpora.tokencache import FORMAT_VERSION, LINES_FILE, TokenWriter, find_cached, id_dtype, open_tokens
from neuronmap.corpora.tokenset import Part, TokenArrays, TokenReport, TokenSet
from neuronmap.corpora.unfinished import JOURNAL, unfinished_folder
from neuronmap.corpora.vocabulary import Vocabulary, vocabulary_of
from neuronmap.errors import ConfigError, EmptyCorpusError, InputError
from neuronmap.hashing import digest_json, short
from neuronmap.paths import cache_folder, check_disk_space, require_writable, staging_folder, write_bytes, write_json
from neuronmap.progress import Progress, Task, default

__all__ = ["is_heldout", "tokenize"]

FIRST_BATCH_CHARS = 1 << 16  # small at first, so that a small max_tokens reads little
LARGEST_BATCH_CHARS = 1 << 21
PIECE_CHARS = 1 << 21  # a tokenizer needs about 200 bytes a token while it works
JOURNAL_SECONDS = 15.0  # most work lost to a kill
CHARS_PER_TOKEN = 3  # on the low side: for estimating disk need


class TokenOptions(FrozenConfig):
    """The checked options of :func:`tokenize`, as they enter the cache key."""

    context_length: int = Field(ge=1)
    """Tokens per context."""
    part: Part
    """train, heldout, or all."""
    heldout_fraction: float = Field(ge=0.0, lt=1.0)
    """Share of the documents that belong to the held-out part."""
    max_tokens: int | None = Field(ge=1)
    """Most tokens to take; None takes all."""


def is_heldout(document: Document, fraction: float) -> bool:
    """Whether a document belongs to the held-out part: the first 64 bits of a hash of its content, as a number
    between 0 and 1, are below ``fraction``. Equal texts fall on the same side, whatever the order or seed."""
    first = hashlib.blake2b(document.content(), digest_size=8).digest()
    return int.from_bytes(first, "big") < fraction * 2**64


def tokenize(
    corpus: Corpus | Any,
    tokenizer: Any,
    *,
    context_length: int = 128,
    part: Part = "train",
    heldout_fraction: float = 0.05,
    separator: str | None = "auto",
    prepend_bos: bool | Literal["auto"] = "auto",
    max_tokens: int | None = None,
    tokenizer_digest: str | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> TokenSet:
    """Tokenise a corpus and pack it into full contexts.

    Documents are joined in source order, a separator between two, and cut every ``context_length`` tokens. What is
    left at the end is dropped and counted, unless it is all there is: then it becomes one padded context. Texts are
    tokenised without special tokens of their own; a document of more than 2 million characters is tokenised in
    pieces cut at line ends (counted in the report).

    Args:
        corpus: a corpus, or anything :func:`open_corpus` takes.
        tokenizer: a transformers tokenizer; None only for a corpus of token ids.
        context_length: tokens in a context.
        part: ``train`` and ``heldout`` are disjoint and together ``all``; documents are assigned by a hash of
            their text.
        heldout_fraction: expected share of documents in the held-out part.
        separator: a token, ``"auto"`` (EOS, else BOS, else SEP, else none; none around sequences that come as
            token ids), or None.
        prepend_bos: put BOS first in each context; ``"auto"`` = if the tokenizer itself does so (Gemma and Llama do,
            GPT-2 and SmolLM2 do not).
        max_tokens: stop reading as soon as that many tokens are there (rounded down to whole contexts).
        tokenizer_digest: the tokenizer's digest, if known; else computed.
        cache: keep the result under ``<home>/cache/tokens`` and reuse it; otherwise it is held in memory. A long run that is
            interrupted goes on where it stood at most 15 seconds before, with the same result, unless the corpus is one whose
            content is only known after reading (a generator, a streamed object).
        progress: where to show progress and the summary.

    Returns:
        The contexts, memory-mapped (or in memory without cache).

    Raises:
        EmptyCorpusError: no usable text, or none in this part; says what was found.
        ConfigError: an option is out of range or does not fit the tokenizer.
        DiskSpaceError: the tokens will not fit on the disk.
    """
    progress = progress or default()
    if not isinstance(corpus, Corpus):
        corpus = open_corpus(corpus)
    vocabulary = vocabulary_of(tokenizer, separator=separator, prepend_bos=prepend_bos, digest=tokenizer_digest)
    options = TokenOptions(
        context_length=context_length,
        part=part,
        heldout_fraction=0.0 if part == "all" else heldout_fraction,
        max_tokens=max_tokens,
    )
    if vocabulary.bos_id is not None and context_length < 2:
        raise ConfigError("context_length = 1 leaves no room beside the BOS token.", hint="Use at least 2.")
    if max_tokens is not None and max_tokens < context_length:
        raise ConfigError(f"max_tokens = {max_tokens} is less than one context of {context_length} tokens.")
    work = _Tokenizing(corpus, tokenizer, vocabulary, options, progress)
    tokens = _cached(work) if cache else work.in_memory()
    progress.note(tokens.summary())
    _note_bad_rows(tokens.report, progress)
    return tokens


def _note_bad_rows(report: TokenReport, progress: Progress) -> None:
    if report.bad_rows:
        listed = CorpusReport(report.documents_read, report.bad_rows, report.bad_examples)
        most = "More than half of the rows cannot be used. " if listed.num_bad > listed.documents else ""
        progress.note(f"{report.corpus}: {most}Bad rows: {listed.bad_line()}")


def _cached(work: _Tokenizing) -> TokenSet:
    """Reuse the folder named by the key, or fill it. Of a stream the key is known only when it has been read."""
    root = require_writable(cache_folder("tokens"))
    if work.corpus.streamed:
        provisional = root / f".stream-{uuid.uuid4().hex}"
        try:
            with staging_folder(provisional) as staging:
                key = work.into(staging, None)
            target = root / short(key, 16)
            found, _ = find_cached(target, key)
            if found is None:
                with suppress(OSError):  # another process was first: its folder is as good
                    provisional.rename(target)
        finally:
            shutil.rmtree(provisional, ignore_errors=True)
        return found or _open(target, key)
    key = digest_json(work.inputs(work.corpus.digest()))
    target = root / short(key, 16)
    found, damage = find_cached(target, key)
    if found is not None:
        return found
    if damage:
        work.progress.note(f"The cached tokens were damaged and are made again: {damage}")
    work.check_disk(root)
    try:
        with unfinished_folder(target, key, _is_there) as (staging, journal):
            work.into(staging, key, journal)
    except OSError:
        if not target.exists():
            raise
        # another process filled the folder meanwhile: its content has the same key
    return _open(target, key)


def _is_there(folder: Path, journal: dict[str, Any]) -> bool:
    return TokenWriter.is_there(folder, journal["writer"])


def _open(folder: Path, key: str) -> TokenSet:
    tokens = open_tokens(folder)
    if tokens.digest != key:
        raise InputError(f"{folder} holds the tokens of other inputs.", hint=f"Delete {folder} and try again.")
    return tokens


class _MemorySink:
    """Contexts kept in memory; the same calls as TokenWriter."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self.ids: list[str] = []
        self.starts: list[int] = []
        self.num_tokens = 0

    def __len__(self) -> int:
        return len(self.ids)

    def id(self, index: int) -> str:
        return self.ids[index]

    def start(self, index: int) -> int:
        return self.starts[index]

    def add_document(self, document_id: str, start: int) -> None:
        self.ids.append(document_id)
        self.starts.append(start)

    def write(self, block: Block) -> None:
        self._blocks.append(block)
        self.num_tokens += len(block.input_ids_M)

    def finish_documents(self) -> int:
        count = int(np.searchsorted(np.asarray(self.starts, dtype=np.int64), self.num_tokens))
        del self.ids[count:], self.starts[count:]
        return count

    def arrays(self, dtype: np.dtype[Any], special_ids: tuple[int, ...], padding: int) -> TokenArrays:
        ids, document, position = (
            np.concatenate([getattr(block, name) for block in self._blocks])
            for name in ("input_ids_M", "document_M", "position_M")
        )
        special = np.array(special_ids, dtype=np.int64)
        return TokenArrays(ids.astype(dtype), document, position, special, padding, self)


class _Journal:
    """Where a run stands, written every few seconds, after the tokens it speaks of."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= JOURNAL_SECONDS

    def save(self, writer: dict[str, Any], stand: dict[str, Any]) -> None:
        content = json.dumps(
            {"key": self._key, "writer": writer, "stand": stand}
        )  # ASCII: names of files need not be UTF-8
        write_bytes(self._folder / JOURNAL, content.encode())
        self._saved_at = time.monotonic()


class _Tokenizing:
    """One run over the source."""

    def __init__(
        self, corpus: Corpus, tokenizer: Any, vocabulary: Vocabulary, options: TokenOptions, progress: Progress
    ) -> None:
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.options = options
        self.progress = progress
        self._limit = None if options.max_tokens is None else options.max_tokens // options.context_length
        self._dtype = id_dtype(vocabulary.size)
        self._counts = CorpusReport()
        self._content = ContentHash()
        self._in_pieces = 0
        self._enough = FIRST_BATCH_CHARS
        self._before_is_text = True
        self._stand: dict[str, Any] | None = None

    def inputs(self, corpus_digest: str) -> dict[str, Any]:
        """Everything that decides the tokens: the cache key is its digest."""
        return {
            "version": FORMAT_VERSION,
            "corpus": {"name": self.corpus.name, "digest": corpus_digest, "consumed": self.corpus.streamed},
            "tokenizer": {"name": self.vocabulary.name, "digest": self.vocabulary.digest},
            "separator_id": self.vocabulary.separator_id,
            "separator_is_auto": self.vocabulary.separator_is_auto,
            "bos_id": self.vocabulary.bos_id,
            **self.options.to_dict(),
        }

    def check_disk(self, root: Path) -> None:
        """Refuse early where the need can be told before reading."""
        bounds = []
        if self.options.max_tokens is not None:
            bounds.append(self.options.max_tokens)
        if (size := self.corpus.size_hint()) is not None:
            bounds.append(size // CHARS_PER_TOKEN)
        if bounds:
            tokens = min(bounds)
            check_disk_space(
                root, tokens * (self._dtype.itemsize + 8), f"The tokens of {self.corpus.name} (~{tokens:,})"
            )

    def into(self, folder: Path, key: str | None, journal: dict[str, Any] | None = None) -> str:
        """Fill a folder; gives the key, which for ``key=None`` is made from what was read.

        Args:
            folder: with a key, a journal is kept in it, so that an interrupted run is gone on with.
            key: the digest of all inputs, if known.
            journal: what an interrupted run left.
        """
        if journal is not None:
            self._go_on(journal)
        with TokenWriter.open(folder, self._dtype, None if journal is None else journal["writer"]) as writer:
            report = self._run(writer, None if key is None else _Journal(folder, key))
        inputs = self.inputs(self._content.finish(self._counts) if key is None else self.corpus.digest())
        key = key or digest_json(inputs)
        special_ids = list(self.vocabulary.special_ids)
        write_json(
            folder / "manifest.json",
            writer.manifest(key=key, inputs=inputs, special_ids=special_ids, report=report),
        )
        if not (folder / JOURNAL).exists():  # else they are needed to go on from here, and go with the journal
            (folder / LINES_FILE).unlink()
        return key

    def in_memory(self) -> TokenSet:
        """The contexts as arrays, nothing on disk."""
        sink = _MemorySink()
        report = self._run(sink)
        digest = self._content.finish(self._counts) if self.corpus.streamed else self.corpus.digest()
        arrays = sink.arrays(self._dtype, self.vocabulary.special_ids, report.padding_tokens)
        return TokenSet(arrays, report, digest_json(self.inputs(digest)))

    def _go_on(self, journal: dict[str, Any]) -> None:
        """Stand where an interrupted run stood when it wrote its journal."""
        self._stand = journal["stand"]
        self._enough, self._in_pieces = int(self._stand["enough"]), int(self._stand["in_pieces"])
        self._before_is_text = bool(self._stand["before_is_text"])
        self.progress.note(
            f"Going on with the interrupted tokenising of {self.corpus.name}: {journal['writer']['tokens']:,} tokens are there."
        )

    def _standing(self, packer: Packer, reading: Reading) -> dict[str, Any]:
        return {
            "place": reading.place(),
            "report": self._counts.to_dict(),
            "packer": packer.state(),
            "enough": self._enough,
            "in_pieces": self._in_pieces,
            "before_is_text": self._before_is_text,
        }

    def _run(self, sink: TokenWriter | _MemorySink, journal: _Journal | None = None) -> TokenReport:
        packer = Packer(
            self.options.context_length, separator_id=self.vocabulary.separator_id, bos_id=self.vocabulary.bos_id
        )
        reading = read_from(self.corpus, self._counts, None if self._stand is None else self._stand["place"])
        if self._stand is not None:
            self._counts.restore(self._stand["report"])
            packer.restore(self._stand["packer"])
        total = None if self._limit is None else self._limit * self.options.context_length
        with self.progress.task(f"tokenising {self.corpus.name}", total, "tokens") as task:
            if sink.num_tokens:
                task.advance(sink.num_tokens)
            stopped = self._fill(packer, sink, task, reading, journal)
        padding = 0
        if sink.num_tokens == 0:
            if not packer.num_documents:
                raise self._empty()
            block, padding = packer.take_padded(self.vocabulary.pad_id)
            sink.write(block)
        return TokenReport(
            corpus=self.corpus.name,
            source=self.corpus.description,
            part=self.options.part,
            tokenizer=self.vocabulary.name,
            context_length=self.options.context_length,
            contexts=sink.num_tokens // self.options.context_length,
            documents=sink.finish_documents(),
            documents_read=self._counts.documents,
            tokens=sink.num_tokens - padding,
            dropped_tail_tokens=0 if stopped else packer.pending,
            padding_tokens=padding,
            bad_rows=self._counts.bad,
            bad_examples=self._counts.examples,
            separator=self.vocabulary.separator,
            bos=self.vocabulary.bos,
            documents_in_pieces=self._in_pieces,
            stopped_early=stopped,
            duplicates=self._counts.duplicates,
        )

    def _fill(
        self, packer: Packer, sink: TokenWriter | _MemorySink, task: Task, reading: Reading, journal: _Journal | None
    ) -> bool:
        """Read until the source or ``max_tokens`` ends; True if it was the latter."""
        for batch in self._batches(reading):
            for document, ids in zip(batch, self._encode(batch), strict=True):
                if isinstance(ids, str):
                    self._counts.reject(ids, document.id)
                    self._counts.documents -= 1
                    continue
                is_text = document.ids is None
                separate = not self.vocabulary.separator_is_auto or (is_text and self._before_is_text)
                sink.add_document(document.id, packer.add(ids, separate=separate))
                self._before_is_text = is_text
            done = sink.num_tokens // self.options.context_length
            block = packer.take(None if self._limit is None else self._limit - done)
            if block is not None:
                sink.write(block)
                task.advance(len(block.input_ids_M), documents=f"{packer.num_documents:,}")
                if self._limit is not None and sink.num_tokens >= self._limit * self.options.context_length:
                    return True
            if journal is not None and journal.is_due() and isinstance(sink, TokenWriter):
                journal.save(sink.save(), self._standing(packer, reading))
        return False

    def _batches(self, reading: Reading) -> Iterator[list[Document]]:
        """The part's documents, a few million characters at a time. Nothing is read ahead of the batch that was given."""
        batch: list[Document] = []
        size = 0
        part, fraction = self.options.part, self.options.heldout_fraction
        for document in reading:
            if self.corpus.streamed:
                self._content.add(document)
            if part != "all" and is_heldout(document, fraction) != (part == "heldout"):
                continue
            batch.append(document)
            size += len(document.text) if document.ids is None else 4 * len(document.ids)
            if size >= self._enough:
                self._enough = min(2 * self._enough, LARGEST_BATCH_CHARS)
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _encode(self, batch: list[Document]) -> list[NDArray[np.int64] | str]:
        """Token ids of each document, or the reason why it has none."""
        pieces: list[str] = []
        counts: list[int] = []
        for document in batch:
            parts = [] if document.ids is not None else text_pieces(document.text)
            self._in_pieces += len(parts) > 1
            pieces += parts
            counts.append(len(parts))
        if pieces and self.tokenizer is None:
            raise InputError(f"{self.corpus.name} holds text; a tokenizer is needed.", hint="Pass a tokenizer.")
        encoded: Iterator[list[int]] = iter(())
        if pieces:
            # verbose=False: no warning that a text is longer than the model's context; it is cut by packing
            options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
            encoded = iter(self.tokenizer(pieces, add_special_tokens=False, truncation=False, **options)["input_ids"])
        results: list[NDArray[np.int64] | str] = []
        for document, count in zip(batch, counts, strict=True):
            if document.ids is not None:
                results.append(self._checked(document.ids))
                continue
            ids = np.concatenate([np.asarray(next(encoded), dtype=np.int64) for _ in range(count)])
            results.append(ids if len(ids) else "text without tokens")
        return results

    def _checked(self, ids: NDArray[np.int64]) -> NDArray[np.int64] | str:
        size = self.vocabulary.size
        return "token id out of the vocabulary" if size is not None and int(ids.max()) >= size else ids

    def _empty(self) -> EmptyCorpusError:
        found = self._counts.documents
        bad = self._counts.bad_line()
        if found:
            part, fraction = self.options.part, self.options.heldout_fraction
            return EmptyCorpusError(
                f"The {part} part of {self.corpus.name} is empty: of {found:,} documents none falls into it "
                f"(heldout_fraction = {fraction}). {f'Bad rows: {bad}.' if bad else ''}".rstrip(),
                hint="Use more documents or another heldout_fraction, or split by contexts (TokenSet.split_contexts).",
            )
        return EmptyCorpusError(
            f"{self.corpus.name} ({self.corpus.description}) holds no usable text: {bad or 'it has no rows'}.",
            hint="Look at the places named." if bad else "Give at least one text.",
        )


def text_pieces(text: str) -> list[str]:
    """The text whole, or when it is very long, in pieces that end at a blank line, a line end or a space."""
    pieces = []
    start = 0
    while len(text) - start > PIECE_CHARS:
        stop = start + PIECE_CHARS
        for mark in ("\n\n", "\n", " "):
            if (found := text.rfind(mark, start + PIECE_CHARS // 2, stop)) >= 0:
                stop = found + (0 if mark == " " else len(mark))
                break
        pieces.append(text[start:stop])
        start = stop
    return [*pieces, text[start:]]
