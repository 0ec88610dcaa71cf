"""How rows lie in the files of one shard.

    rows-00000.bin     the values [rows, W], little-endian: float32, float16, bfloat16 or int8
    scales-00000.bin   float32 [rows], with int8 only
    index-00000.bin    int32 [rows, 4]: document, position, token id, context

An int8 row keeps one scale: the largest of its absolute values over 127, so a value is off by half a scale at most and the row's
largest value by float32 rounding only. Zero is kept exactly. What that costs is measured in docs/how-to/store-large-corpora.md.

Shape legend: N rows, W width of the hook.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["FORMATS", "INDEX_BYTES", "MappedShard", "RowFormat", "ShardFile", "index_file", "rows_file", "scales_file"]

INDEX_BYTES = 16
"""Four int32 a row."""
SCALE_BYTES = 4
_INT8_MAX = 127
_NUMPY_VIEWS: dict[torch.dtype, type[np.generic]] = {  # numpy has no bfloat16: map the bits
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: np.int16,
    torch.int8: np.int8,
}


def rows_file(folder: Path, shard: int) -> Path:
    """File of one shard's values."""
    return folder / f"rows-{shard:05d}.bin"


def scales_file(folder: Path, shard: int) -> Path:
    """File of one shard's scales, where rows have them."""
    return folder / f"scales-{shard:05d}.bin"


def index_file(folder: Path, shard: int) -> Path:
    """File of one shard's row origins."""
    return folder / f"index-{shard:05d}.bin"


@dataclass(frozen=True)
class ShardFile:
    """One file of a shard.

    Attributes:
        kind: ``rows``, ``scales`` or ``index``; its digest is ``<kind>_sha256`` in the manifest.
        path: where it lies.
        row_bytes: bytes of each row.
    """

    kind: str
    path: Path
    row_bytes: int


@dataclass(frozen=True)
class RowFormat:
    """One way to store rows.

    Attributes:
        name: what users call it (``store_dtype``).
        values: dtype of the stored values.
        read_as: dtype in which rows are read when the reader does not choose.
        scaled: whether each row has a scale.
        version: first version of the store's format that has it.
    """

    name: str
    values: torch.dtype
    read_as: torch.dtype
    scaled: bool = False
    version: int = 1

    def row_bytes(self, width: int) -> int:
        """Bytes of a row on disk, its origin included."""
        return width * self.values.itemsize + SCALE_BYTES * self.scaled + INDEX_BYTES

    def files(self, folder: Path, shard: int, width: int) -> list[ShardFile]:
        """The shard's files, in the order in which :meth:`encode` gives their content; the index comes last."""
        found = [ShardFile("rows", rows_file(folder, shard), width * self.values.itemsize)]
        if self.scaled:
            found.append(ShardFile("scales", scales_file(folder, shard), SCALE_BYTES))
        return [*found, ShardFile("index", index_file(folder, shard), INDEX_BYTES)]

    def encode(self, rows_NW: Tensor) -> list[Tensor]:
        """Rows of any float dtype as they are stored, on their device: [values [N, W]], or [values, float32 scales [N]]."""
        if not self.scaled:
            return [rows_NW.to(self.values)]
        x_NW = rows_NW.float()
        scale_N = x_NW.abs().amax(1) / _INT8_MAX
        whole_NW = (x_NW / scale_N.masked_fill(scale_N == 0, 1.0).unsqueeze(1)).round_()
        return [whole_NW.clamp_(-_INT8_MAX, _INT8_MAX).to(torch.int8), scale_N]

    def rounded(self, rows_NW: Tensor) -> Tensor:
        """The rows as they would be read back, float32 [N, W]."""
        values_NW, *scales = self.encode(rows_NW)
        return values_NW.float() * scales[0].unsqueeze(1) if scales else values_NW.float()


FORMATS = {
    made.name: made
    for made in (
        RowFormat("float32", torch.float32, torch.float32),
        RowFormat("float16", torch.float16, torch.float16),
        RowFormat("bfloat16", torch.bfloat16, torch.bfloat16),
        RowFormat("int8", torch.int8, torch.float32, scaled=True, version=2),
    )
}
"""Every way to store rows, by name."""


class MappedShard:
    """A shard's rows over its mapped files (private pages: writing cannot reach the disk).

    Args:
        folder: the store's folder.
        shard: its number.
        rows: its rows.
        width: W.
        row_format: how they are stored.
    """

    def __init__(self, folder: Path, shard: int, rows: int, width: int, row_format: RowFormat) -> None:
        self.rows = rows
        self._format = row_format
        mapped = np.memmap(
            rows_file(folder, shard), dtype=_NUMPY_VIEWS[row_format.values], mode="c", shape=(rows, width)
        )
        values_NW = torch.from_numpy(mapped)
        self._values_NW = values_NW.view(torch.bfloat16) if row_format.values == torch.bfloat16 else values_NW
        self._scale_N: Tensor | None = None
        if row_format.scaled:
            self._scale_N = torch.from_numpy(
                np.memmap(scales_file(folder, shard), dtype=np.float32, mode="c", shape=(rows,))
            )

    def copy_to(self, out_NW: Tensor, first: int, last: int) -> None:
        """Rows ``first`` to ``last`` of the shard into ``out_NW``, cast to its dtype."""
        out_NW.copy_(self._values_NW[first:last])
        if self._scale_N is not None:
            out_NW.mul_(self._scale_N[first:last].to(out_NW.device).unsqueeze(1))

    def read(self, first: int, last: int) -> Tensor:
        """Rows ``first`` to ``last`` in the dtype in which they are read: a view of the map, or float32 of scaled rows."""
        if self._scale_N is None:
            return self._values_NW[first:last]
        out_NW = torch.empty(last - first, self._values_NW.shape[1], dtype=self._format.read_as)
        self.copy_to(out_NW, first, last)
        return out_NW
