"""The native backend: column-blocked GEMMs by torch, everything between them by the C engine.

Shapes: B rows, D = d_in, F = d_sae, N entries of a code, L levels, M chosen features, W = features of a block.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from neuronmap.errors import MemoryExhaustedError
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.native.library import Engine
from neuronmap.saes.kernels.native.screening import LEAST_WEIGHTS, Screen, can_screen
from neuronmap.saes.kernels.portable import TorchKernels
from neuronmap.saes.kernels.protocol import AdamStep, Encoded, Encoder, Reconstruction
from neuronmap.saes.workspace import Workspace

__all__ = ["NativeKernels"]

BLOCK_BYTES = 2**24
"""Of pre-activations that exist at a time: 1024 features of 4096 rows. Smaller blocks cost the GEMM its speed, larger ones leave
the cache before they are searched; 512 to 2048 features measured the same within 2 %."""
LEAST_BLOCK, MOST_BLOCK = 256, 4096
MARGIN = 0.9
"""Of the last batch's threshold: what an entry has to exceed to be looked at. At 1, each step whose threshold falls would need a
second pass."""
PARTS_PER_THREAD = 4
"""Lists that the collector keeps for each thread, so that a slow thread can be helped out."""


class NativeKernels:
    """The backend ``native``.

    Args:
        workspace: where buffers live.
        engine: the loaded library, of the precision that the tensors have.

    Attributes:
        screens_from: weights of an encoder from which on its product is screened in bfloat16
            (:mod:`~neuronmap.saes.kernels.native.screening`); None: never.
        reruns: encoder passes that had to be repeated because the batch's threshold had fallen more than expected.
    """

    name: ClassVar[str] = "native"
    dense_above: ClassVar[float] = 1 / 5
    """Measured crossover on 2 cores: a density of 0.29 at F=4096 and 0.21 at F=16384, D=576."""

    def __init__(self, workspace: Workspace, engine: Engine) -> None:
        self.workspace, self.engine = workspace, engine
        asked = can_screen() if workspace.screens is None else workspace.screens
        self.screens_from = LEAST_WEIGHTS if asked and engine.dtype == torch.float32 else None
        self.reruns = 0
        self._collector: int | None = None
        self._collector_rows = 0
        self._release: weakref.finalize[..., NativeKernels] | None = None
        self._last_cut = 0.0

    # --- encode --------------------------------------------------------------------------------------------------

    def encode_top_k(self, encoder: Encoder, k: int) -> Encoded:
        if k >= encoder.num_features:
            kept_BM, _, _ = self._collect_top(encoder, encoder.num_rows * encoder.num_features, 0.0)
            return Encoded(self._packed(encoder), kept_BM)
        search = _TopK(self, encoder.num_rows, k, encoder.W_DF.dtype)
        kept_BM = self._kept(encoder)
        for block in self._blocks(encoder, kept_BM):
            search.add(block, last=block.stop == encoder.num_features)
        return Encoded(search.code(encoder.num_features), kept_BM)

    def encode_top_of_batch(self, encoder: Encoder, count: int) -> Encoded:
        # The last batch's threshold tells where to look; what is found does not depend on it.
        bound = self._last_cut * MARGIN
        kept_BM, collector, total = self._collect_top(encoder, count, bound)
        if total < count and bound > 0.0:
            self.reruns += 1
            kept_BM, collector, total = self._collect_top(encoder, count, 0.0)
        cut = None
        if total < count:
            self._last_cut = 0.0  # all there is was kept: no threshold to go by
        else:
            below = self.engine.collector_tighten(collector, count)
            cut = _next_above(below, encoder.W_DF.dtype)
            self._last_cut = cut
        code = self._packed(encoder)
        if cut is not None and code.num_entries > count:
            above = int(torch.count_nonzero(code.value_N > cut))
            parts = (code.offset_R, code.row_N, code.feature_N, code.value_N)
            self.engine.drop_ties(*map(_at, parts), code.num_rows, cut, count - above)
            row_N, feature_N, value_N = (part[:count] for part in parts[1:])
            code = SparseCode(row_N, feature_N, value_N, code.offset_R, code.num_features)
        return Encoded(code, kept_BM)

    def encode_above(self, encoder: Encoder, floor_F: Tensor | None, limit: int) -> Encoded | None:
        collector = self._cleared(encoder.num_rows)
        kept_BM = self._kept(encoder)
        for block in self._blocks(encoder, kept_BM):
            floor_W = None if floor_F is None else floor_F[block.first : block.stop]
            if self._collect(collector, block, floor_W, 0.0) > limit:
                return None
        return Encoded(self._packed(encoder), kept_BM)

    def top_k_of(self, pre_BM: Tensor, k: int) -> SparseCode:
        rows, features = pre_BM.shape
        pre_BM = pre_BM.contiguous()
        bias_M = self._zeros(features, pre_BM.dtype)
        if k >= features:
            self._collect(self._cleared(rows), _Block(0, pre_BM, bias_M), None, 0.0)
            return self._pack(rows, features, pre_BM.dtype)
        search = _TopK(self, rows, k, pre_BM.dtype)
        search.add(_Block(0, pre_BM, bias_M), last=True)
        return search.code(features)

    def keep_top_k(self, pre_BM: Tensor, k: int) -> Tensor:
        rows, features = pre_BM.shape
        if k >= features:
            return pre_BM.relu_()
        if not pre_BM.is_contiguous():
            return pre_BM.copy_(self.keep_top_k(pre_BM.contiguous(), k))
        if self.engine.keep_top_k(_at(pre_BM), rows, features, k, self._threads):
            raise MemoryExhaustedError("Out of memory while choosing the largest activations of a row.")
        return pre_BM

    @property
    def _threads(self) -> int:
        return torch.get_num_threads() if self.engine.threaded else 1

    def _zeros(self, count: int, dtype: torch.dtype) -> Tensor:
        return self.workspace.get("native.zeros", (count,), dtype).zero_()

    def _kept(self, encoder: Encoder) -> Tensor | None:
        if encoder.kept_M is None:
            return None
        return self.workspace.get("kept", (encoder.num_rows, len(encoder.kept_M)), encoder.W_DF.dtype)

    def _screen(self, encoder: Encoder) -> Screen | None:
        """What to screen the product with, where that is worth it; by machine and encoder alone, so that a row's values are the same in
        any company."""
        if self.screens_from is None or encoder.W_DF.numel() < self.screens_from or encoder.num_rows == 0:
            return None
        # torch's product takes any layout, and refuses other precisions
        for factor in (encoder.centred_BD, encoder.W_DF.T):
            if factor.dtype != self.engine.dtype or not factor.is_contiguous():
                return None
        return Screen.of(encoder, self.engine, self.workspace, self._threads)

    def _blocks(self, encoder: Encoder, kept_BM: Tensor | None) -> Iterator[_Block]:
        """The product, block of features by block; the buffer is the same each time."""
        rows, features = encoder.num_rows, encoder.num_features
        screen = self._screen(encoder)
        dtype = encoder.W_DF.dtype if screen is None else torch.bfloat16
        width = BLOCK_BYTES // (dtype.itemsize * max(rows, 1)) // 64 * 64
        width = min(max(width, LEAST_BLOCK), MOST_BLOCK, features)
        edges = [*range(0, features, width), features]
        kept_M = encoder.kept_M
        if screen is not None and kept_M is not None and kept_BM is not None:  # these are wanted whole, in float32
            torch.addmm(encoder.b_F[kept_M], encoder.centred_BD, encoder.W_DF.T[kept_M].T, out=kept_BM)
            kept_M = None
        # Where the chosen features of each block begin; one transfer for all blocks.
        cuts = [0] * len(edges) if kept_M is None else torch.searchsorted(kept_M, torch.tensor(edges)).tolist()
        for number, (first, stop) in enumerate(pairwise(edges)):
            pre_BW = self.workspace.get("native.block", (rows, stop - first), dtype)
            bias_W = encoder.b_F[first:stop]
            if screen is not None:
                yield _Block(first, screen.product(first, pre_BW), bias_W, screen)
                continue
            torch.mm(encoder.centred_BD, encoder.W_DF[:, first:stop], out=pre_BW)
            low, high = cuts[number], cuts[number + 1]
            if kept_M is not None and kept_BM is not None and high > low:
                column_m = kept_M[low:high] - first
                self.engine.take_columns(
                    _at(pre_BW), _at(bias_W), rows, stop - first, _at(column_m), high - low, _at(kept_BM[:, low:]),
                    kept_BM.shape[1], self._threads,
                )  # fmt: skip
            yield _Block(first, pre_BW, bias_W)

    def _collect_top(self, encoder: Encoder, count: int, bound: float) -> tuple[Tensor | None, int, int]:
        """Collect entries above a bound, at least the ``count`` largest if so many are there.

        Returns:
            Pre-activations of the chosen features, the collector, and how many entries it holds.
        """
        collector, kept_BM, total = self._cleared(encoder.num_rows), self._kept(encoder), 0
        for block in self._blocks(encoder, kept_BM):
            total = self._collect(collector, block, None, bound)
            if total > 3 * count:
                # Nothing was known of the threshold: raise the bound to what this much of the batch shows.
                bound = self.engine.collector_tighten(collector, count)
                total = self.engine.collector_size(collector)
        return kept_BM, collector, total

    def _collect(self, collector: int, block: _Block, floor_W: Tensor | None, bound: float) -> int:
        floor = None if floor_W is None else _at(floor_W)
        pre, bias, width = _at(block.pre_BW), _at(block.bias_W), block.pre_BW.shape[1]
        total: int
        if block.screen is None:
            total = self.engine.collect_block(collector, pre, bias, floor, bound, width, block.first, self._threads)
        else:
            tables = block.screen.tables(block.first, block.stop)[:-1]
            depth = block.screen.x_BD.shape[1]
            total = self.engine.collect_screened(
                collector, pre, *tables, floor, bound, width, depth, block.first, self._threads
            )
        if total < 0:
            raise MemoryExhaustedError(
                "Out of memory while collecting active features.", hint="Lower batch_size or hidden_dim."
            )
        return total

    def _cleared(self, rows: int) -> int:
        """The collector, empty, for batches of this many rows."""
        if self._collector is None or self._collector_rows != rows:
            if self._release is not None:
                self._release()
            collector = self.engine.collector_new(rows, self._threads * PARTS_PER_THREAD)
            if not collector:
                raise MemoryExhaustedError("Out of memory while starting a training step.")
            self._collector, self._collector_rows = collector, rows
            self._release = weakref.finalize(self, self.engine.collector_free, collector)
        self.engine.collector_clear(self._collector)
        return self._collector

    def _packed(self, encoder: Encoder) -> SparseCode:
        return self._pack(encoder.num_rows, encoder.num_features, encoder.W_DF.dtype)

    def _pack(self, rows: int, features: int, dtype: torch.dtype) -> SparseCode:
        offset_R = torch.empty(rows + 1, dtype=torch.int64)
        count = self.engine.collector_offsets(self._collector, _at(offset_R))
        row_N, feature_N, value_N = self._entries(count, dtype)
        if self.engine.collector_pack(self._collector, *map(_at, (offset_R, row_N, feature_N, value_N)), self._threads):
            raise MemoryExhaustedError("Out of memory while ordering active features.")
        return SparseCode(row_N, feature_N, value_N, offset_R, features)

    @staticmethod
    def _entries(count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, features and values of ``count`` entries. Fresh tensors: small, and a code outlives the step's buffers."""
        index = torch.empty(2, count, dtype=torch.int32)
        return index[0], index[1], torch.empty(count, dtype=dtype)

    # --- decode, errors, gradients -------------------------------------------------------------------------------

    def reconstruct(
        self,
        code: SparseCode,
        W_dec_FD: Tensor,
        centred_BD: Tensor,
        widths: tuple[int, ...],
        scale: float,
        detached: bool = False,
    ) -> Reconstruction:
        rows, d_in, levels = *centred_BD.shape, len(widths)
        dtype = centred_BD.dtype
        pulled_LBD = self.workspace.get("pulled", (levels, rows, d_in), dtype)
        squared_BL = self.workspace.get("native.squared", (rows, levels), dtype)
        gradient_N = torch.empty_like(code.value_N)
        width_L = torch.tensor(widths)
        self.engine.reconstruct(
            *map(_at, (code.offset_R, code.feature_N, code.value_N, W_dec_FD, centred_BD)), rows, d_in, levels, _at(width_L),
            scale, int(detached), *map(_at, (pulled_LBD, squared_BL, gradient_N)), self._threads,
        )  # fmt: skip
        return Reconstruction(pulled_LBD[-1], pulled_LBD, squared_BL.mean(dim=0), gradient_N)

    def weight_gradients(
        self,
        code: SparseCode,
        gradient_N: Tensor,
        reconstruction: Reconstruction,
        centred_BD: Tensor,
        widths: tuple[int, ...],
        scale: float,
        out: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        W_enc_DF, b_enc_F, W_dec_FD = out
        (rows, d_in), features, count = centred_BD.shape, code.num_features, code.num_entries
        dtype = centred_BD.dtype
        offset_F = self.workspace.get("native.offset", (features + 1,), torch.int64)
        row_N = self.workspace.get("native.row", (count,), torch.int32)
        value_N = self.workspace.get("native.value", (count,), dtype)
        sorted_N = self.workspace.get("native.gradient", (count,), dtype)
        entries = (code.row_N, code.feature_N, code.value_N, gradient_N)
        by_feature = (offset_F, row_N, value_N, sorted_N)
        self.engine.sort_by_feature(*map(_at, entries), count, features, scale, *map(_at, by_feature))
        width_L = torch.tensor(widths)
        self.engine.weight_gradients(
            *map(_at, by_feature), _at(reconstruction.pulled_LBD), _at(centred_BD), rows, d_in, features, len(widths),
            *map(_at, (width_L, W_enc_DF.T, b_enc_F, W_dec_FD)), self._threads,
        )  # fmt: skip

    # --- parameter step ------------------------------------------------------------------------------------------

    def gradient_energy(self, W_dec_FD: Tensor, gradient_FD: Tensor, others: Sequence[Tensor]) -> Tensor:
        energy = self.engine.energy(_at(W_dec_FD), _at(gradient_FD), *gradient_FD.shape, self._threads)
        for other in others:
            rows = self._as_rows(other)
            if rows is None:
                energy += float(torch.linalg.vector_norm(other.double()).square())
            else:
                energy += self.engine.energy(None, _at(rows), *rows.shape, self._threads)
        return torch.tensor(energy, dtype=torch.float64)

    def adam(
        self,
        parameter: Tensor,
        gradient: Tensor,
        moments: tuple[Tensor, Tensor],
        step: AdamStep,
        scale: Tensor,
        unit_rows: bool,
        rounded: Tensor | None = None,
    ) -> None:
        rows = [matrix for tensor in (parameter, gradient, *moments) if (matrix := self._as_rows(tensor)) is not None]
        if len(rows) < 4:  # a plug-in's parameter of another precision or layout
            TorchKernels(self.workspace).adam(parameter, gradient, moments, step, scale, unit_rows)
            return
        self.engine.adam(
            *map(_at, rows), *rows[0].shape, step.rate / (1 - step.beta1**step.step), step.beta1, step.beta2, step.epsilon,
            (1 - step.beta2**step.step) ** -0.5, float(scale), int(unit_rows), self._threads,
        )  # fmt: skip
        if rounded is not None:
            rounded.copy_(parameter)

    def _as_rows(self, tensor: Tensor) -> Tensor | None:
        """A matrix whose rows are contiguous: the tensor, its transpose (W_enc lies by feature), or all of it as one row.

        None for what the engine cannot read: another precision, or memory in another order.
        """
        if tensor.dtype != self.engine.dtype:
            return None
        if tensor.is_contiguous():  # asked first: one row of W_dec is one column of its transpose, too
            return tensor if tensor.ndim == 2 else tensor.view(1, -1)
        return tensor.T if tensor.ndim == 2 and tensor.T.is_contiguous() else None


@dataclass(frozen=True, slots=True)
class _Block:
    """Products with some features, without bias: [B, W] in the encoder's precision or, screened, in bfloat16.

    Attributes:
        first: the first of the features.
        pre_BW: the products.
        bias_W: to be added.
        screen: what they were screened with.
    """

    first: int
    pre_BW: Tensor
    bias_W: Tensor
    screen: Screen | None = None

    @property
    def stop(self) -> int:
        return self.first + len(self.bias_W)


class _TopK:
    """The running search for the k largest of each row, over blocks of features in order."""

    def __init__(self, kernels: NativeKernels, rows: int, k: int, dtype: torch.dtype) -> None:
        self._kernels, self._rows, self._k = kernels, rows, k
        get = kernels.workspace.get
        self._capacity = max(4 * k, k + 128)
        self._value_BC = get("native.candidate", (rows, self._capacity), dtype)
        self._feature_BC = get("native.candidate", (rows, self._capacity), torch.int32)
        self._count_B = get("native.count", (rows,), torch.int32)
        self._bound_B = get("native.bound", (rows,), dtype)

    def add(self, block: _Block, last: bool) -> None:
        kernels, (rows, width) = self._kernels, block.pre_BW.shape
        pre, bias = _at(block.pre_BW), _at(block.bias_W)
        found = map(_at, (self._value_BC, self._feature_BC, self._count_B, self._bound_B))
        rule = (block.first, self._k, self._capacity, int(last))
        if block.screen is None:
            kernels.engine.top_k_block(pre, bias, rows, width, *rule, *found, kernels._threads)
            return
        tables = block.screen.tables(block.first, block.stop)
        depth = block.screen.x_BD.shape[1]
        kernels.engine.top_k_screened(pre, *tables, rows, width, depth, *rule, *found, kernels._threads)

    def code(self, num_features: int) -> SparseCode:
        offset_R = torch.zeros(self._rows + 1, dtype=torch.int64)
        torch.cumsum(self._count_B, 0, out=offset_R[1:])
        row_N, feature_N, value_N = self._kernels._entries(int(offset_R[-1]), self._value_BC.dtype)
        self._kernels.engine.top_k_pack(
            *map(_at, (self._value_BC, self._feature_BC, self._count_B)), self._rows, self._capacity,
            *map(_at, (offset_R, row_N, feature_N, value_N)),
        )  # fmt: skip
        return SparseCode(row_N, feature_N, value_N, offset_R, num_features)


def _at(tensor: Tensor) -> int:
    """Address of the first element."""
    return tensor.data_ptr()


def _next_above(below: float, dtype: torch.dtype) -> float:
    """The number whose predecessor the engine gave as a bound."""
    one = torch.tensor(below, dtype=dtype)
    return float(torch.nextafter(one, torch.full_like(one, torch.inf)))
