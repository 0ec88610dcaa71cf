"""The training history: one JSON line a row while training, one Parquet file at the end.

Columns are numbers; a figure that was not measured at a row is absent (null in Parquet), never invented.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from neuronmap.errors import DiskSpaceError

__all__ = ["History", "append_line", "last_line", "read_lines", "write_lines"]

_TAIL_BYTES = 16_384
"""Longer than a row of the history many times over."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines; none where there is no file.

    A killed writer leaves at most one broken last line, which is left out: it comes again after the resume.
    """
    rows: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows


def last_line(path: Path) -> dict[str, Any]:
    """The newest whole row of a file of JSON lines, read from its end; empty where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            tail = file.read().splitlines()
    except FileNotFoundError:
        return {}
    for line in reversed(tail):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        return row if isinstance(row, dict) else {}
    return {}


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row and put it on disk at once.

    Raises:
        DiskSpaceError: no space is left.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        if error.errno == 28:
            raise DiskSpaceError(
                f"No space left while writing {path}.", hint="Free some disk space, then resume."
            ) from error
        raise


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Put these rows in the place of the file's."""
    aside = path.with_suffix(".rewound")
    aside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(aside, path)


class History:
    """Appends rows to ``history.jsonl`` and keeps them in memory.

    Args:
        path: the file; rows already in it are read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = read_lines(path)

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row and put it on disk at once."""
        self.rows.append(dict(row))
        append_line(self.path, self.rows[-1])

    def rewind(self, step: int) -> None:
        """Drop rows after ``step``: a resumed run writes them again."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        write_lines(self.path, self.rows)

    def to_parquet(self) -> bytes:
        """All rows as one Parquet table; absent figures are nulls."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names: dict[str, None] = {}
        for row in self.rows:
            names.update(dict.fromkeys(row))
        columns: dict[str, Any] = {name: [row.get(name) for row in self.rows] for name in names}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink)
        content: bytes = sink.getvalue().to_pybytes()
        return content
