"""Text files, folders of them, jsonl, csv and parquet, compressed or not."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from neuronmap.corpora.columns import Kind, choose_column, kinds_of_rows
from neuronmap.corpora.compressed import COMPRESSIONS, READ_ERRORS, open_binary, plain_suffix
from neuronmap.corpora.document import CheckedCorpus, CorpusReport
from neuronmap.corpora.reading import Place, RowReading
from neuronmap.corpora.tables import parquet_kinds, parquet_values
from neuronmap.errors import CorpusFormatError, EmptyCorpusError
from neuronmap.hashing import digest_file, digest_json

__all__ = ["ENDINGS", "FileCorpus"]

TEXT_ENDINGS = (".txt", ".text", ".md", ".markdown", ".rst")
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
CSV_ENDINGS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (*TEXT_ENDINGS, *JSON_ENDINGS, *CSV_ENDINGS, ".parquet")
PEEK_ROWS = 100


@dataclass
class _Cursor:
    """How many files are done, and how many rows of the next."""

    file: int = 0
    row: int = 0


class FileCorpus(CheckedCorpus):
    """One file, or all files of known endings under a folder, in the order of their relative names.

    A text file is one document. A row of jsonl, csv, tsv or parquet is one document, with the id ``file:line``.

    Raises:
        CorpusFormatError: a single file of an unknown ending, or no column that can be the text.
        EmptyCorpusError: a folder without any file of a known ending.
    """

    def __init__(self, path: Path, *, text_column: str | None = None, name: str | None = None) -> None:
        self.text_column = text_column
        self._strangers: list[str] = []
        self._digest: str | None = None
        if path.is_dir():
            self._files = self._find(path)
            super().__init__(name or path.resolve().name, f"folder of {len(self._files):,} files")
        else:
            if plain_suffix(path) not in ENDINGS or (plain_suffix(path) == ".parquet" and _is_compressed(path)):
                raise CorpusFormatError(
                    f"Cannot tell the format of {path} by its ending '{''.join(path.suffixes[-2:])}'.",
                    hint=f"Known endings: {' '.join(ENDINGS)}; all but .parquet also with {' '.join(COMPRESSIONS)}.",
                )
            self._files = [(path.name, path)]
            super().__init__(name or path.name.split(".")[0], f"file {path.name}")
        self._check_first_table()

    def _find(self, folder: Path) -> list[tuple[str, Path]]:
        files = []
        for path in folder.rglob("*"):
            relative = path.relative_to(folder)
            if not path.is_file() or any(part.startswith(".") for part in relative.parts):
                continue
            known = plain_suffix(path) in ENDINGS and not (plain_suffix(path) == ".parquet" and _is_compressed(path))
            if known:
                files.append((relative.as_posix(), path))
            else:
                self._strangers.append(relative.as_posix())
        if not files:
            raise EmptyCorpusError(
                f"{folder} holds no file of a known ending ({len(self._strangers)} other files).",
                hint=f"Known endings: {' '.join(ENDINGS)}.",
            )
        self._strangers.sort()
        return sorted(files)

    def _check_first_table(self) -> None:
        # A wrong column name is said at once, not after an hour of tokenising.
        for name, path in self._files:
            if plain_suffix(path) not in TEXT_ENDINGS:
                try:
                    self._column(name, path)
                except (*READ_ERRORS, ValueError) as error:
                    if isinstance(error, CorpusFormatError):
                        raise
                    continue  # broken file: counted when it is read
                return

    def _column(self, name: str, path: Path) -> str | None:
        """The column to read, or None for a jsonl file whose lines are bare strings or lists of ids."""
        suffix = plain_suffix(path)
        kinds: Mapping[str, Kind]
        if suffix == ".parquet":
            kinds = parquet_kinds(path)
        else:
            sample: list[dict[str, Any]] = []
            bare = 0
            reader = _json_rows if suffix in JSON_ENDINGS else _csv_rows
            for _, row in reader(name, path, CorpusReport()):
                if isinstance(row, dict):
                    sample.append(row)
                else:
                    bare += 1
                if len(sample) + bare >= PEEK_ROWS:
                    break
            if bare > len(sample) or not (bare or sample):
                return self.text_column
            kinds = kinds_of_rows(sample if suffix in JSON_ENDINGS else map(_without_numbers, sample))
            if suffix not in JSON_ENDINGS and self.text_column in kinds:
                return self.text_column  # a csv cell is a string whatever it looks like
        return choose_column(kinds, self.text_column, name)

    def rows(self, report: CorpusReport, /) -> Iterator[tuple[str, Any]]:
        return self._rows_after(_Cursor(), report)

    def reading(self, report: CorpusReport, place: Place | None = None) -> RowReading:
        """Documents from a place on: files before it are not opened, rows before it are read and dropped."""
        cursor = _Cursor() if place is None else _Cursor(int(place["file"]), int(place["row"]))
        return RowReading(self._rows_after(cursor, report), lambda: {"file": cursor.file, "row": cursor.row}, report)

    def _rows_after(self, cursor: _Cursor, report: CorpusReport) -> Iterator[tuple[str, Any]]:
        """Rows from the cursor on, which moves along. What lies before it is passed now, before the first row is asked for."""
        for name in self._strangers:
            report.reject("file of an unknown kind", name)
        current = self._readable_rows(cursor.file, report) if cursor.file < len(self._files) else iter(())
        deque(islice(current, cursor.row), maxlen=0)
        return self._moving(current, cursor, report)

    def _moving(
        self, current: Iterator[tuple[str, Any]], cursor: _Cursor, report: CorpusReport
    ) -> Iterator[tuple[str, Any]]:
        while True:
            for row in current:
                cursor.row += 1
                yield row
            if cursor.file + 1 >= len(self._files):
                return
            cursor.file, cursor.row = cursor.file + 1, 0
            current = self._readable_rows(cursor.file, report)

    def _readable_rows(self, number: int, report: CorpusReport) -> Iterator[tuple[str, Any]]:
        name, path = self._files[number]
        try:
            yield from self._rows_of(name, path, report)
        except CorpusFormatError as error:
            report.reject("file without the text column", f"{name}: {error.message}")
        except READ_ERRORS as error:
            report.reject("unreadable file", f"{name}: {getattr(error, 'strerror', None) or error}")

    def _rows_of(self, name: str, path: Path, report: CorpusReport) -> Iterator[tuple[str, Any]]:
        suffix = plain_suffix(path)
        if suffix in TEXT_ENDINGS:
            with open_binary(path) as file:
                data = file.read()
            try:
                yield name, data.decode("utf-8-sig")
            except UnicodeDecodeError:
                report.reject("undecodable bytes", name)
            return
        if path.stat().st_size == 0:
            report.reject("empty file", name)
            return
        try:
            column = self._column(name, path)
            if suffix == ".parquet":
                for number, value in enumerate(parquet_values(path, str(column)), start=1):
                    yield f"{name}:{number}", value
                return
        except CorpusFormatError:
            raise
        except ValueError as error:  # pyarrow.ArrowInvalid: not a parquet file, or broken inside
            report.reject("unreadable file", f"{name}: {error}")
            return
        reader = _json_rows if suffix in JSON_ENDINGS else _csv_rows
        for where, row in reader(name, path, report):
            if isinstance(row, dict):
                yield where, None if column is None else row.get(column)
            else:
                yield where, row

    def digest(self) -> str:
        """Digest over relative names, sizes and contents of the files, and the column asked for."""
        if self._digest is None:
            listed = []
            for name, path in self._files:
                try:
                    listed.append([name, path.stat().st_size, digest_file(path)])
                except OSError as error:
                    listed.append([name, -1, f"unreadable: {error.strerror}"])
            self._digest = digest_json({"files 1": listed, "others": self._strangers, "column": self.text_column})
        return self._digest

    def size_hint(self) -> int | None:
        """Bytes of the files when none is compressed."""
        if any(_is_compressed(path) or plain_suffix(path) == ".parquet" for _, path in self._files):
            return None
        return sum(os.stat(path).st_size for _, path in self._files)


def _is_compressed(path: Path) -> bool:
    return path.suffix.lower() in COMPRESSIONS


def _json_rows(name: str, path: Path, report: CorpusReport) -> Iterator[tuple[str, Any]]:
    if plain_suffix(path) == ".json" and _starts_an_array(path):
        with open_binary(path) as file:
            try:
                items = json.loads(file.read())
            except (ValueError, RecursionError):  # bad UTF-8 too
                report.reject("invalid JSON", name)
                return
        for number, item in enumerate(items, start=1):
            yield f"{name}:{number}", item
        return
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            where = f"{name}:{number}"
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue  # an empty line between rows is no row
            try:
                yield where, json.loads(line.decode())
            except UnicodeDecodeError:
                report.reject("undecodable bytes", where)
            except (ValueError, RecursionError):
                report.reject("invalid JSON", where)


def _starts_an_array(path: Path) -> bool:
    """Whether a ``.json`` file is one array over several lines, and not a row a line."""
    with open_binary(path) as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return start[:1] == b"[" and start[1:].lstrip()[:1] in (b"{", b'"', b"[", b"")


def _csv_rows(name: str, path: Path, report: CorpusReport) -> Iterator[tuple[str, dict[str, str]]]:
    csv.field_size_limit(2**31 - 1)  # the library's 128 KiB is less than one book chapter
    # Bytes that are not UTF-8 become lone surrogates, which the row check counts as undecodable.
    with (
        open_binary(path) as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
    ):
        reader = csv.reader(file, delimiter=CSV_ENDINGS[plain_suffix(path)])
        header = next(reader, None)
        if not header:
            report.reject("empty file", name)
            return
        while True:
            try:
                fields = next(reader, None)
            except csv.Error:
                report.reject("broken csv row", f"{name}:{reader.line_num}")
                continue
            if fields is None:
                return
            where = f"{name}:{reader.line_num}"
            if len(fields) == len(header):
                yield where, dict(zip(header, fields, strict=True))
            elif fields:
                report.reject("wrong number of columns", where)


def _without_numbers(row: dict[str, str]) -> dict[str, Any]:
    """A csv row in which cells that are numbers count as such, so that ``id,review`` has one text column."""
    return {name: cell if not _is_number(cell) else None for name, cell in row.items()}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return not cell.strip()
    return True
