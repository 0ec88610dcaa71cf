"""The Parquet files of a store, read a row group at a time.

Tables are sorted by their first column, and a row group knows its smallest and largest value there. What belongs to one feature or one
token is therefore in one row group, or in two that meet: nothing else is read. The last groups of each table are kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from neuronmap.errors import DamagedError, InputError
from neuronmap.features.storage.manifest import REDO
from neuronmap.features.storage.schema import TABLES, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Tables"]

_KEPT_GROUPS = 8
_MISSING = {
    "hints": ("hints", "Make them with `neuronmap sae analyze`."),
    "promoted": ("promoted tokens", "They come from the language model's weights: analyse with the model at hand."),
    "clusters": ("map of features", "Analyse again with the map."),
}


class Tables:
    """The tables of one store. Several threads may read at once.

    Args:
        folder: the store.
        files: names of the files that the manifest lists.
    """

    def __init__(self, folder: Path, files: frozenset[str]) -> None:
        self._folder = folder
        self._names = frozenset(name for name, table in TABLES.items() if table.file in files)
        self._lock = threading.Lock()
        self._open: dict[str, Any] = {}  # name -> pyarrow.parquet.ParquetFile
        self._limits: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}
        self._groups: dict[str, OrderedDict[int, pa.Table]] = {name: OrderedDict() for name in self._names}

    @property
    def names(self) -> frozenset[str]:
        """Tables that are there."""
        return self._names

    def require(self, name: str) -> Path:
        """Where a table lies.

        Raises:
            InputError: it is not there, with what would make it; or there is no table of that name.
        """
        if name not in TABLES:
            raise InputError(f"There is no table {name!r}. There are: {', '.join(TABLES)}.")
        if name not in self._names:
            what, hint = _MISSING.get(name, (f"table {name}", ""))
            raise InputError(f"This analysis has no {what} ({TABLES[name].file} is missing).", hint=hint)
        return self._folder / TABLES[name].file

    def read(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A whole table, or some of its columns."""
        unknown = [column for column in columns or () if column not in {known.name for known in TABLES[name].columns}]
        if unknown:
            raise InputError(f"Table {name} has no column {', '.join(unknown)}.")
        with self._lock:
            return self._guarded(name, lambda file: file.read(columns))

    def rows(self, name: str, value: int) -> pa.Table:
        """The rows of a table whose first column (feature or token) is ``value``, in stored order; none if there are none."""
        import pyarrow as pa

        with self._lock:
            low, high = self._guarded(name, lambda _: self._limits[name])
            groups = np.flatnonzero((low <= value) & (value <= high)).tolist()
            parts = [self._cut(self._group(name, group), value) for group in groups]
        return pa.concat_tables(parts) if parts else arrow_schema(name).empty_table()

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            for file in self._open.values():
                file.close()
            self._open.clear()
            for groups in self._groups.values():
                groups.clear()

    @staticmethod
    def _cut(group: pa.Table, value: int) -> pa.Table:
        # Not to_numpy(): pyarrow imports pandas for it, a third of the time to the first page of an SAE.
        key = np.concatenate([np.from_dlpack(chunk) for chunk in group.column(0).chunks] or [np.empty(0, np.int64)])
        first, stop = np.searchsorted(key, [value, value + 1])
        return group.slice(int(first), int(stop - first))

    def _group(self, name: str, number: int) -> pa.Table:
        groups = self._groups[name]
        if number not in groups:
            groups[number] = self._guarded(name, lambda file: file.read_row_group(number, use_threads=False))
        groups.move_to_end(number)
        while len(groups) > _KEPT_GROUPS:
            groups.popitem(last=False)
        return groups[number]

    def _guarded(self, name: str, read: Any) -> Any:
        """Call with the open file; what Arrow cannot read is named."""
        import pyarrow as pa

        path = self.require(name)
        try:
            if name not in self._open:
                self._open[name] = self._opened(name, path)
            return read(self._open[name])
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DamagedError(
                f"The feature store {self._folder} is damaged: {path.name} cannot be read ({str(error).splitlines()[0]}).",
                hint=REDO,
            ) from error

    def _opened(self, name: str, path: Path) -> Any:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        expected = {column.name: column.type for column in arrow_schema(name)}
        found = {column.name: column.type for column in file.schema_arrow}
        if different := [one for one in {**expected, **found} if expected.get(one) != found.get(one)]:
            file.close()
            raise DamagedError(
                f"The feature store {self._folder} is damaged: {path.name} does not have the columns of its version "
                f"(differs in {', '.join(different)}).",
                hint=REDO,
            )
        groups = [file.metadata.row_group(number).column(0).statistics for number in range(file.num_row_groups)]
        wide = np.iinfo(np.int64)  # a file written again by other tools may have no statistics: then all is looked at
        low = [wide.min if one is None or not one.has_min_max else one.min for one in groups]
        high = [wide.max if one is None or not one.has_min_max else one.max for one in groups]
        self._limits[name] = np.array(low, np.int64), np.array(high, np.int64)
        return file
