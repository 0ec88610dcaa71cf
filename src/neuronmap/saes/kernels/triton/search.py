"""The search for the largest entries, over blocks of features: lists, bounds and what is launched.

Shapes: B rows, W features of a block, K = k, N entries of a code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.triton import batch, rows
from neuronmap.saes.kernels.triton.tiles import launch, list_tile
from neuronmap.saes.workspace import Workspace

__all__ = ["TopK", "TopOfBatch", "bits_of"]

RANK_COLUMNS = 1024
"""Rows whose kept entries are added up together."""


class TopK:
    """The running search for the k largest of each row, over blocks of features in order.

    Args:
        workspace: where lists live.
        num_rows: B.
        k: entries a row keeps at most; at least 1.
        like: a tensor of the precision and device of the values.
    """

    def __init__(self, workspace: Workspace, num_rows: int, k: int, like: Tensor) -> None:
        get = workspace.get
        self._get, self._rows, self._k, self._like = get, num_rows, k, like
        self._best, self._next = (
            (
                get(f"triton.best.{turn}", (num_rows, k), like.dtype),
                get(f"triton.best.{turn}", (num_rows, k), torch.int32),
                get(f"triton.best.count.{turn}", (num_rows,), torch.int32),
            )
            for turn in (0, 1)
        )
        self._bound_B = get("triton.bound", (num_rows,), like.dtype).zero_()
        self._best[2].zero_()

    def add(self, pre_BW: Tensor, bias_W: Tensor, first: int) -> None:
        """Take in a block: product [B, W] without bias, bias [W], and its first feature."""
        listed = _collect(self._get, pre_BW, bias_W, self._bound_B, 1, first)
        tile = list_tile(self._rows, pre_BW.shape[1])
        rows.merge[tile.grid(self._rows)](
            *self._best, *listed, *self._next, self._bound_B, self._rows, pre_BW.shape[1], self._k, bits_of(pre_BW),
            **tile.settings,
        )  # fmt: skip
        self._best, self._next = self._next, self._best

    def code(self, num_features: int) -> SparseCode:
        """What was found, padded."""
        offset_R = torch.zeros(self._rows + 1, dtype=torch.int64, device=self._like.device)
        torch.cumsum(self._best[2], 0, out=offset_R[1:])
        row_N, feature_N, value_N = _room(self._rows, self._rows * self._k, self._like)
        if self._rows:
            tile = list_tile(self._rows, self._k)
            rows.pack[tile.grid(self._rows)](
                *self._best, offset_R, value_N, feature_N, row_N, self._rows, self._k, **tile.settings
            )
        return SparseCode(row_N, feature_N, value_N, offset_R, num_features, padded=True)


class TopOfBatch:
    """The running search for the largest of the batch, over blocks of features in order.

    Args:
        workspace: where lists live.
        num_rows: B.
        count: entries the batch keeps at most.
        like: a tensor of the precision and device of the values.
    """

    def __init__(self, workspace: Workspace, num_rows: int, count: int, like: Tensor) -> None:
        get = workspace.get
        self._get, self._rows, self._count, self._like = get, num_rows, count, like
        self._bound_1 = get("triton.bound", (1,), like.dtype).zero_()
        self._digits = batch.digits(bits_of(like))
        self._states = get("triton.state", (len(self._digits) + 1, 2), torch.int64)
        self._states[0, 0].zero_()
        self._states[0, 1].fill_(count)
        self._histograms = get("triton.histogram", (len(self._digits), batch.COPIES, batch.BINS), torch.int32)
        self._offset_R = torch.zeros(num_rows + 1, dtype=torch.int64, device=like.device)
        self._best = _room(num_rows, count, like)

    def add(self, pre_BW: Tensor, bias_W: Tensor, first: int) -> None:
        """Take in a block: product [B, W] without bias, bias [W], and its first feature."""
        value_BW, feature_BW, count_B = _collect(self._get, pre_BW, bias_W, self._bound_1, 0, first)
        num_rows, width, bits = self._rows, pre_BW.shape[1], bits_of(pre_BW)
        _, best_feature_N, best_value_N = self._best
        lists = (best_value_N, self._offset_R, value_BW, count_B)
        self._histograms.zero_()
        tile = list_tile(num_rows, width)
        for index, (shift, digit) in enumerate(self._digits):
            state, histogram, next_state = self._states[index], self._histograms[index], self._states[index + 1]
            launch(
                batch.tally, tile.grid(num_rows), *lists, state, histogram, num_rows, width, shift, digit, bits, batch.COPIES,
                **tile.settings,
            )  # fmt: skip
            launch(batch.narrow, (1,), state, histogram, next_state, self._bound_1, shift, bits, batch.COPIES)
        cut = self._states[-1]
        above_B, tied_B, room_B = (
            self._get(f"triton.{name}", (num_rows,), torch.int32) for name in ("above", "tied", "room")
        )
        launch(batch.count, tile.grid(num_rows), *lists, cut, above_B, tied_B, num_rows, width, bits, **tile.settings)
        offset_R, out = torch.empty_like(self._offset_R), _room(num_rows, self._count, self._like)
        launch(batch.rank, (1,), above_B, tied_B, cut, room_B, offset_R, num_rows, COLUMNS=RANK_COLUMNS)
        row_N, feature_N, value_N = out
        launch(batch.write, tile.grid(num_rows),
            best_value_N, best_feature_N, self._offset_R, value_BW, feature_BW, count_B, cut, room_B,
            offset_R, value_N, feature_N, row_N, num_rows, width, bits, **tile.settings,
        )  # fmt: skip
        self._offset_R, self._best = offset_R, out

    def code(self, num_features: int) -> SparseCode:
        """What was found, padded."""
        return SparseCode(*self._best, self._offset_R, num_features, padded=True)


def _collect(
    get: Any, pre_BW: Tensor, bias_W: Tensor, bound: Tensor, bound_stride: int, first: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Values and features [B, W] above the bound, listed row by row, and their number in each row."""
    num_rows, width = pre_BW.shape
    value_BW = get("triton.list", (num_rows, width), pre_BW.dtype)
    feature_BW = get("triton.list", (num_rows, width), torch.int32)
    count_B = get("triton.list.count", (num_rows,), torch.int32)
    tile = list_tile(num_rows, width)
    launch(
        rows.collect,
        tile.grid(num_rows),
        pre_BW,
        bias_W,
        bound,
        value_BW,
        feature_BW,
        count_B,
        num_rows,
        width,
        first,
        bound_stride,
        **tile.settings,
    )
    return value_BW, feature_BW, count_B


def _room(num_rows: int, count: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, features and values of so many entries, all padding. Fresh tensors: a code outlives the step's buffers."""
    row_N = torch.full((count,), max(num_rows - 1, 0), dtype=torch.int32, device=like.device)
    return row_N, torch.zeros_like(row_N), torch.zeros(count, dtype=like.dtype, device=like.device)


def bits_of(tensor: Tensor) -> int:
    """Bits of a positive number's pattern: all but the sign."""
    return tensor.dtype.itemsize * 8 - 1
