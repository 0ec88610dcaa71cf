"""The active entries of a batch of feature activations, in place of the [B, F] matrix they are part of.

Shapes: B rows, F features, N active entries of the whole batch (N = B k for a top-k rule).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SparseCode", "offsets"]


@dataclass(frozen=True, slots=True)
class SparseCode:
    """The active entries of feature activations f_BF, in row order.

    Attributes:
        row_N: int32 or int64, batch row of each entry, ascending.
        feature_N: of the same type, feature of each entry; the order within a row is the backend's own.
        value_N: its activation.
        offset_R: int64 [B + 1], where each row's entries start; the last is N.
        num_features: F.
    """

    row_N: Tensor
    feature_N: Tensor
    value_N: Tensor
    offset_R: Tensor
    num_features: int

    @classmethod
    def from_flat(cls, flat_N: Tensor, value_N: Tensor, num_rows: int, num_features: int) -> SparseCode:
        """From ascending positions in the flattened [B, F] matrix."""
        row_N = torch.div(flat_N, num_features, rounding_mode="floor")
        feature_N = flat_N - row_N * num_features
        return cls(row_N, feature_N, value_N, offsets(row_N, num_rows), num_features)

    @property
    def num_rows(self) -> int:
        return self.offset_R.numel() - 1

    @property
    def num_entries(self) -> int:
        return self.feature_N.numel()

    @property
    def density(self) -> float:
        """Share of the B F entries that is active."""
        return self.num_entries / max(1, self.num_rows * self.num_features)

    def fired(self) -> Tensor:
        """int64 [F], number of rows each feature is active in."""
        return torch.bincount(self.feature_N, minlength=self.num_features)

    def flat(self) -> Tensor:
        """int64 [N], positions in the flattened [B, F] matrix."""
        return self.row_N.long() * self.num_features + self.feature_N

    def entries_of(self, start: int, stop: int) -> Tensor | None:
        """int64 [n], positions of the entries with start <= feature < stop; None for all of them."""
        if start <= 0 and stop >= self.num_features:
            return None
        return torch.nonzero((self.feature_N >= start) & (self.feature_N < stop)).view(-1)

    def dense(self, value_N: Tensor, out: Tensor) -> Tensor:
        """Write values at the entries of a [B, F] matrix, zero elsewhere."""
        out.zero_()
        out.view(-1)[self.flat()] = value_N
        return out


def offsets(index_N: Tensor, count: int) -> Tensor:
    """int64 [count + 1], where each of ``count`` segments of an ascending index list starts."""
    offset_R = torch.zeros(count + 1, dtype=torch.int64, device=index_N.device)
    torch.cumsum(torch.bincount(index_N, minlength=count), 0, out=offset_R[1:])
    return offset_R
