"""Tokens on disk: one folder a token set, named by the digest of all its inputs.

    input_ids.bin       uint16 or uint32, little-endian
    document.bin        int32, index of each token's document, -1 outside documents
    position.bin        int32, position within the document, -1 outside
    documents.parquet   id (string) and start (int64, place of the first token) of each document
    manifest.json       format, inputs, sizes and SHA-256 of the files, report

About 10 bytes a token. Written aside and renamed, so a folder is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from neuronmap.corpora.packing import Block
from neuronmap.corpora.tokenset import TokenArrays, TokenReport, TokenSet
from neuronmap.errors import DamagedError, DiskSpaceError, UnwritablePathError
from neuronmap.hashing import digest_file
from neuronmap.paths import read_json

__all__ = ["FORMAT_VERSION", "LINES_FILE", "TokenWriter", "find_cached", "id_dtype", "open_tokens"]

FORMAT = "neuronmap-tokens"
FORMAT_VERSION = 1
ID_FILE, DOCUMENT_FILE, POSITION_FILE, TABLE_FILE = "input_ids.bin", "document.bin", "position.bin", "documents.parquet"
DATA_FILES = (ID_FILE, DOCUMENT_FILE, POSITION_FILE, TABLE_FILE)
LINES_FILE = ".documents.jsonl"  # while being written
WORK_FILES = (ID_FILE, DOCUMENT_FILE, POSITION_FILE, LINES_FILE)
TABLE_ROWS = 1 << 16


def id_dtype(vocabulary_size: int | None) -> np.dtype[Any]:
    """The smallest stored type that holds every id."""
    return np.dtype("<u2" if vocabulary_size is not None and vocabulary_size <= 1 << 16 else "<u4")


class _Pieces:
    """One array file, written front to back, hashed on the way."""

    def __init__(self, file: BinaryIO, dtype: np.dtype[Any]) -> None:
        self._file, self._dtype = file, dtype
        self._state = hashlib.sha256()
        self.size = 0
        while block := file.read(1 << 20):  # what an interrupted writer left
            self._state.update(block)
            self.size += len(block)

    def write(self, values: NDArray[Any]) -> None:
        data = np.ascontiguousarray(values, dtype=self._dtype).view(np.uint8).data
        self._file.write(data)
        self._state.update(data)
        self.size += data.nbytes

    def facts(self) -> dict[str, Any]:
        return {"bytes": self.size, "sha256": f"sha256:{self._state.hexdigest()}"}


class TokenWriter:
    """Writes contexts and documents into a folder as they come; use :meth:`open`.

    Documents are noted as lines of JSON while they come, since a parquet file cannot be gone on with, and become the table at the end.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], files: list[BinaryIO], state: dict[str, Any]) -> None:
        self._folder, self._dtype = folder, dtype
        *arrays, self._lines = self._files = files
        self._arrays = [
            _Pieces(file, kind) for file, kind in zip(arrays, (dtype, np.dtype("<i4"), np.dtype("<i4")), strict=True)
        ]
        self._lines.seek(0, 2)
        self._pending: list[tuple[str, int]] = [(name, start) for name, start in state.get("pending", [])]
        self.num_tokens = int(state.get("tokens", 0))  # flattened, padding included
        self.num_documents = int(state.get("documents", 0))

    @classmethod
    @contextmanager
    def open(cls, folder: Path, dtype: np.dtype[Any], state: dict[str, Any] | None = None) -> Iterator[TokenWriter]:
        """A writer into an existing folder; a full disk becomes DiskSpaceError.

        Args:
            folder: where the files go.
            dtype: of token ids.
            state: of an interrupted writer (:meth:`save`), whose files lie in the folder (:meth:`is_there`) and are cut back to it.
        """
        sizes = state["bytes"] if state is not None else [0] * len(WORK_FILES)
        try:
            with ExitStack() as stack:
                files: list[BinaryIO] = []
                for name, size in zip(WORK_FILES, sizes, strict=True):
                    file = stack.enter_context((folder / name).open("r+b" if size else "w+b"))
                    file.truncate(size)
                    file.seek(0)
                    files.append(file)
                yield cls(folder, dtype, files, state or {})
        except OSError as error:
            if error.errno == 28:  # ENOSPC
                raise DiskSpaceError(
                    f"No space left while writing tokens in {folder.parent}.",
                    hint="Free disk space, use max_tokens, or set NEURONMAP_HOME to a larger disk.",
                ) from error
            raise

    @staticmethod
    def is_there(folder: Path, state: dict[str, Any]) -> bool:
        """Whether everything that a state speaks of is in the folder."""
        paths = [folder / name for name in WORK_FILES]
        return all(
            path.is_file() and path.stat().st_size >= size for path, size in zip(paths, state["bytes"], strict=True)
        )

    def add_document(self, document_id: str, start: int) -> None:
        """Note a document and where its first token will lie."""
        self._pending.append((document_id, start))

    def write(self, block: Block) -> None:
        """Append whole contexts."""
        ids, document, position = self._arrays
        ids.write(block.input_ids_M)
        document.write(block.document_M)
        position.write(block.position_M)
        self.num_tokens += len(block.input_ids_M)
        self._note_documents()

    def _note_documents(self) -> None:
        """Write the documents that start within what is written; later ones may yet fall off the end."""
        count = bisect_left(self._pending, self.num_tokens, key=lambda noted: noted[1])
        self._lines.writelines(f"{json.dumps(noted)}\n".encode() for noted in self._pending[:count])
        del self._pending[:count]
        self.num_documents += count

    def save(self) -> dict[str, Any]:
        """Put everything so far on the disk; returns what :meth:`open` needs to go on from there, in JSON types."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        return {
            "bytes": [*(array.size for array in self._arrays), self._lines.tell()],
            "tokens": self.num_tokens,
            "documents": self.num_documents,
            "pending": self._pending,
        }

    def finish_documents(self) -> int:
        """Make the table; returns the number of documents that have a token in the contexts. The lines stay until the folder is whole."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._note_documents()
        schema = pa.schema([("id", pa.string()), ("start", pa.int64())])
        self._lines.seek(0)
        with pq.ParquetWriter(self._folder / TABLE_FILE, schema) as table:
            while lines := list(islice(self._lines, TABLE_ROWS)):
                names, starts = zip(*map(json.loads, lines), strict=True)
                table.write_table(pa.table([list(names), list(starts)], schema=schema))
        return self.num_documents

    def manifest(
        self, *, key: str, inputs: dict[str, Any], special_ids: list[int], report: TokenReport
    ) -> dict[str, Any]:
        """The manifest; call it when the writer is closed and write it last."""
        table = self._folder / TABLE_FILE
        facts = [array.facts() for array in self._arrays]
        facts.append({"bytes": table.stat().st_size, "sha256": digest_file(table)})
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "key": key,
            "inputs": inputs,
            "dtype": self._dtype.str,
            "flat_tokens": self.num_tokens,
            "special_ids": special_ids,
            "files": dict(zip(DATA_FILES, facts, strict=True)),
            "report": report.to_dict(),
        }


