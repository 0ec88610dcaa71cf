"""A feature store that was published, read in place: its files are put into a folder one by one, when they are first needed.

Nobody has looked at its content when it was published, so it counts as an attack until shown otherwise:

- Names of files come from the store's schema, never from the store; each must be a file of the version with the digest and the size that
  the store's manifest says, so nothing has to be hashed again.
- Counts of the manifest have bounds, and a table has as many rows as they say, in parts that fit into memory.
- Arrow and DuckDB read what is in the folder; DuckDB may open no files and load no extensions
  (:class:`neuronmap.features.storage.queries.FeatureQueries`).

What is damaged beyond that is noticed when it is read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from neuronmap.errors import ConfigError, DamagedError, MismatchError
from neuronmap.features.storage.files import Tables
from neuronmap.features.storage.manifest import MANIFEST, read_manifest
from neuronmap.features.storage.schema import FORMAT, TABLES
from neuronmap.features.storage.store import KEPT_FILE, TOKENS_FILE, FeatureStore

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from neuronmap.zoo.reading.placing import ReadingFolder
    from neuronmap.zoo.views import VersionView

__all__ = ["PublishedStore", "holds_features"]

_NEEDED = ("features", "details", "examples", "vocabulary", "documents")
_FILES = frozenset({TOKENS_FILE, KEPT_FILE, *(table.file for name, table in TABLES.items() if name != "clusters")})
"""What pages of features read."""
_MOST = {"features": 1 << 22, "vocabulary": 1 << 22, "contexts": 1 << 31, "context_length": 1 << 16, "rows": 1 << 45}
_MOST_MANIFEST = 32 << 20
_MOST_ROWS = 1 << 31
_MOST_WHOLE_BYTES = 2 << 30
"""Of a table that is read whole."""
_MOST_GROUP_BYTES = 512 << 20
"""Of a part of a table that is read in parts. The largest of real stores: 256 features' details, about 2 MiB."""
_MOST_GROUP_VALUES = 1 << 26
_ATTEMPTS = 3


def holds_features(version: VersionView) -> bool:
    """Whether a version is a feature store whose features can be looked at."""
    record = version.manifest.get("record")
    names = {file.path for file in version.files}
    return (
        version.kind == "ANALYSIS_RESULT"
        and isinstance(record, dict)
        and record.get("format") == FORMAT
        and {MANIFEST, TOKENS_FILE, KEPT_FILE, *(TABLES[name].file for name in _NEEDED)} <= names
    )


