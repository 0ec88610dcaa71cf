"""How work is cut into tiles of rows and columns.

On a GPU a program takes one row, or a few short ones, and many programs run at a time. Triton's interpreter runs them one after the
other, each operation a call of NumPy, so there a program takes many rows. What is computed is the same, bit for bit, since
no sum goes across rows.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from neuronmap.saes.kernels.triton.runtime import interpreted

__all__ = ["Tile", "group_tile", "launch", "list_tile", "row_tile", "slice_tile", "vector_tile"]

INTERPRETED = interpreted()
"""As it was when the kernels were made: Triton decides when a kernel is defined."""
INTERPRETED_ROWS, INTERPRETED_COLUMNS, INTERPRETED_ENTRIES = 2048, 8192, 2**15
LIST_COLUMNS = 512
"""Candidates looked at together: 16 for each lane of a warp."""
GROUPS = 128
"""Groups of features that a program looks at: of 32 features each, eight loads of 16 bytes are then under way in each lane."""
SLICE_COLUMNS, LINE_BYTES = 256, 512
"""Of a slice, and what the lanes of a warp load at a time. 65,536 rows of a slice in bfloat16 are 32 MiB: they fit an H100's cache."""
ROW_COLUMNS = 2048
"""Of a row that is kept in registers while it is searched."""
VECTOR_ELEMENTS, ELEMENTS_PER_WARP, MOST_WARPS = 2048, 512, 16
"""Numbers of a tile of vectors, at least: two loads of 16 bytes are then under way in each lane."""
MOST_ROWS = 4
"""Of a tile of vectors; Triton 3.7.1 fails to compile the decode for 32."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns of a program, both powers of two, its warps, and entries of each row where it has any."""

    rows: int
    columns: int
    warps: int
    entries: int | None = None

    def grid(self, rows: int) -> tuple[int]:
        """Programs that cover so many rows."""
        return (-(-rows // self.rows),)

    @property
    def settings(self) -> dict[str, Any]:
        """As keyword arguments of a kernel."""
        entries = {} if self.entries is None else {"ENTRIES": self.entries}
        return {"ROWS": self.rows, "COLUMNS": self.columns, "num_warps": self.warps, **entries}


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **settings: Any) -> None:
    """Start a kernel on the device of its first argument, whichever device is current."""
    device: torch.device = arguments[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*arguments, **settings)


def group_tile(rows: int, groups: int) -> Tile:
    """For groups of features that are each reduced to one number; columns are groups."""
    if INTERPRETED:
        return Tile(min(_power_of_two(rows), 64), min(_power_of_two(groups), 256), 1)
    return Tile(1, GROUPS, 4)


def slice_tile(rows: int, entries: int, width: int, itemsize: int) -> Tile:
    """For entries of rows (or features) times a slice of the width.

    On a GPU the slice is narrow, and programs go through all rows of one slice before they come to the next: that slice of the
    table they gather from then stays in the cache. The lanes hold 16 bytes of one entry each: sums over entries stay within lanes.
    """
    if INTERPRETED:
        most = max(INTERPRETED_ENTRIES // max(_power_of_two(width), 16), 1)
        return Tile(min(_power_of_two(rows), most), max(_power_of_two(width), 16), 1, entries=entries)
    columns = min(max(_power_of_two(width), 16), SLICE_COLUMNS)
    return Tile(1, columns, max(columns * itemsize // LINE_BYTES, 1), entries=entries)


def row_tile(rows: int, width: int) -> Tile:
    """For rows that are held in registers while they are searched; a warp a row, so that counting needs no barrier."""
    if INTERPRETED:
        return list_tile(rows, width)
    return Tile(1, min(max(_power_of_two(width), 32), ROW_COLUMNS), 1)


def list_tile(rows: int, width: int, most: int = LIST_COLUMNS) -> Tile:
    """For rows that are searched from left to right; a warp a row, so that counting needs no barrier."""
    if INTERPRETED:
        return Tile(min(_power_of_two(rows), INTERPRETED_ROWS), min(_power_of_two(width), INTERPRETED_COLUMNS), 1)
    return Tile(1, min(max(_power_of_two(width), 32), most), 1)


def vector_tile(rows: int, width: int) -> Tile:
    """For rows that are held whole, in registers."""
    columns = max(_power_of_two(width), 16)
    if INTERPRETED:
        return Tile(min(_power_of_two(rows), INTERPRETED_ROWS), columns, 1)
    each = min(max(1, VECTOR_ELEMENTS // columns), MOST_ROWS)
    return Tile(each, columns, min(max(each * columns // ELEMENTS_PER_WARP, 1), MOST_WARPS))


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()
