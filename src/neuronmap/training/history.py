"""The training history: one JSON line a row while training, one Parquet file at the end.

Columns are numbers; a figure that was not measured at a row is absent (null in Parquet), never invented.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuronmap.errors import DiskSpaceError

__all__ = ["History"]


class History:
    """Appends rows to ``history.jsonl`` and keeps them in memory.

    Args:
        path: the file; rows already in it are read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    self.rows.append(json.loads(line))
                except ValueError:
                    break  # a killed writer leaves at most one broken last line; it comes again after the resume

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row and put it on disk at once."""
        self.rows.append(dict(row))
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(self.rows[-1]) + "\n")
        except OSError as error:
            if error.errno == 28:
                raise DiskSpaceError(
                    f"No space left while writing {self.path}.", hint="Free some disk space, then resume."
                ) from error
            raise

    def rewind(self, step: int) -> None:
        """Drop rows after ``step``: a resumed run writes them again."""
        kept = [row for row in self.rows if row["step"] <= step]
        self.rows = kept
        aside = self.path.with_suffix(".rewound")
        aside.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        os.replace(aside, self.path)

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
