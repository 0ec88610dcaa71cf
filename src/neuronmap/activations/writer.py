"""Writing one activation store so that a kill at any moment costs seconds of work and never a wrong byte.

Rows are appended to the current shard; every few seconds the journal is replaced atomically, after the data it
speaks of has been synced. To continue, files are cut back to what the journal vouches for. Digests and statistics
of a finished shard are a pure function of its bytes: they are kept beside it as ``record-00000.json`` and made
again if lost, so an interrupted harvest ends with the same manifest as an uninterrupted one.

Shape legend: N rows, W width of the hook, D = W.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor

from neuronmap.activations.rows import CHUNK_ROWS, RowStatistics, statistics_of
from neuronmap.activations.shards import FORMATS, MappedShard, ShardFile
from neuronmap.activations.store import FORMAT, JOURNAL, MANIFEST, STATISTICS, VERSIONS, seal
from neuronmap.errors import DamagedError, DiskSpaceError, UnwritablePathError
from neuronmap.hashing import digest_bytes, digest_file, digest_json
from neuronmap.paths import new_folder, read_json, write_bytes, write_json

__all__ = ["StoreWriter"]

JOURNAL_SECONDS = 10.0
"""Most work lost to a SIGKILL."""


def write_fully(file: FileIO, data: memoryview) -> None:
    """Write all bytes (the one place where row data reaches the disk)."""
    done = 0
    while done < len(data):
        done += file.write(data[done:])


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(folder) from error
        raise UnwritablePathError(f"Cannot write activations to {folder}: {error.strerror or error}.") from error
    except DiskSpaceError as error:
        raise _full(folder) from error


def _full(folder: Path) -> DiskSpaceError:
    return DiskSpaceError(
        f"The disk is full: activations could not be written to {folder}. What was stored before is kept.",
        hint="Free disk space and run the same command again; it continues where it stopped.",
    )


class StoreWriter:
    """Appends rows to one store that is being harvested; holds its journal.

    Attributes:
        folder: the store's folder.
        journal: the state on disk as last saved plus what was committed since; plain JSON types.
    """

    def __init__(self, folder: Path, journal: dict[str, Any]) -> None:
        self.folder = folder
        self.journal = journal
        self._format = FORMATS[journal["dtype"]]
        self._written = int(journal["num_rows"])
        self._files: list[FileIO] | None = None
        self._row_bytes = [part.row_bytes for part in self._shard_files(0)]
        self._saved_at = time.monotonic()

    @classmethod
    def start(cls, folder: Path, facts: dict[str, Any]) -> Self:
        """Begin an empty store.

        Args:
            folder: its folder; whatever lies there is removed.
            facts: the manifest's fixed part (key, model, hook, width, dtype, shard_rows, ...).
        """
        if folder.exists():
            shutil.rmtree(folder)
        new_folder(folder)
        begun = {"format": FORMAT, "version": FORMATS[facts["dtype"]].version, **facts}
        journal = {**begun, "contexts_done": 0, "num_rows": 0, "dropped": {}}
        writer = cls(folder, journal)
        writer.save()
        return writer

    @classmethod
    def resume(cls, folder: Path, key: str) -> Self | None:
        """Continue an interrupted store, cutting its files back to the journal; None if there is nothing usable.

        Raises:
            DamagedError: if the journal is there but the data it vouches for is not.
        """
        if not (folder / JOURNAL).is_file():
            return None
        journal = read_json(folder / JOURNAL)
        if not isinstance(journal, dict) or journal.get("version") not in VERSIONS or journal.get("key") != key:
            return None
        writer = cls(folder, journal)
        with _disk_errors(folder):
            writer._cut_back()
        return writer

    @property
    def contexts_done(self) -> int:
        """Contexts whose rows are all written."""
        return int(self.journal["contexts_done"])

    @property
    def num_rows(self) -> int:
        """Rows of those contexts."""
        return int(self.journal["num_rows"])

    def append(self, encoded: Sequence[Tensor], index: npt.NDArray[np.int32]) -> None:
        """Write N rows and their origins.

        Args:
            encoded: what the store's row format made of the rows: values [N, W] and, for int8, scales [N]; CPU, contiguous.
            index: origins int32 [N, 4].

        Raises:
            DiskSpaceError: if the disk is full; the store stays continuable.
        """
        parts = [tensor.reshape(-1).view(torch.uint8).numpy().data for tensor in encoded]
        parts.append(np.ascontiguousarray(index).reshape(-1).view(np.uint8).data)
        shard_rows, done, count = int(self.journal["shard_rows"]), 0, index.shape[0]
        with _disk_errors(self.folder):
            while done < count:
                shard, used = divmod(self._written, shard_rows)
                take = min(shard_rows - used, count - done)
                for file, part, size in zip(self._open(shard), parts, self._row_bytes, strict=True):
                    write_fully(file, part[done * size : (done + take) * size])
                self._written += take
                done += take
                if self._written % shard_rows == 0:
                    self._sync()
                    self._close()
                    self._record(shard)

    def commit(self, contexts_done: int, dropped: dict[str, int]) -> None:
        """All rows of the contexts before ``contexts_done`` are written; save the journal if it is time."""
        counts = self.journal["dropped"]
        counts = {reason: counts.get(reason, 0) + count for reason, count in dropped.items()}
        # one assignment: Ctrl-C between two would leave counts and rows of different contexts
        self.journal = {
            **self.journal,
            "contexts_done": contexts_done,
            "num_rows": self._written,
            "dropped": counts,
        }
        if time.monotonic() - self._saved_at >= JOURNAL_SECONDS:
            self.save()

    def save(self) -> None:
        """Put the journal on disk, after the data it speaks of.

        Raises:
            DiskSpaceError: if there is no room even for that; the journal before it stays valid.
        """
        with _disk_errors(self.folder):
            self._sync()
            write_json(self.folder / JOURNAL, self.journal)
        self._saved_at = time.monotonic()

    def finish(self) -> None:
        """Write statistics and manifest: the store is complete."""
        with _disk_errors(self.folder):
            self._sync()
            self._close()
            shard_rows, total = int(self.journal["shard_rows"]), RowStatistics.empty(int(self.journal["width"]))
            shards = []
            for shard in range(-(-self.num_rows // shard_rows)):
                record = self._record(shard)
                shards.append({name: value for name, value in record.items() if name not in ("mean_D", "m2_D")})
                moments = (torch.tensor(record[name], dtype=torch.float64) for name in ("mean_D", "m2_D"))
                total = total.merge(RowStatistics(record["rows"], *moments))
            blob = safetensors.torch.save({"mean_D": total.mean_D, "m2_D": total.m2_D})
            write_bytes(self.folder / STATISTICS, blob)
            manifest = {
                **self.journal,
                "complete": True,
                "shards": shards,
                "content_digest": digest_json(shards),
                "statistics_sha256": digest_bytes(blob),
                "mean_square_norm": total.mean_square_norm,
            }
            write_json(self.folder / MANIFEST, seal(manifest))
            remove_work_files(self.folder)

    def close(self) -> None:
        """Release the files; what was not committed is cut off when the harvest continues."""
        self._close()

    def _shard_files(self, shard: int) -> list[ShardFile]:
        return self._format.files(self.folder, shard, int(self.journal["width"]))

    def _open(self, shard: int) -> list[FileIO]:
        if self._files is None:
            self._files = [
                open(part.path, "ab", buffering=0)  # noqa: SIM115 (closed by _close when the shard is full)
                for part in self._shard_files(shard)
            ]
        return self._files

    def _sync(self) -> None:
        for file in self._files or ():
            os.fsync(file.fileno())

    def _close(self) -> None:
        files, self._files = self._files, None
        for file in files or ():
            file.close()

    def _shard_size(self, shard: int) -> int:
        shard_rows = int(self.journal["shard_rows"])
        return min(shard_rows, self._written - shard * shard_rows)

    def _record(self, shard: int) -> dict[str, Any]:
        """Digests and moments of a finished shard, from its record or from its bytes."""
        path, rows = self.folder / f"record-{shard:05d}.json", self._shard_size(shard)
        if path.is_file():
            record: dict[str, Any] = read_json(path)
            if record["rows"] == rows:
                return record
        width = int(self.journal["width"])
        mapped = MappedShard(self.folder, shard, rows, width, self._format)
        chunks = (mapped.read(at, min(at + CHUNK_ROWS, rows)) for at in range(0, rows, CHUNK_ROWS))
        moments = statistics_of(chunks, width)
        record = {
            "rows": rows,
            **{f"{part.kind}_sha256": digest_file(part.path) for part in self._shard_files(shard)},
            "mean_D": moments.mean_D.tolist(),
            "m2_D": moments.m2_D.tolist(),
        }
        write_json(path, record)
        return record

    def _cut_back(self) -> None:
        shard_rows = int(self.journal["shard_rows"])
        full, rest = divmod(self.num_rows, shard_rows)
        for shard in range(full + 1):
            rows = shard_rows if shard < full else rest
            for part in self._shard_files(shard):
                file, size = part.path, rows * part.row_bytes
                found = file.stat().st_size if file.is_file() else 0
                if found < size:
                    raise DamagedError(
                        f"The unfinished activation store {self.folder} is damaged: {file.name} has {found:,} bytes,"
                        f" its journal counts {size:,}.",
                        hint="Delete the folder and harvest again.",
                    )
                if file.is_file() and size == 0:
                    file.unlink()
                elif found > size:
                    os.truncate(file, size)
        for kind in ("rows-*.bin", "scales-*.bin", "index-*.bin", "record-*.json"):
            for file in self.folder.glob(kind):
                number = int(file.stem.rpartition("-")[2])
                if number > full or (kind.startswith("record") and number >= full):
                    file.unlink()


def remove_work_files(folder: Path) -> None:
    """Remove records and journal of a store whose manifest is written."""
    for pattern in ("record-*.json", ".*"):  # hidden: files a killed writer was about to rename into place
        for file in folder.glob(pattern):
            file.unlink()
    (folder / JOURNAL).unlink(missing_ok=True)