class PublishedStore(FeatureStore):
    """A feature store of a version. Open it with :meth:`of`; it is closed like any other.

    Args:
        path: the folder.
        manifest: its checked manifest.
        place: puts a file of a name into the folder.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], place: Callable[[str], object]) -> None:
        super().__init__(path, manifest)
        self._place = place
        rows = {"features": self.num_features, "details": self.num_features, "vocabulary": int(manifest["vocabulary"])}
        self.tables = _PlacedTables(path, frozenset(manifest["files"]) & _FILES, place, rows)

    @classmethod
    def of(cls, reading: ReadingFolder, version: VersionView) -> Self:
        """Open the store of a version; its manifest alone is read.

        Args:
            reading: where files are put.
            version: one that :func:`holds_features`.

        Raises:
            MismatchError: it is no feature store, or one of a version that this NeuronMap does not read.
            DamagedError: its manifest does not hold, or names other files than were published.
            ResourceError, ZooOfflineError: see :meth:`ReadingFolder.place`.
        """
        if not holds_features(version):
            raise MismatchError(
                f"{version.reference} holds no feature store, so there are no features to look at.",
                hint=f"An ANALYSIS_RESULT whose format is {FORMAT} does.",
            )
        files = {file.path: file for file in version.files}
        if files[MANIFEST].size > _MOST_MANIFEST:
            raise DamagedError(f"{MANIFEST} of {version.reference} has {files[MANIFEST].size:,} bytes.")

        def place(name: str) -> Path:
            return reading.place(version.digest, files[name])

        place(MANIFEST)
        folder = reading.folder(version.digest)
        try:
            manifest = read_manifest(folder)
            faults = [*_count_faults(manifest), *_file_faults(manifest, version)]
            made = cls(folder, manifest, place)
            _ = made.config
        except (ConfigError, ValidationError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DamagedError(f"{MANIFEST} of {version.reference} cannot be read: {str(error)[:300]}") from error
        if faults:
            raise DamagedError(f"The feature store {version.reference} is damaged: {'; '.join(faults[:5])}.")
        return made

    def _mapped(self, name: str, shape: tuple[int, int], kinds: tuple[str, ...]) -> npt.NDArray[Any]:
        for _ in range(_ATTEMPTS - 1):
            self._place(name)
            if (self.path / name).exists():  # else it was dropped meanwhile, to make room for others
                break
        return super()._mapped(name, shape, kinds)


class _PlacedTables(Tables):
    """Tables whose files are put in place before they are opened."""

    def __init__(
        self, folder: Path, files: frozenset[str], place: Callable[[str], object], rows: dict[str, int]
    ) -> None:
        super().__init__(folder, files)
        self._place, self._rows = place, rows

    def read(self, name: str, columns: list[str] | None = None) -> pa.Table:
        self._ready(name)
        return super().read(name, columns)

    def rows(self, name: str, value: int) -> pa.Table:
        self._ready(name)
        return super().rows(name, value)

    def _ready(self, name: str) -> None:
        """Fetch outside of the lock, so that other tables are read meanwhile."""
        if name in self._names and name not in self._open:
            self._place(TABLES[name].file)

    def _opened(self, name: str, path: Path) -> Any:
        for _ in range(_ATTEMPTS - 1):
            if path.exists():
                break
            self._place(path.name)  # it was dropped meanwhile
        file = super()._opened(name, path)
        fault = _table_fault(name, file.metadata, self._rows.get(name))
        if fault:
            file.close()
            raise DamagedError(f"The feature store {self._folder} is damaged: {path.name} {fault}.")
        return file


def _count_faults(manifest: dict[str, Any]) -> list[str]:
    """Counts that no analysis has."""
    faults = [f"{name} is {manifest[name]!r:.40}" for name, most in _MOST.items() if not 0 < manifest[name] <= most]
    if not faults and manifest["contexts"] * manifest["context_length"] > 1 << 40:
        faults.append("it has more tokens than any text")
    edges = manifest["edges"]
    sound = len(edges) == 65 and all(isinstance(one, int | float) and math.isfinite(one) for one in edges)
    if not sound or any(high <= low for low, high in itertools.pairwise(edges)):
        faults.append("edges are not 65 rising numbers")
    if not isinstance(manifest.get("created"), str):
        faults.append("created is no time")
    return faults


def _file_faults(manifest: dict[str, Any], version: VersionView) -> list[str]:
    """Files that the store's manifest knows otherwise than the version."""
    files = {file.path: file for file in version.files}
    faults = [f"{TABLES[name].file} is not listed" for name in _NEEDED if TABLES[name].file not in manifest["files"]]
    for name, facts in manifest["files"].items():
        if name not in _FILES:
            continue
        file = files.get(name)
        if file is None:
            faults.append(f"{name} was not published")
        elif (facts["bytes"], facts["sha256"]) != (file.size, file.digest):
            faults.append(f"{name} is another file than its manifest says")
    return faults


def _table_fault(name: str, metadata: Any, rows: int | None) -> str:
    """What speaks against reading a table; empty for nothing."""
    if rows is not None and metadata.num_rows != rows:
        return f"has {metadata.num_rows:,} rows, not {rows:,}"
    if metadata.num_rows > _MOST_ROWS or (name == "hints" and metadata.num_rows > _MOST["features"]):
        return f"has {metadata.num_rows:,} rows"
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > _MOST_WHOLE_BYTES and name != "examples":
        return f"has more than {_MOST_WHOLE_BYTES:,} bytes when it is unpacked"
    for group in groups:
        columns = [group.column(number) for number in range(group.num_columns)]
        if group.total_byte_size > _MOST_GROUP_BYTES or any(one.num_values > _MOST_GROUP_VALUES for one in columns):
            return "has a part that is too large to be read"
    return ""
