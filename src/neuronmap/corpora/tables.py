"""Rows out of Arrow tables: parquet files and Hugging Face data set objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronmap.corpora.columns import choose_column, kinds_of_rows, kinds_of_schema
from neuronmap.corpora.document import CheckedCorpus, CorpusReport
from neuronmap.corpora.reading import Place, RowReading

__all__ = ["DatasetCorpus", "IterableDatasetCorpus", "arrow_values", "parquet_kinds", "parquet_values"]

BATCH_ROWS = 1024


def parquet_kinds(path: Path) -> dict[str, Any]:
    """Columns of a parquet file, from its footer."""
    import pyarrow.parquet

    return kinds_of_schema(pyarrow.parquet.read_schema(path))


def parquet_values(path: Path, column: str) -> Iterator[Any]:
    """Values of one column, a batch of rows in memory at a time."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[column]):
            yield from arrow_values(batch.column(0))


def arrow_values(array: Any) -> Iterator[Any]:
    """Strings, None, or integer arrays out of one Arrow array; lists of integers are not turned into Python ints."""
    import pyarrow.types as types

    plain_list = types.is_list(array.type) or types.is_large_list(array.type)
    if not (plain_list and types.is_integer(array.type.value_type)) or array.values.null_count:
        yield from array.to_pylist()
        return
    values = array.values.to_numpy(zero_copy_only=False)
    offsets = array.offsets.to_numpy()
    for row, valid in enumerate(array.is_valid().to_pylist()):
        yield values[offsets[row] : offsets[row + 1]] if valid else None


@dataclass
class Row:
    """How many rows are done."""

    number: int = 0


class DatasetCorpus(CheckedCorpus):
    """A ``datasets.Dataset`` in memory or mapped from disk. The digest hashes the texts themselves."""

    def __init__(self, dataset: Any, *, text_column: str | None = None, name: str | None = None) -> None:
        label = name or dataset.info.dataset_name or "dataset"
        self.column = choose_column(kinds_of_schema(dataset.features.arrow_schema), text_column, f"data set {label}")
        self._dataset = dataset.select_columns([self.column]).with_format("arrow")
        super().__init__(label, f"data set of {len(dataset):,} rows, column {self.column}")
        self._digest: str | None = None

    def rows(self, _report: CorpusReport, /) -> Iterator[tuple[str, Any]]:
        return self._rows_after(Row())

    def reading(self, report: CorpusReport, place: Place | None = None) -> RowReading:
        """Documents from a place on; rows before it are not read."""
        row = Row() if place is None else Row(int(place["row"]))
        return RowReading(self._rows_after(row), lambda: {"row": row.number}, report)

    def _rows_after(self, row: Row) -> Iterator[tuple[str, Any]]:
        rows = len(self._dataset)
        if row.number >= rows:
            return
        dataset = self._dataset.select(range(row.number, rows)) if row.number else self._dataset
        for table in dataset.iter(batch_size=BATCH_ROWS):
            for chunk in table.column(self.column).chunks:
                for value in arrow_values(chunk):
                    row.number += 1
                    yield str(row.number - 1), value

    def digest(self) -> str:
        """Digest of all documents, computed once: the object cannot change."""
        if self._digest is None:
            self._digest = super().digest()
        return self._digest


class IterableDatasetCorpus(CheckedCorpus):
    """A ``datasets.IterableDataset``: read as far as needed, so it may have no end."""

    streamed = True

    def __init__(self, dataset: Any, *, text_column: str | None = None, name: str | None = None) -> None:
        label = name or dataset.info.dataset_name or "stream"
        if dataset.features is not None:
            kinds = kinds_of_schema(dataset.features.arrow_schema)
        else:
            kinds = kinds_of_rows(dataset.take(16))
        self.column = choose_column(kinds, text_column, f"data set {label}") if kinds else (text_column or "text")
        self._dataset = dataset
        super().__init__(label, f"streamed data set, column {self.column}")

    def rows(self, _report: CorpusReport, /) -> Iterator[tuple[str, Any]]:
        return self._rows_after(Row())

    def reading(self, report: CorpusReport, place: Place | None = None) -> RowReading:
        """Documents from a place on; whole shards before it are not read. The data set object itself is moved there."""
        row = Row()
        if place is not None:
            row.number = int(place["row"])
            self._dataset.load_state_dict(place["state"])
        return RowReading(
            self._rows_after(row), lambda: {"row": row.number, "state": self._dataset.state_dict()}, report
        )

    def _rows_after(self, row: Row) -> Iterator[tuple[str, Any]]:
        for values in self._dataset:
            row.number += 1
            yield str(row.number - 1), values.get(self.column)
