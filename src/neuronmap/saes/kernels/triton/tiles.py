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

__all__ = ["Tile", "launch", "list_tile", "vector_tile"]

INTERPRETED = interpreted()
"""As it was when the kernels were made: Triton decides when a kernel is defined."""
INTERPRETED_ROWS, INTERPRETED_COLUMNS = 2048, 8192
LIST_COLUMNS = 512
"""Candidates looked at together: 16 for each lane of a warp."""
VECTOR_ELEMENTS, ELEMENTS_PER_WARP, MOST_WARPS = 2048, 512, 16
"""Numbers of a tile of vectors, at least: two loads of 16 bytes are then under way in each lane."""
MOST_ROWS = 4
"""Of a tile of vectors; Triton 3.7.1 fails to compile the decode for 32."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns of a program, both powers of two, and its warps."""

    rows: int
    columns: int
    warps: int

    def grid(self, rows: int) -> tuple[int]:
        """Programs that cover so many rows."""
        return (-(-rows // self.rows),)

    @property
    def settings(self) -> dict[str, Any]:
        """As keyword arguments of a kernel."""
        return {"ROWS": self.rows, "COLUMNS": self.columns, "num_warps": self.warps}


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **settings: Any) -> None:
    """Start a kernel on the device of its first argument, whichever device is current."""
    device: torch.device = arguments[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*arguments, **settings)


def list_tile(rows: int, width: int) -> Tile:
    """For rows that are searched from left to right; a warp a row, so that counting needs no barrier."""
    if INTERPRETED:
        return Tile(min(_power_of_two(rows), INTERPRETED_ROWS), min(_power_of_two(width), INTERPRETED_COLUMNS), 1)
    return Tile(1, LIST_COLUMNS, 1)


def vector_tile(rows: int, width: int) -> Tile:
    """For rows that are held whole, in registers."""
    columns = max(_power_of_two(width), 16)
    if INTERPRETED:
        return Tile(min(_power_of_two(rows), INTERPRETED_ROWS), columns, 1)
    each = min(max(1, VECTOR_ELEMENTS // columns), MOST_ROWS)
    return Tile(each, columns, min(max(each * columns // ELEMENTS_PER_WARP, 1), MOST_WARPS))


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()
