"""Products of a sparse code with dense matrices, by public torch operations only.

Shapes: B rows, F features, D = d_in, N active entries of the whole batch (N = B k for a top-k rule).

A step of a sparse SAE needs four products besides the encoder's GEMM; each touches the N active entries only:

    xhat_BD  = f_BF @ W_dec_FD                 embedding_bag over the rows
    df_N     = (G_BD @ W_dec_FD^T) at entries  the gradient of that embedding_bag to its per-sample weights
    gW_FD    = f_BF^T @ G_BD                   embedding_bag over the entries sorted by feature
    gWenc_FD = df_BF^T @ x_BD                  the same, same sort

4 B k D multiply-adds instead of 4 B F D. Measured (2 cores, B=4096, D=576, F=4096, k=32), in units of one encoder GEMM:
0.07 for the first two together, 0.02 to 0.03 for each of the others; adding materialised contributions row by row
(index_add) costs some fifty times as much. embedding_bag sums each bag in the order of its list, in one thread, so
results are the same from run to run. Once more than about one entry in ``DENSE_FROM`` is active, plain GEMMs win.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as functional
from torch import Tensor

from neuronmap.saes.kernels.dense import keep_where_positive
from neuronmap.saes.workspace import Workspace

__all__ = ["DENSE_FROM", "CodeProducts", "DenseProducts", "SparseCode", "SparseProducts", "products_of"]

DENSE_FROM = 6
"""Above a density of 1 / DENSE_FROM the products run as dense GEMMs. Measured crossover on a CPU: 4 to 5 while W_dec fits
the cache (F=1152 and 4096, D=576), 10 at F=16384."""

CHUNK_FEATURES = 1024
"""Features a weight gradient is computed for at a time: the result is still in cache when it is copied to its place."""

FeatureSums = Callable[[Tensor, Tensor, int, int], None]
"""Takes source_BD, out [stop - start, D], start, stop; writes, for each feature of the range, the weighted sum of rows."""


@dataclass(frozen=True, slots=True)
class SparseCode:
    """The active entries of feature activations f_BF, in row order.

    Attributes:
        row_N: int64, batch row of each entry, ascending.
        feature_N: int64, feature of each entry.
        value_N: its activation, > 0.
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

    def entries_of(self, start: int, stop: int) -> Tensor | None:
        """int64 [n], positions of the entries with start <= feature < stop; None for all of them."""
        if start <= 0 and stop >= self.num_features:
            return None
        return torch.nonzero((self.feature_N >= start) & (self.feature_N < stop)).view(-1)

    def dense(self, value_N: Tensor, out: Tensor) -> Tensor:
        """Write values at the entries of a [B, F] matrix, zero elsewhere."""
        out.zero_()
        out.view(-1)[self.row_N * self.num_features + self.feature_N] = value_N
        return out


def offsets(index_N: Tensor, count: int) -> Tensor:
    """int64 [count + 1], where each of ``count`` segments of an ascending index list starts."""
    offset_R = torch.zeros(count + 1, dtype=torch.int64, device=index_N.device)
    torch.cumsum(torch.bincount(index_N, minlength=count), 0, out=offset_R[1:])
    return offset_R


class CodeProducts(Protocol):
    """What a training step does with a code. ``start``/``stop`` restrict it to a range of features (nested levels)."""

    def decode(self, W_FD: Tensor, start: int, stop: int) -> Tensor:
        """f[:, start:stop] @ W[start:stop], [B, D]; may be overwritten by the next call."""
        ...

    def pull_back(self, gradient_BD: Tensor, W_FD: Tensor, start: int, stop: int, scale: float) -> None:
        """Store the gradient to the activations of a range, given ``scale`` times the one to its decode.

        Each range must have been decoded before, and every feature pulled back before the sums below are asked for.
        """
        ...

    def code_sums(self, scale: float) -> FeatureSums:
        """Writer of scale * f^T @ source; valid until the next writer is made."""
        ...

    def gradient_sums(self) -> FeatureSums:
        """Writer of df^T @ source; valid until the next writer is made."""
        ...

    def gradient_totals(self) -> Tensor:
        """[F], df summed over rows."""
        ...


