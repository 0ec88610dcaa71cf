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
        offset_R: int64 [B + 1], where each row's entries start; the last is N, or less if the code is padded.
        num_features: F.
        padded: whether there may be padding: entries from ``offset_R[-1]`` on, of value 0, at the last row and feature 0. A GPU
            then need not be asked how many entries it found. All true entries of a padded code are positive.
    """

    row_N: Tensor
    feature_N: Tensor
    value_N: Tensor
    offset_R: Tensor
    num_features: int
    padded: bool = False

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
        """N, with padding."""
        return self.feature_N.numel()

    @property
    def density(self) -> float:
        """Share of the B F entries that is active."""
        return self.num_entries / max(1, self.num_rows * self.num_features)

    def fired(self) -> Tensor:
        """int64 [F], number of rows each feature is active in."""
        if not self.padded:
            return torch.bincount(self.feature_N, minlength=self.num_features)
        # bincount would look for the largest feature. Integers: any order of the additions gives the same.
        fired_F = torch.zeros(self.num_features, dtype=torch.int64, device=self.feature_N.device)
        return fired_F.scatter_add_(0, self.feature_N.long(), (self.value_N > 0).long())

    def smallest(self) -> Tensor:
        """0-d, the smallest value; 0 when there is no entry."""
        if not self.num_entries:
            return self.value_N.new_zeros(())
        if not self.padded:
            return self.value_N.min()
        least = torch.where(self.value_N > 0, self.value_N, torch.inf).min()
        return torch.where(self.offset_R[-1] > 0, least, 0.0)

    def trimmed(self) -> SparseCode:
        """The same without padding. Waits for the device if the code is padded."""
        if not self.padded:
            return self
        count = int(self.offset_R[-1])
        parts = (self.row_N[:count], self.feature_N[:count], self.value_N[:count])
        return SparseCode(*parts, self.offset_R, self.num_features)

    def where(self, keep_N: Tensor) -> SparseCode:
        """The entries of a code without padding at which a bool [N] holds."""
        row_N = self.row_N[keep_N]
        return SparseCode(
            row_N, self.feature_N[keep_N], self.value_N[keep_N], offsets(row_N, self.num_rows), self.num_features
        )

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
        if self.padded:  # padding lies on a place that an entry may have: add its 0
            out.view(-1).scatter_add_(0, self.flat(), torch.where(self.value_N > 0, value_N, 0.0))
        else:
            out.view(-1)[self.flat()] = value_N
        return out


def offsets(index_N: Tensor, count: int) -> Tensor:
    """int64 [count + 1], where each of ``count`` segments of an ascending index list starts."""
    offset_R = torch.zeros(count + 1, dtype=torch.int64, device=index_N.device)
    torch.cumsum(torch.bincount(index_N, minlength=count), 0, out=offset_R[1:])
    return offset_R
