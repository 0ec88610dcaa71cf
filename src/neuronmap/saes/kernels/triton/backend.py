"""The Triton backend: products by torch, in blocks of rows or of features; everything between them by Triton kernels.

Shapes: B rows, D = d_in, F = d_sae, K = k, N entries of a code, L levels, M chosen features, W features of a block, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.portable import DenseProducts, TorchKernels
from neuronmap.saes.kernels.protocol import AdamStep, Encoded, Encoder, Reconstruction
from neuronmap.saes.kernels.triton import parameters, products, rows
from neuronmap.saes.kernels.triton.search import TopK, TopOfBatch, bits_of
from neuronmap.saes.kernels.triton.tiles import launch, list_tile, slice_tile, vector_tile
from neuronmap.saes.workspace import Workspace

__all__ = ["TritonDenseKernels", "TritonKernels"]

ROWS_BYTES, LEAST_ROWS = 2**29, 256
"""Of the pre-activations of whole rows that exist at a time (4,096 rows of 65,536 features in bfloat16), unless so many rows are more.
The product reads all weights for each block: with a quarter of it steps were slower."""
BLOCK_BYTES = 2**29
"""Of pre-activations of a block of features, where the batch chooses. A block costs eleven kernels besides its product, each of which
reads all that was found so far, so it should be large."""
LEAST_BLOCK = 256
FIRST_BLOCK = 8
"""The first block is that many times narrower: nothing is known of the bound yet, and half of it is listed."""
PART_ENTRIES = 256
"""Entries of a feature that one program sums: a feature that fires in every row does not hold up the others."""
DECODE_ENTRIES, LEVEL_ENTRIES, FEATURE_ENTRIES = 8, 4, 8
"""Entries that are gathered together: of a row, of a level of it if there are several, and of a feature."""
FLAT_COLUMNS = 1024
"""Numbers of a parameter without rows (or whose rows do not matter) that are updated together."""


class TritonKernels(TorchKernels):
    """The backend ``triton``. ``encode_above`` is the torch backend's; nothing else waits for the device.

    Args:
        workspace: where buffers live.
    """

    name: ClassVar[str] = "triton"
    dense_above: ClassVar[float] = 1 / 32
    """Reckoned, not measured: a dense product takes F / k times the arithmetic, and a GPU does about 60 float32 operations while it
    reads one number of those that the sparse one gathers (H100: 50 Tflop/s, 3.35 TB/s)."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._rounds = False
        self._rounded: Tensor | None = None

    # --- encode --------------------------------------------------------------------------------------------------

    def encode_top_k(self, encoder: Encoder, k: int) -> Encoded:
        kept_BM = self._kept(encoder)
        search = TopK(self.workspace, encoder.num_rows, min(k, encoder.num_features), encoder.b_F)
        for first, pre_RF in self._row_blocks(encoder, kept_BM):
            search.add(pre_RF, encoder.b_F, first)
        return Encoded(search.code(encoder.num_features), kept_BM)

    def encode_top_of_batch(self, encoder: Encoder, count: int) -> Encoded:
        kept_BM = self._kept(encoder)
        search = TopOfBatch(
            self.workspace, encoder.num_rows, min(count, encoder.num_rows * encoder.num_features), encoder.b_F
        )
        for first, pre_BW, bias_W in self._blocks(encoder, kept_BM):
            search.add(pre_BW, bias_W, first)
        return Encoded(search.code(encoder.num_features), kept_BM)

    def top_k_of(self, pre_BM: Tensor, k: int) -> SparseCode:
        num_rows, features = pre_BM.shape
        search = TopK(self.workspace, num_rows, min(k, features), pre_BM)
        if num_rows:
            search.add(pre_BM.contiguous(), pre_BM.new_zeros(features), 0)
        return search.code(features)

    def keep_top_k(self, pre_BM: Tensor, k: int) -> Tensor:
        num_rows, width = pre_BM.shape
        if k >= width or not num_rows:
            return pre_BM.relu_()
        tile = list_tile(num_rows, width)
        launch(rows.keep, tile.grid(num_rows), pre_BM, num_rows, width, k, bits_of(pre_BM), **tile.settings)
        return pre_BM

    def _row_blocks(self, encoder: Encoder, kept_BM: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """First row and product without bias [R, F] of each block of rows; the buffer is the same each time."""
        features, dtype = encoder.num_features, _block_dtype(encoder)
        count = max(ROWS_BYTES // (dtype.itemsize * features), LEAST_ROWS)
        for first in range(0, encoder.num_rows, count):
            stop = min(first + count, encoder.num_rows)
            pre_RF = self.workspace.get("triton.block", (stop - first, features), dtype)
            self._product(encoder, (first, stop), (0, features), pre_RF)
            if kept_BM is not None:
                self._take(encoder, pre_RF, 0, kept_BM[first:stop])
            yield first, pre_RF

    def _blocks(self, encoder: Encoder, kept_BM: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor]]:
        """First feature, product without bias [B, W] and bias [W] of each block of features; the buffer is the same each time."""
        num_rows, features, dtype = encoder.num_rows, encoder.num_features, _block_dtype(encoder)
        if not num_rows:
            return
        width = max(BLOCK_BYTES // (dtype.itemsize * num_rows) // 64 * 64, LEAST_BLOCK)
        narrow = max(width // FIRST_BLOCK, min(LEAST_BLOCK, width))
        for first, stop in pairwise([0, *range(narrow, features, width), features]):
            pre_BW = self.workspace.get("triton.block", (num_rows, stop - first), dtype)
            self._product(encoder, (0, num_rows), (first, stop), pre_BW)
            if kept_BM is not None:
                self._take(encoder, pre_BW, first, kept_BM)
            yield first, pre_BW, encoder.b_F[first:stop]

    def _take(self, encoder: Encoder, pre_RW: Tensor, first: int, out_RM: Tensor) -> None:
        """Keep what a block holds of the chosen features."""
        if not out_RM.numel():
            return
        (num_rows, chosen), width = out_RM.shape, pre_RW.shape[1]
        tile = list_tile(num_rows, chosen)
        grid = (*tile.grid(num_rows), -(-chosen // tile.columns))
        launch(
            rows.take_columns, grid, pre_RW, encoder.b_F[first : first + width], encoder.kept_M, out_RM, num_rows, width, first,
            chosen, **tile.settings,
        )  # fmt: skip

    def _product(
        self, encoder: Encoder, rows_of: tuple[int, int], features_of: tuple[int, int], out_RW: Tensor
    ) -> None:
        """centred @ W of some rows and features; in bfloat16 if there is such a copy of W, factors and result, summed in float32."""
        (low, high), (first, stop) = rows_of, features_of
        self._rounds = encoder.rounded_DF is not None
        if encoder.rounded_DF is None:
            torch.mm(encoder.centred_BD[low:high], encoder.W_DF[:, first:stop], out=out_RW)
            return
        if low == first == 0:
            self._rounded = None
            self._gathered("centred", encoder.centred_BD)
            self._rounded = encoder.centred_BD
        rounded_BD = self.workspace.get("triton.rounded.centred", tuple(encoder.centred_BD.shape), torch.bfloat16)
        factors = (rounded_BD[low:high], encoder.rounded_DF[:, first:stop])
        if out_RW.is_cuda:
            torch.mm(*factors, out=out_RW)
        else:  # a CPU sums such factors otherwise: the same numbers, widened
            out_RW.copy_(torch.mm(*(factor.float() for factor in factors)))

    def _gathered(self, name: str, table: Tensor) -> Tensor:
        """What rows are gathered from: a copy in bfloat16 where the encoder's product is of such factors, which is half the bytes."""
        if not self._rounds:
            return table
        copy = self.workspace.get(f"triton.rounded.{name}", tuple(table.shape), torch.bfloat16)
        if name == "centred":
            if table is self._rounded:
                return copy
            self._rounded = None
        return copy.copy_(table)

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
        """As the protocol says; the entries of a row must be in order of their features, as all codes of this backend are."""
        (num_rows, d_in), levels = centred_BD.shape, len(widths)
        pulled_LBD = self.workspace.get("pulled", (levels, num_rows, d_in), centred_BD.dtype)
        table_FD = self._gathered("W_dec", W_dec_FD)
        entries = DECODE_ENTRIES if levels == 1 else LEVEL_ENTRIES
        tile = slice_tile(num_rows, entries, d_in, table_FD.itemsize)
        slices = -(-d_in // tile.columns)
        squared_SBL = self.workspace.get("triton.squared", (slices, num_rows, levels), centred_BD.dtype)
        gradient_SN = self.workspace.get("triton.gradient", (slices, code.num_entries), centred_BD.dtype)
        if num_rows:
            launch(products.decode, (*tile.grid(num_rows), slices),
                self._edges(code, widths), code.feature_N, code.value_N, table_FD, centred_BD,
                pulled_LBD, squared_SBL, gradient_SN, num_rows, code.num_entries, d_in, num_rows * d_in, levels, detached, **tile.settings,
            )  # fmt: skip
        gradient_N = gradient_SN.sum(dim=0).mul_(scale)
        if code.padded:
            gradient_N.masked_fill_(code.value_N == 0, 0.0)
        squared_L = squared_SBL.sum(dim=0).mean(dim=0)
        return Reconstruction(pulled_LBD[-1], pulled_LBD, squared_L, gradient_N)

    def _edges(self, code: SparseCode, widths: tuple[int, ...]) -> Tensor:
        """int64 [B L + 1], where the entries of each row's levels start."""
        levels = len(widths)
        if levels == 1:
            return code.offset_R
        level_N = torch.bucketize(code.feature_N, self._widths(widths, code.value_N.device), right=True)
        key_N = torch.add(level_N, code.row_N, alpha=levels)
        if code.padded:
            key_N.masked_fill_(code.value_N == 0, code.num_rows * levels)
        return torch.searchsorted(key_N, torch.arange(code.num_rows * levels + 1, device=key_N.device))

    def _widths(self, widths: tuple[int, ...], device: torch.device) -> Tensor:
        """int64 [L] on the device. Kept: sending it there means to wait."""
        kept = self.workspace.constants.get(("triton.widths", widths))
        if kept is None:
            kept = self.workspace.constants["triton.widths", widths] = torch.tensor(widths, device=device)
        return kept

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
        features, d_in = W_dec_FD.shape
        feature_N = code.feature_N.int()
        if code.padded:
            feature_N = feature_N.masked_fill(code.value_N == 0, features)
        sorted_N, order_N = torch.sort(feature_N, stable=True)  # rows of a feature stay in order
        arange = torch.arange(features + 1, device=sorted_N.device, dtype=torch.int32)
        offset_F = torch.searchsorted(sorted_N, arange)
        first_F = torch.zeros(features + 1, dtype=torch.int64, device=sorted_N.device)
        parts_F = offset_F.diff().add_(PART_ENTRIES - 1).floor_divide_(PART_ENTRIES).clamp_min_(1)
        torch.cumsum(parts_F, 0, out=first_F[1:])
        most = code.num_entries // PART_ENTRIES
        tasks = features + most
        feature_T = torch.searchsorted(first_F[1:], torch.arange(tasks, device=sorted_N.device), right=True)
        get, dtype = self.workspace.get, W_dec_FD.dtype
        parts = (
            get("triton.part.enc", (max(most, 1), d_in), dtype),
            get("triton.part.b", (max(most, 1),), dtype),
            get("triton.part.dec", (max(most, 1), d_in), dtype),
        )
        whole = (W_enc_DF.T, b_enc_F, W_dec_FD)
        pulled_LBD = self._gathered("pulled", reconstruction.pulled_LBD)
        tile = slice_tile(tasks, FEATURE_ENTRIES, d_in, pulled_LBD.itemsize)
        launch(products.feature_sums, (*tile.grid(tasks), -(-d_in // tile.columns)),
            feature_T, first_F, offset_F, code.row_N[order_N], code.value_N[order_N].mul_(scale), gradient_N[order_N],
            pulled_LBD, self._gathered("centred", centred_BD),
            self._widths(widths, sorted_N.device), *whole, *parts,
            tasks, features, d_in, centred_BD.numel(), len(widths), PART_ENTRIES, **tile.settings,
        )  # fmt: skip
        if most:
            tile = vector_tile(features, d_in)
            launch(products.add_parts, tile.grid(features), first_F, *whole, *parts, features, d_in, **tile.settings)

    # --- parameter step ------------------------------------------------------------------------------------------

    def gradient_energy(self, W_dec_FD: Tensor, gradient_FD: Tensor, others: Sequence[Tensor]) -> Tensor:
        features, d_in = W_dec_FD.shape
        tile = vector_tile(features, d_in)
        grid = tile.grid(features)
        part_P = self.workspace.get("triton.energy", grid, torch.float64)
        launch(parameters.energy, grid, W_dec_FD, gradient_FD, part_P, features, d_in, **tile.settings)
        energy = part_P.sum()
        for other in others:
            energy = energy + torch.linalg.vector_norm(other).double().square()
        return energy

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
        numel = parameter.numel()
        shape = (parameter.shape[0], parameter.shape[1]) if unit_rows else (-(-numel // FLAT_COLUMNS), FLAT_COLUMNS)
        # Filled on the device: a number that is sent there is waited for, and an argument of a kernel is rounded to float32.
        rates = self.workspace.get("triton.rates", (2,), torch.float64)
        rates[0].fill_(step.rate / (1 - step.beta1**step.step))
        rates[1].fill_((1 - step.beta2**step.step) ** -0.5)
        tile = vector_tile(*shape)
        launch(parameters.adam, tile.grid(shape[0]),
            parameter, gradient, *moments, parameter if rounded is None else rounded, scale, rates, *shape, numel,
            step.beta1, step.beta2, step.epsilon, unit_rows, rounded is not None, **tile.settings,
        )  # fmt: skip


def _block_dtype(encoder: Encoder) -> torch.dtype:
    """Of pre-activations: rounded like the factors they are the product of, which halves what the search has to read."""
    return encoder.b_F.dtype if encoder.rounded_DF is None else torch.bfloat16


class TritonDenseKernels(DenseProducts, TritonKernels):
    """The same selection, with the products behind it as GEMMs over [B, F] buffers."""
