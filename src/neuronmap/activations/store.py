"""The activation store: a folder of memory-mapped shards that says what it holds and refuses to be misread.

    <hook>-<digest>/
    ├── manifest.json           what the rows are, how they were made, sizes and digests; written last
    ├── statistics.safetensors  mean_D, m2_D: float64
    ├── rows-00000.bin          raw [shard rows, W], little-endian float32, float16, bfloat16 or int8 (see ``shards.py``)
    ├── scales-00000.bin        raw float32 [shard rows]; with int8 only
    ├── index-00000.bin         raw int32 [shard rows, 4]: document, position, token id, context
    └── verified.json           file times at which the digests were last found right; may be missing

A store that is still being harvested has ``journal.json`` in place of the manifest (see ``writer.py``).
Shape legend: N rows, W width of the hook.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from neuronmap.activations.rows import RowStatistics, check_range
from neuronmap.activations.shards import FORMATS, INDEX_BYTES, MappedShard, RowFormat, index_file
from neuronmap.errors import DamagedError, InputError, MismatchError, NeuronMapError
from neuronmap.hashing import digest_file, sealed, short
from neuronmap.paths import cache_folder, read_json

__all__ = ["ActivationStore", "RowOrigin", "StoreEntry", "list_stores"]

FORMAT = "neuronmap-activations"
VERSIONS = (1, 2)
"""Read here. A store is written in the first version that has its row format (2 for int8), so older readers open what they can."""
MANIFEST = "manifest.json"
JOURNAL = "journal.json"
STATISTICS = "statistics.safetensors"


def seal(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with a digest over itself, so that a changed number is noticed."""
    return sealed(manifest, "manifest_digest")


def store_name(slug: str, key: str) -> str:
    """The name of a store's folder, by its hook point and key."""
    return f"{slug}-{short(key)}"


class RowOrigin(NamedTuple):
    """Where rows come from; four int32 arrays [n].

    ``document`` indexes the corpus, ``position`` counts tokens within the document, ``context`` is the packed
    context of the token set that the row was computed in.
    """

    document: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    token_id: npt.NDArray[np.int32]
    context: npt.NDArray[np.int32]