class SparseProducts:
    """The products over the active entries. Sorts them by feature once, for both weight gradients."""

    def __init__(self, code: SparseCode) -> None:
        self.code = code
        self._gradient_N = torch.empty_like(code.value_N)
        self._decoded: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor | None]] = {}

    def decode(self, W_FD: Tensor, start: int, stop: int) -> Tensor:
        code = self.code
        entries_n = code.entries_of(start, stop)
        feature_n, value_n, offset_R = code.feature_N, code.value_N, code.offset_R
        if entries_n is not None:
            feature_n, value_n = feature_n[entries_n], value_n[entries_n]
            offset_R = offsets(code.row_N[entries_n], code.num_rows)
        if feature_n.numel() == 0:
            return W_FD.new_zeros(code.num_rows, W_FD.shape[1])
        # Autograd of embedding_bag with respect to the per-sample weights alone is the gather-and-dot we want.
        with torch.enable_grad():
            weight_n = value_n.detach().requires_grad_()
            xhat_BD = _bags(feature_n, W_FD.detach(), offset_R, weight_n)
        self._decoded[start, stop] = xhat_BD, weight_n, entries_n
        return xhat_BD.detach()

    def pull_back(self, gradient_BD: Tensor, W_FD: Tensor, start: int, stop: int, scale: float) -> None:
        del W_FD
        if (start, stop) not in self._decoded:
            return  # no entries in this range
        xhat_BD, weight_n, entries_n = self._decoded.pop((start, stop))
        gradient_n = torch.autograd.grad(xhat_BD, weight_n, gradient_BD)[0].mul_(scale)
        if entries_n is None:
            self._gradient_N = gradient_n
        else:
            self._gradient_N[entries_n] = gradient_n

    def code_sums(self, scale: float) -> FeatureSums:
        return self._sums(self.code.value_N[self._feature_order[0]].mul_(scale))

    def gradient_sums(self) -> FeatureSums:
        return self._sums(self._gradient_N[self._feature_order[0]])

    def gradient_totals(self) -> Tensor:
        code = self.code
        totals_F = torch.bincount(code.feature_N, weights=self._gradient_N, minlength=code.num_features)
        return totals_F.to(code.value_N.dtype)

    def _sums(self, sorted_N: Tensor) -> FeatureSums:
        _, row_N, offset_F = self._feature_order

        def write(source_BD: Tensor, out_FD: Tensor, start: int, stop: int) -> None:
            edges = [*range(start, stop, CHUNK_FEATURES), stop]
            cuts = offset_F[edges].tolist()
            for low, high, first, last in zip(edges, edges[1:], cuts, cuts[1:], strict=False):
                part_FD = out_FD[low - start : high - start]
                if first == last:
                    part_FD.zero_()
                    continue
                part_offset = offset_F[low : high + 1] - first
                part_FD.copy_(_bags(row_N[first:last], source_BD, part_offset, sorted_N[first:last]))

        return write

    @cached_property
    def _feature_order(self) -> tuple[Tensor, Tensor, Tensor]:
        """Entries sorted by feature (positions, rows), and where each feature starts. Rows of a feature stay in order."""
        code = self.code
        order_N = torch.sort(code.feature_N.int(), stable=True).indices  # 32-bit keys: half the cost of 64-bit ones
        return order_N, code.row_N[order_N], offsets(code.feature_N, code.num_features)


class DenseProducts:
    """The same as GEMMs over [B, F] buffers, for codes that are not sparse.

    Args:
        f_BF: activations, >= 0; entries at 0 get no gradient.
        workspace: where a second [B, F] buffer lives.
        name: prefix of its name.
    """

    def __init__(self, f_BF: Tensor, workspace: Workspace, name: str) -> None:
        self._f_BF = f_BF
        self._workspace, self._name = workspace, name
        self._gradient_BF = workspace.get(f"{name}.gradient", tuple(f_BF.shape), f_BF.dtype)

    def decode(self, W_FD: Tensor, start: int, stop: int) -> Tensor:
        shape = (self._f_BF.shape[0], W_FD.shape[1])
        xhat_BD = self._workspace.get(f"{self._name}.xhat", shape, self._f_BF.dtype)
        return torch.mm(self._f_BF[:, start:stop], W_FD[start:stop], out=xhat_BD)

    def pull_back(self, gradient_BD: Tensor, W_FD: Tensor, start: int, stop: int, scale: float) -> None:
        part_BF = self._gradient_BF[:, start:stop]
        torch.addmm(part_BF, gradient_BD, W_FD[start:stop].T, beta=0, alpha=scale, out=part_BF)
        keep_where_positive(part_BF, self._f_BF[:, start:stop])

    def code_sums(self, scale: float) -> FeatureSums:
        return self._sums(self._f_BF, scale)

    def gradient_sums(self) -> FeatureSums:
        return self._sums(self._gradient_BF, 1.0)

    def gradient_totals(self) -> Tensor:
        return self._gradient_BF.sum(dim=0)

    @staticmethod
    def _sums(weight_BF: Tensor, scale: float) -> FeatureSums:
        def write(source_BD: Tensor, out_FD: Tensor, start: int, stop: int) -> None:
            torch.addmm(out_FD, weight_BF[:, start:stop].T, source_BD, beta=0, alpha=scale, out=out_FD)

        return write


def products_of(code: SparseCode, workspace: Workspace, name: str) -> CodeProducts:
    """The cheaper way to do the products of this code.

    Args:
        code: active entries.
        workspace: where dense buffers would live.
        name: prefix of their names; codes in use at the same time need different ones.
    """
    if code.density * DENSE_FROM > 1.0:
        buffer_BF = workspace.get(f"{name}.code", (code.num_rows, code.num_features), code.value_N.dtype)
        return DenseProducts(code.dense(code.value_N, buffer_BF), workspace, name)
    return SparseProducts(code)


def _bags(index_n: Tensor, table: Tensor, offset_R: Tensor, weight_n: Tensor) -> Tensor:
    return functional.embedding_bag(
        index_n, table, offset_R, mode="sum", per_sample_weights=weight_n, include_last_offset=True
    )
