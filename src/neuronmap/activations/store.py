"""The activation store: a folder of memory-mapped shards that says what it holds and refuses to be misread.

    <hook>-<digest>/
    ├── manifest.json           what the rows are, how they were made, sizes and digests; written last
    ├── statistics.safetensors  mean_D, m2_D: float64
    ├── rows-00000.bin          raw [shard rows, W], little-endian float32, float16 or bfloat16
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
from neuronmap.errors import DamagedError, InputError, MismatchError, NeuronMapError
from neuronmap.hashing import digest_file, sealed
from neuronmap.paths import cache_folder, read_json

__all__ = ["ActivationStore", "RowOrigin", "StoreEntry", "list_stores"]

FORMAT = "neuronmap-activations"
VERSION = 1
MANIFEST = "manifest.json"
JOURNAL = "journal.json"
STATISTICS = "statistics.safetensors"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
INDEX_BYTES = 16  # four int32 a row
_NUMPY_VIEWS: dict[torch.dtype, type[np.generic]] = {  # numpy has no bfloat16: map the bits
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: np.int16,
}


def rows_file(folder: Path, shard: int) -> Path:
    """File of one shard's values."""
    return folder / f"rows-{shard:05d}.bin"


def index_file(folder: Path, shard: int) -> Path:
    """File of one shard's row origins."""
    return folder / f"index-{shard:05d}.bin"


def map_rows(path: Path, rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """A shard's values [rows, W] as a tensor over the mapped file (private pages: writing cannot reach the disk)."""
    mapped = np.memmap(path, dtype=_NUMPY_VIEWS[dtype], mode="c", shape=(rows, width))
    tensor = torch.from_numpy(mapped)
    return tensor.view(torch.bfloat16) if dtype == torch.bfloat16 else tensor


def seal(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with a digest over itself, so that a changed number is noticed."""
    return sealed(manifest, "manifest_digest")


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
        self._shards: list[Tensor] | None = None

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
        store = cls(folder, _read_manifest(folder))
        store._check_files(verify)
        return store

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
        """How values are stored."""
        return DTYPES[self.manifest["dtype"]]

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
            out: where to write them; values are cast to its dtype. Without it a new tensor in the stored dtype.

        Raises:
            InputError: if the range is not inside the store.
        """
        check_range(start, stop, self.num_rows)
        rows_NW = torch.empty(stop - start, self.width, dtype=self.dtype) if out is None else out
        shards = self._mapped()
        for shard, first, last, offset in self._spans(start, stop):
            rows_NW[offset : offset + last - first].copy_(shards[shard][first:last])
        return rows_NW

    def provenance(self, start: int, stop: int) -> RowOrigin:
        """Document, position, token id and context of rows ``start`` to ``stop``.

        Raises:
            InputError: if the range is not inside the store.
        """
        check_range(start, stop, self.num_rows)
        index = np.empty((stop - start, 4), np.int32)
        for shard, first, last, offset in self._spans(start, stop):
            file = index_file(self.path, shard)
            part = np.fromfile(file, np.int32, count=4 * (last - first), offset=INDEX_BYTES * first)
            index[offset : offset + last - first] = part.reshape(-1, 4)
        return RowOrigin(*(np.ascontiguousarray(index[:, column]) for column in range(4)))

    def delete(self) -> None:
        """Remove the store from disk. Maps that are open elsewhere stay readable until closed."""
        self._shards = None
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

    def _mapped(self) -> list[Tensor]:
        if self._shards is None:
            self._shards = [
                map_rows(rows_file(self.path, number), int(shard["rows"]), self.width, self.dtype)
                for number, shard in enumerate(self.manifest["shards"])
            ]
        return self._shards

    def _check_files(self, verify: bool) -> None:
        row_bytes = self.width * self.dtype.itemsize
        expected: list[tuple[Path, int | None, str, bool]]
        expected = [(self.path / STATISTICS, None, self.manifest["statistics_sha256"], True)]
        for number, shard in enumerate(self.manifest["shards"]):
            rows = int(shard["rows"])
            expected.append((rows_file(self.path, number), rows * row_bytes, shard["rows_sha256"], verify))
            expected.append((index_file(self.path, number), rows * INDEX_BYTES, shard["index_sha256"], verify))
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


def _read_manifest(folder: Path) -> dict[str, Any]:
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
    if manifest.get("version") != VERSION:
        raise MismatchError(
            f"The activation store {folder} has format version {manifest.get('version')!r}; this NeuronMap reads"
            f" version {VERSION}.",
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
