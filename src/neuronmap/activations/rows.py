"""Rows to train on and measure: what every source of activations offers, and one kept in memory.

Shape legend: N rows, D width of a row (d_in).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap.errors import InputError
from neuronmap.hashing import digest_parts

__all__ = ["ArrayRows", "RowSource", "RowStatistics", "statistics_of"]

CHUNK_ROWS = 4096
"""Rows summed at once. Fixed, because another split would change the last bits of the sums."""


@dataclass(frozen=True, eq=False)
class RowStatistics:
    """Mean and spread of rows in float64; parts of a data set merge exactly (Chan, Golub and LeVeque 1979).

    Attributes:
        rows: number of rows N.
        mean_D: float64 [D], the mean row.
        m2_D: float64 [D], sum over rows of the squared distance from the mean.
    """

    rows: int
    mean_D: Tensor
    m2_D: Tensor

    @classmethod
    def empty(cls, width: int) -> RowStatistics:
        """Statistics of no rows; merging with it changes nothing."""
        zero_D = torch.zeros(width, dtype=torch.float64)
        return cls(0, zero_D, zero_D.clone())

    @property
    def variance_D(self) -> Tensor:  # noqa: N802 (shape suffix)
        """float64 [D]: population variance of each dimension (0 when there are no rows)."""
        return self.m2_D / max(self.rows, 1)

    @property
    def mean_square_norm(self) -> float:
        """E|x|² over the rows (sum over D, so about D for rows of unit variance)."""
        return float((self.variance_D + self.mean_D.square()).sum())

    def merge(self, other: RowStatistics) -> RowStatistics:
        """Statistics of both sets of rows together."""
        if self.rows == 0 or other.rows == 0:
            return other if self.rows == 0 else self
        total = self.rows + other.rows
        step_D = other.mean_D - self.mean_D
        mean_D = self.mean_D + step_D * (other.rows / total)
        m2_D = self.m2_D + other.m2_D + step_D.square() * (self.rows * other.rows / total)
        return RowStatistics(total, mean_D, m2_D)


def statistics_of(pieces: Iterable[Tensor], width: int) -> RowStatistics:
    """Statistics of rows that come in pieces, through one preallocated float64 buffer.

    Args:
        pieces: tensors [n, D] of any float dtype; each is cut into chunks of 4,096 rows from its own start.
        width: D.

    Returns:
        The merged statistics; the same pieces give the same bits.
    """
    buffer_CD = torch.empty(CHUNK_ROWS, width, dtype=torch.float64)
    total = RowStatistics.empty(width)
    for piece_ND in pieces:
        for start in range(0, piece_ND.shape[0], CHUNK_ROWS):
            chunk_ND = piece_ND[start : start + CHUNK_ROWS]
            x_CD = buffer_CD[: chunk_ND.shape[0]]
            x_CD.copy_(chunk_ND)
            mean_D = x_CD.mean(0)
            m2_D = x_CD.sub_(mean_D).square_().sum(0)
            total = total.merge(RowStatistics(chunk_ND.shape[0], mean_D, m2_D))
    return total


class RowSource(Protocol):
    """A finite, randomly readable set of activation rows: a store on disk or an array in memory."""

    @property
    def width(self) -> int:
        """D, the length of a row."""

    @property
    def num_rows(self) -> int:
        """N."""

    @property
    def digest(self) -> str:
        """What the rows are: equal digests mean the same rows in the same order."""

    @property
    def dtype(self) -> torch.dtype:
        """How rows are kept (and what ``read`` returns without ``out``)."""

    @property
    def statistics(self) -> RowStatistics:
        """Mean, variance and mean square norm of all rows."""

    def read(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Rows ``start`` to ``stop`` as [stop - start, D], written (and cast) into ``out`` if given."""


