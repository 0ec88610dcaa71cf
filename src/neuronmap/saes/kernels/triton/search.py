"""The search for the largest entries, over blocks of rows or of features: lists, bounds and what is launched.

Shapes: B rows, W features of a block, K = k, N entries of a code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.triton import batch, rows
from neuronmap.saes.kernels.triton import groups as groups_of
from neuronmap.saes.kernels.triton.tiles import group_tile, launch, list_tile, row_tile
from neuronmap.saes.workspace import Workspace

__all__ = ["TopK", "TopOfBatch", "bits_of"]

GROUP = 32
"""Features of a group: 128 bytes of float32, a line of a GPU's cache."""
COLLECT_COLUMNS = 256
"""Of a block, looked at together: few enough that most hold nothing above the bound."""
RANK_COLUMNS = 1024
"""Rows whose kept entries are added up together."""


class TopK:
    """The search for the k largest of each row, over blocks of whole rows in order.

    Args:
        workspace: where lists live.
        num_rows: B.
        k: entries a row keeps at most; at least 1.
        like: a tensor of the precision and device of the values.
    """

    def __init__(self, workspace: Workspace, num_rows: int, k: int, like: Tensor) -> None:
        self._get, self._rows, self._k, self._like = workspace.get, num_rows, k, like
        self._best = (
            self._get("triton.best", (num_rows, k), like.dtype),
            self._get("triton.best", (num_rows, k), torch.int32),
            self._get("triton.best.count", (num_rows,), torch.int32),
        )

    def add(self, pre_RF: Tensor, bias_F: Tensor, first: int) -> None:
        """Take in a block: product [R, F] without bias, bias [F], and its first row."""
        get, (num_rows, width), dtype = self._get, pre_RF.shape, bias_F.dtype
        groups = -(-width // GROUP)
        most = min(self._k, groups)
        bits = bits_of(bias_F)
        peak_RP = get("triton.peak", (num_rows, groups), dtype)
        tile = group_tile(num_rows, groups)
        grid = (*tile.grid(num_rows), -(-groups // tile.columns))
        launch(groups_of.peaks, grid, pre_RF, bias_F, peak_RP, num_rows, width, groups, GROUP, **tile.settings)
        chosen_RK = get("triton.groups", (num_rows, most), torch.int32)
        chosen_R = get("triton.groups.count", (num_rows,), torch.int32)
        bound_R = get("triton.bound", (num_rows,), dtype)
        tile = row_tile(num_rows, groups)
        launch(
            groups_of.strongest, tile.grid(num_rows), peak_RP, chosen_RK, chosen_R, bound_R, num_rows, groups, most, bits,
            groups <= tile.columns, **tile.settings,
        )  # fmt: skip
        if most < self._k:  # all groups are chosen, and the least of their peaks bounds nothing
            bound_R.zero_()
        room = most * GROUP
        value_RC, feature_RC = (
            get("triton.list", (num_rows, room), dtype),
            get("triton.list", (num_rows, room), torch.int32),
        )
        count_R = get("triton.list.count", (num_rows,), torch.int32)
        tile = list_tile(num_rows, room)
        launch(
            groups_of.candidates, tile.grid(num_rows), pre_RF, bias_F, chosen_RK, chosen_R, bound_R,
            value_RC, feature_RC, count_R, num_rows, width, most, GROUP, **tile.settings,
        )  # fmt: skip
        # A list holds hardly more than k as a rule.
        tile = list_tile(num_rows, min(room, 2 * self._k))
        best = (part[first : first + num_rows] for part in self._best)
        launch(
            rows.largest, tile.grid(num_rows), value_RC, feature_RC, count_R, *best, num_rows, room, self._k, bits,
            **tile.settings,
        )  # fmt: skip

    def code(self, num_features: int) -> SparseCode:
        """What was found, padded."""
        offset_R = torch.zeros(self._rows + 1, dtype=torch.int64, device=self._like.device)
        torch.cumsum(self._best[2], 0, out=offset_R[1:])
        row_N, feature_N, value_N = _room(self._rows, self._rows * self._k, self._like)
        if self._rows:
            tile = list_tile(self._rows, self._k)
            launch(
                rows.pack, tile.grid(self._rows), *self._best, offset_R, value_N, feature_N, row_N, self._rows, self._k,
                **tile.settings,
            )  # fmt: skip
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
        num_rows, width, bits = self._rows, pre_BW.shape[1], bits_of(bias_W)
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
    value_BW = get("triton.list", (num_rows, width), bias_W.dtype)
    feature_BW = get("triton.list", (num_rows, width), torch.int32)
    count_B = get("triton.list.count", (num_rows,), torch.int32)
    tile = list_tile(num_rows, width, COLLECT_COLUMNS)
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