class _ParquetDocuments:
    """The document table, read from disk when first asked."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count
        self._table: Any = None

    def __len__(self) -> int:
        return self._count

    def _cell(self, column: int, index: int) -> Any:
        if self._table is None:
            import pyarrow.parquet as pq

            self._table = pq.read_table(self._path)
        return self._table.column(column)[index].as_py()

    def id(self, index: int) -> str:
        return str(self._cell(0, index))

    def start(self, index: int) -> int:
        return int(self._cell(1, index))


def open_tokens(folder: Path, *, verify: bool = False) -> TokenSet:
    """Open a stored token set.

    Args:
        folder: a folder of ``<home>/cache/tokens``.
        verify: hash every file and compare (about 1 GB/s); otherwise only sizes are compared.

    Raises:
        DamagedError: something is missing, of another size, or not ours; says what.
    """
    manifest = _read_manifest(folder)
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"{folder} has no {name}.")
        if path.stat().st_size != facts["bytes"]:
            raise DamagedError(f"{path} has {path.stat().st_size:,} bytes; {facts['bytes']:,} were written.")
        if verify and digest_file(path) != facts["sha256"]:
            raise DamagedError(f"{path} has changed since it was written: its SHA-256 is another.")
    report = TokenReport.from_dict(manifest["report"])
    shape = (manifest["flat_tokens"],)
    arrays = TokenArrays(
        np.memmap(folder / ID_FILE, dtype=manifest["dtype"], mode="r", shape=shape),
        np.memmap(folder / DOCUMENT_FILE, dtype="<i4", mode="r", shape=shape),
        np.memmap(folder / POSITION_FILE, dtype="<i4", mode="r", shape=shape),
        np.array(manifest["special_ids"], dtype=np.int64),
        report.padding_tokens,
        _ParquetDocuments(folder / TABLE_FILE, report.documents),
    )
    return TokenSet(arrays, report, manifest["key"], folder=folder)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise DamagedError(f"{folder} has no manifest.json.")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or (manifest.get("format"), manifest.get("version")) != (FORMAT, FORMAT_VERSION):
        raise DamagedError(f"{folder} is not a token set of format {FORMAT} {FORMAT_VERSION}.")
    expected = {"key", "dtype", "flat_tokens", "special_ids", "files", "report"}
    if not expected <= manifest.keys() or set(manifest["files"]) != set(DATA_FILES):
        raise DamagedError(f"{path} is incomplete.")
    return manifest


def find_cached(folder: Path, key: str) -> tuple[TokenSet | None, str]:
    """The cached token set for ``key``, or None and, if there was a damaged one, why it was removed.

    Raises:
        DamagedError: the folder holds something that is not ours, which is left alone.
    """
    if not folder.exists():
        return None, ""
    strangers = [entry.name for entry in folder.iterdir() if entry.name not in (*DATA_FILES, "manifest.json")]
    if strangers:
        raise DamagedError(
            f"{folder} is where tokens are cached, but it holds other files: {', '.join(sorted(strangers)[:5])}.",
            hint=f"Move that folder away, or delete it: {folder}",
        )
    try:
        tokens = open_tokens(folder)
        if tokens.digest != key:
            raise DamagedError(f"{folder} holds the tokens of other inputs.")
    except DamagedError as error:
        try:
            shutil.rmtree(folder)
        except OSError as reason:
            raise UnwritablePathError(f"{error.message} It cannot be removed: {reason.strerror}.") from reason
        return None, error.message
    tokens.report = replace(tokens.report, reused=True)
    return tokens, ""