class ArrayRows:
    """Activation rows you already have, as a :class:`RowSource`.

    Args:
        rows_ND: a torch tensor or numpy array [N, D] of real numbers. float16, bfloat16 and float32 are used
            where they lie (do not change them afterwards); other types are converted to float32.

    Raises:
        InputError: if it is not a non-empty matrix of finite real numbers.

    Example:
        >>> import torch
        >>> rows = ArrayRows(torch.ones(4, 3))
        >>> rows.width, rows.num_rows, rows.statistics.mean_square_norm
        (3, 4, 3.0)
    """

    def __init__(self, rows_ND: Tensor | npt.NDArray[Any]) -> None:
        self._rows_ND = _checked(rows_ND)

    @property
    def width(self) -> int:
        return self._rows_ND.shape[1]

    @property
    def num_rows(self) -> int:
        return self._rows_ND.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self._rows_ND.dtype

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, dtype and every value."""
        head = f"rows {self.num_rows} {self.width} {self.dtype}".encode()
        pieces = (self._rows_ND[start : start + CHUNK_ROWS] for start in range(0, self.num_rows, CHUNK_ROWS))
        return digest_parts(chain([head], (piece_ND.view(torch.uint8).numpy().tobytes() for piece_ND in pieces)))

    @cached_property
    def statistics(self) -> RowStatistics:
        return statistics_of([self._rows_ND], self.width)

    def read(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Rows ``start`` to ``stop`` as a new tensor [stop - start, D], or copied and cast into ``out``.

        Raises:
            InputError: if the range is not inside the rows.
        """
        check_range(start, stop, self.num_rows)
        rows_ND = self._rows_ND[start:stop]
        return rows_ND.clone() if out is None else out.copy_(rows_ND)


def check_range(start: int, stop: int, num_rows: int) -> None:
    """Raise InputError unless 0 <= start <= stop <= num_rows."""
    if not 0 <= start <= stop <= num_rows:
        raise InputError(f"Rows {start} to {stop} were asked for, but there are rows 0 to {num_rows}.")


def _checked(rows: Tensor | npt.NDArray[Any]) -> Tensor:
    if isinstance(rows, np.ndarray):
        if rows.dtype.kind not in "fiub":
            raise InputError(f"Activation rows must be real numbers; the array has dtype {rows.dtype}.")
        if rows.dtype not in (np.float16, np.float32) or not rows.flags.writeable or not rows.dtype.isnative:
            rows = rows.astype(np.float32)
        tensor_ND = torch.from_numpy(np.ascontiguousarray(rows))
    elif isinstance(rows, Tensor):
        tensor_ND = rows.detach()
        if tensor_ND.is_complex() or tensor_ND.layout is not torch.strided:
            raise InputError(f"Activation rows must be dense real numbers; got {tensor_ND.dtype}, {tensor_ND.layout}.")
        if tensor_ND.dtype not in (torch.float16, torch.bfloat16, torch.float32):
            tensor_ND = tensor_ND.float()
        tensor_ND = tensor_ND.cpu().contiguous()
    else:
        raise InputError(
            f"Activation rows must be a torch tensor or a numpy array; got {type(rows).__name__}.",
            hint="Convert with torch.as_tensor(rows) or numpy.asarray(rows).",
        )
    if tensor_ND.ndim != 2:
        raise InputError(
            f"Activation rows must be a matrix [rows, width]; got shape {tuple(tensor_ND.shape)}.",
            hint="Flatten contexts first: rows.reshape(-1, width).",
        )
    if tensor_ND.numel() == 0:
        raise InputError(f"There are no activation rows: the shape is {tuple(tensor_ND.shape)}.")
    _refuse_non_finite(tensor_ND)
    return tensor_ND


def _refuse_non_finite(rows_ND: Tensor) -> None:
    bad_rows, first = 0, -1
    for start in range(0, rows_ND.shape[0], CHUNK_ROWS):
        bad_N = ~rows_ND[start : start + CHUNK_ROWS].isfinite().all(1)
        count = int(bad_N.sum())
        if count and first < 0:
            first = start + int(bad_N.int().argmax())
        bad_rows += count
    if bad_rows:
        raise InputError(
            f"{bad_rows:,} of {rows_ND.shape[0]:,} activation rows hold NaN or infinity; the first is row {first}.",
            hint="Compute the activations in float32, or drop those rows.",
        )