class ActivationStore:
    """Activations of one hook point over one token set, read from disk at memory speed; a ``RowSource``.

    Made by :func:`neuronmap.activations.harvest`; opened with :meth:`open`.

    Attributes:
        path: the folder.
        manifest: everything recorded about the rows, as plain JSON types.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._shards: dict[int, MappedShard] = {}

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> Self:
        """Open a store; sizes and the manifest's own digest are always checked.

        Args:
            path: the store's folder.
            verify: also read every shard and compare its SHA-256 (about a second per GB).

        Returns:
            The store; shards are mapped when first read.

        Raises:
            InputError: if there is no store in the folder.
            DamagedError: if the store is incomplete, or a file is missing, resized or changed.
            MismatchError: if it was written in a format this version does not know.
        """
        folder = Path(path)
        store = cls(folder, read_manifest(folder))
        store._check_files(verify)
        return store

    @property
    def name(self) -> str:
        """Name of the folder, wherever it lies."""
        return self.path.name

    def __str__(self) -> str:
        return str(self.path)

    @property
    def width(self) -> int:
        """W, the length of a row."""
        return int(self.manifest["width"])

    @property
    def num_rows(self) -> int:
        """N."""
        return int(self.manifest["num_rows"])

    @property
    def digest(self) -> str:
        """Digest of everything the rows were made from (the store's key)."""
        return str(self.manifest["key"])

    @property
    def dtype(self) -> torch.dtype:
        """What :meth:`read` gives without ``out``: the stored dtype; float32 for int8 rows."""
        return self.row_format.read_as

    @property
    def row_format(self) -> RowFormat:
        """How rows are stored."""
        return FORMATS[self.manifest["dtype"]]

    @property
    def hook(self) -> dict[str, Any]:
        """The hook point, as a dictionary (name, layer, component, module_path, side, width)."""
        return dict(self.manifest["hook"])

    @property
    def model(self) -> dict[str, Any]:
        """The model's identity, as a dictionary."""
        return dict(self.manifest["model"])

    @property
    def bytes_on_disk(self) -> int:
        """Size of all files in the folder."""
        return _folder_bytes(self.path)

    @cached_property
    def statistics(self) -> RowStatistics:
        """Mean, variance and mean square norm of the stored rows, accumulated in float64 while harvesting."""
        try:
            tensors = safetensors.torch.load_file(self.path / STATISTICS)
            return RowStatistics(self.num_rows, tensors["mean_D"], tensors["m2_D"])
        except (SafetensorError, KeyError, OSError) as error:
            raise DamagedError(f"{self.path / STATISTICS} cannot be read: {error}.", hint=_REDO) from error

    def read(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Rows ``start`` to ``stop`` as [stop - start, W].

        Args:
            start: first row.
            stop: one past the last row.
            out: where to write them; values are cast to its dtype. Without it a new tensor of :attr:`dtype`.

        Raises:
            InputError: if the range is not inside the store.
        """
        check_range(start, stop, self.num_rows)
        rows_NW = torch.empty(stop - start, self.width, dtype=self.dtype) if out is None else out
        for shard, first, last, offset in self._spans(start, stop):
            self._mapped(shard).copy_to(rows_NW[offset : offset + last - first], first, last)
        return rows_NW

    def provenance(self, start: int, stop: int) -> RowOrigin:
        """Document, position, token id and context of rows ``start`` to ``stop``.

        Raises:
            InputError: if the range is not inside the store.
        """
        check_range(start, stop, self.num_rows)
        index = np.empty((stop - start, 4), np.int32)
        for shard, first, last, offset in self._spans(start, stop):
            file = self._present(index_file(self.path, shard))
            part = np.fromfile(file, np.int32, count=4 * (last - first), offset=INDEX_BYTES * first)
            index[offset : offset + last - first] = part.reshape(-1, 4)
        return RowOrigin(*(np.ascontiguousarray(index[:, column]) for column in range(4)))

    def delete(self) -> None:
        """Remove the store from disk. Maps that are open elsewhere stay readable until closed."""
        self._shards = {}
        (self.path / MANIFEST).unlink(missing_ok=True)  # first: a half-deleted store must not look complete
        shutil.rmtree(self.path, ignore_errors=True)

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """(shard, first row in it, one past the last, offset in the result) for a range of rows."""
        shard_rows, row = int(self.manifest["shard_rows"]), start
        while row < stop:
            shard, first = divmod(row, shard_rows)
            last = min(shard_rows, first + stop - row)
            yield shard, first, last, row - start
            row += last - first

    def _mapped(self, shard: int) -> MappedShard:
        if shard not in self._shards:
            for part in self.row_format.files(self.path, shard, self.width)[:-1]:  # the index is not mapped
                self._present(part.path)
            rows = int(self.manifest["shards"][shard]["rows"])
            self._shards[shard] = MappedShard(self.path, shard, rows, self.width, self.row_format)
        return self._shards[shard]

    def _present(self, file: Path) -> Path:
        """A file that is about to be read; stores whose files come from elsewhere get it first."""
        return file

    def _check_files(self, verify: bool) -> None:
        expected: list[tuple[Path, int | None, str, bool]]
        expected = [(self.path / STATISTICS, None, self.manifest["statistics_sha256"], True)]
        for number, shard in enumerate(self.manifest["shards"]):
            rows = int(shard["rows"])
            for part in self.row_format.files(self.path, number, self.width):
                expected.append((part.path, rows * part.row_bytes, shard[f"{part.kind}_sha256"], verify))
        for file, size, digest, check_digest in expected:
            if not file.is_file():
                raise DamagedError(f"The activation store {self.path} is damaged: {file.name} is missing.", hint=_REDO)
            found = file.stat().st_size
            if size is not None and found != size:
                raise DamagedError(
                    f"The activation store {self.path} is damaged: {file.name} has {found:,} bytes, not {size:,}.",
                    hint=_REDO,
                )
            if check_digest and digest_file(file) != digest:
                raise DamagedError(
                    f"The activation store {self.path} is damaged: {file.name} was changed (its digest differs).",
                    hint=_REDO,
                )


_REDO = "Delete the folder and harvest again."


def read_manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        if (folder / JOURNAL).is_file():
            raise DamagedError(
                f"The activation store {folder} is incomplete: its harvest was interrupted.",
                hint="Harvest again with the same settings; it continues where it stopped.",
            )
        raise InputError(f"There is no activation store in {folder} ({MANIFEST} is missing).")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise MismatchError(f"{folder} is not an activation store: its format is {found!r}, not {FORMAT!r}.")
    if manifest.get("version") not in VERSIONS:
        raise MismatchError(
            f"The activation store {folder} has format version {manifest.get('version')!r}; this NeuronMap reads"
            f" versions {', '.join(map(str, VERSIONS))}.",
            hint="Harvest again, or use the NeuronMap version that wrote it.",
        )
    if manifest.get("complete") is not True:
        raise DamagedError(f"The activation store {folder} is incomplete (its manifest says so).", hint=_REDO)
    if seal(manifest) != manifest:
        raise DamagedError(f"The activation store {folder} is damaged: {MANIFEST} was changed.", hint=_REDO)
    return manifest


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


@dataclass(frozen=True)
class StoreEntry:
    """One folder of the activation cache.

    Attributes:
        path: the folder.
        bytes_on_disk: its size.
        store: the opened store, or None if it cannot be used.
        problem: why not; empty for a good store.
    """

    path: Path
    bytes_on_disk: int
    store: ActivationStore | None
    problem: str


def list_stores(root: str | Path | None = None) -> list[StoreEntry]:
    """Every activation store under ``root`` (default: the cache), unfinished and damaged ones included, by name."""
    folder = Path(root) if root is not None else cache_folder("activations")
    entries = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not (path / MANIFEST).is_file() and not (path / JOURNAL).is_file():
            continue
        try:
            store, problem = ActivationStore.open(path), ""
        except NeuronMapError as error:
            store, problem = None, error.message
        entries.append(StoreEntry(path, _folder_bytes(path), store, problem))
    return entries
