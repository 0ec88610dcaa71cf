"""Parquet files of a feature store: encodings, row groups, the same bytes for the same rows.

Numbers are split into their bytes (floats) or packed as differences (whole numbers) before zstd, text and kinds go through dictionaries.
Nothing in a file depends on when or where it was written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from neuronmap.errors import DiskSpaceError, InputError, UnwritablePathError
from neuronmap.features.storage.schema import TABLES, arrow_schema

__all__ = ["TableWriter", "check_table", "disk_errors", "rounded", "synchronise", "write_table"]

_ZSTD_LEVEL = 9


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the system's refusals while writing in ``folder`` into our errors."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskSpaceError(f"No space left while writing {folder}.") from error
        raise UnwritablePathError(f"Cannot write {folder}: {error.strerror or error}.") from error


def synchronise(path: Path) -> None:
    """Wait until a file is on the disk, before it takes another's place."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def rounded(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """float32 rounded to 13 significant bits (relative error at most 2**-13): more is noise in lists, and costs a byte each."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    special = (bits & 0x7F800000) == 0x7F800000  # infinite and NaN stay
    result: npt.NDArray[np.float32] = np.where(special, bits, (bits + 0x400) & 0xFFFFF800).view(np.float32)
    return result


class TableWriter:
    """Writes one table of the schema piece by piece, in row groups of the schema's size.

    Args:
        folder: the store.
        name: of the table, as in :data:`neuronmap.features.storage.schema.TABLES`.
        path: where to write; the table's own file in the folder if None.
    """

    def __init__(self, folder: Path, name: str, path: Path | None = None) -> None:
        self.table, self.schema = TABLES[name], arrow_schema(name)
        self.rows = 0
        self._waiting: list[pa.Table] = []
        encodings, dictionaries = _encodings(self.schema)
        self._writer = pq.ParquetWriter(
            path or folder / self.table.file,
            self.schema,
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            use_dictionary=dictionaries,
            column_encoding=encodings,
            write_page_checksum=True,
            # what filters and look-ups skip row groups by; statistics of list entries are of no use
            write_statistics=[field.name for field in self.schema if not pa.types.is_list(field.type)],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Add rows; whole row groups are written at once, the rest waits for more."""
        self.rows += table.num_rows
        self._waiting.append(table)
        waiting = sum(part.num_rows for part in self._waiting)
        whole = waiting - waiting % self.table.row_group
        if whole:
            joined = pa.concat_tables(self._waiting)
            self._writer.write_table(joined.slice(0, whole), row_group_size=self.table.row_group)
            self._waiting = [joined.slice(whole)]

    def close(self) -> None:
        """Write what waits and end the file."""
        rest = pa.concat_tables(self._waiting) if self._waiting else self.schema.empty_table()
        if rest.num_rows or not self.rows:
            self._writer.write_table(rest, row_group_size=self.table.row_group)
        self._writer.close()


def write_table(folder: Path, name: str, table: pa.Table, path: Path | None = None) -> None:
    """Write a whole table of the schema at once.

    Raises:
        InputError: its columns are not those of the schema.
    """
    with TableWriter(folder, name, path) as writer:
        writer.write(check_table(name, table))


def check_table(name: str, table: pa.Table) -> pa.Table:
    """The table with exactly the schema's types and metadata.

    Raises:
        InputError: a column is missing, unknown, out of order, or its type cannot be cast without loss.
    """
    schema = arrow_schema(name)
    if table.schema.names != schema.names:
        raise InputError(
            f"The table {name!r} has the columns {', '.join(table.schema.names) or 'none'}; it must have"
            f" {', '.join(schema.names)}."
        )
    try:
        return table.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"The table {name!r} does not fit its schema: {error}.") from error


def _encodings(schema: pa.Schema) -> tuple[dict[str, str], list[str]]:
    """Encoding by column path, and the columns that go through a dictionary."""
    encodings, dictionaries = {}, []
    for path, kind in (leaf for field in schema for leaf in _leaves(field.name, field.type)):
        if pa.types.is_floating(kind):
            encodings[path] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(kind):
            encodings[path] = "DELTA_BINARY_PACKED"
        elif pa.types.is_string(kind) or pa.types.is_dictionary(kind):
            dictionaries.append(path)
    return encodings, dictionaries


def _leaves(path: str, kind: Any) -> Iterator[tuple[str, Any]]:
    if pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path, kind
