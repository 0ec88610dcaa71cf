"""The Triton backend: column-blocked products by torch, everything between them by Triton kernels.

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
from neuronmap.saes.kernels.triton.tiles import launch, list_tile, vector_tile

__all__ = ["TritonDenseKernels", "TritonKernels"]

BLOCK_BYTES = 2**27
"""Of pre-activations that exist at a time: 8192 features of 4096 rows. A block costs up to eleven kernels besides its product,
some 5 us each to launch, so it should be large; it need not stay in a cache, since a GPU's memory is quick."""
LEAST_BLOCK = 256
FIRST_BLOCK = 8
"""The first block is that many times narrower: nothing is known of the bound yet, and half of it is listed."""
PART_ENTRIES = 256
"""Entries of a feature that one program sums: a feature that fires in every row does not hold up the others."""
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

    # --- encode --------------------------------------------------------------------------------------------------

    def encode_top_k(self, encoder: Encoder, k: int) -> Encoded:
        kept_BM = self._kept(encoder)
        search = TopK(self.workspace, encoder.num_rows, min(k, encoder.num_features), encoder.b_F)
        for first, pre_BW, bias_W in self._blocks(encoder, kept_BM):
            search.add(pre_BW, bias_W, first)
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

    def _blocks(self, encoder: Encoder, kept_BM: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor]]:
        """First feature, product without bias [B, W] and bias [W] of each block of features; the buffer is the same each time."""
        num_rows, features, dtype = encoder.num_rows, encoder.num_features, encoder.b_F.dtype
        if not num_rows:
            return
        width = max(BLOCK_BYTES // (dtype.itemsize * num_rows) // 64 * 64, LEAST_BLOCK)
        narrow = max(width // FIRST_BLOCK, min(LEAST_BLOCK, width))
        for first, stop in pairwise([0, *range(narrow, features, width), features]):
            pre_BW = self.workspace.get("triton.block", (num_rows, stop - first), dtype)
            self._product(encoder, first, stop, pre_BW)
            bias_W = encoder.b_F[first:stop]
            if kept_BM is not None and kept_BM.numel():
                chosen, tile = kept_BM.shape[1], list_tile(num_rows, kept_BM.shape[1])
                launch(
                    rows.take_columns,
                    (*tile.grid(num_rows), -(-chosen // tile.columns)),
                    pre_BW,
                    bias_W,
                    encoder.kept_M,
                    kept_BM,
                    num_rows,
                    stop - first,
                    first,
                    chosen,
                    **tile.settings,
                )
            yield first, pre_BW, bias_W

    def _product(self, encoder: Encoder, first: int, stop: int, out_BW: Tensor) -> None:
        """centred @ W of a range of features; from factors in bfloat16 if there is a copy of W in it, summed in float32."""
        if encoder.rounded_DF is None:
            torch.mm(encoder.centred_BD, encoder.W_DF[:, first:stop], out=out_BW)
            return
        shape = tuple(encoder.centred_BD.shape)
        rounded_BD = self.workspace.get("triton.rounded", shape, torch.bfloat16)
        if first == 0:
            rounded_BD.copy_(encoder.centred_BD)
        factors = (rounded_BD, encoder.rounded_DF[:, first:stop])
        if out_BW.is_cuda:
            torch.mm(*factors, out_dtype=torch.float32, out=out_BW)
        else:  # a CPU has no product of mixed precision: the same numbers, widened
            torch.mm(*(factor.to(out_BW.dtype) for factor in factors), out=out_BW)

    # --- decode, errors, gradients -------------------------------------------------------------------------------

    def reconstruct(
        self, code: SparseCode, W_dec_FD: Tensor, centred_BD: Tensor, widths: tuple[int, ...], scale: float
    ) -> Reconstruction:
        """As the protocol says; the entries of a row must be in order of their features, as all codes of this backend are."""
        (num_rows, d_in), levels = centred_BD.shape, len(widths)
        pulled_LBD = self.workspace.get("pulled", (levels, num_rows, d_in), centred_BD.dtype)
        squared_BL = self.workspace.get("triton.squared", (num_rows, levels), centred_BD.dtype)
        gradient_N = torch.zeros_like(code.value_N)
        if num_rows:
            tile = vector_tile(num_rows, d_in)
            launch(products.decode, tile.grid(num_rows),
                self._edges(code, widths), code.feature_N, code.value_N, W_dec_FD, centred_BD, pulled_LBD, squared_BL, gradient_N,
                num_rows, d_in, num_rows * d_in, levels, **tile.settings,
            )  # fmt: skip
        return Reconstruction(pulled_LBD[-1], pulled_LBD, squared_BL.mean(dim=0), gradient_N.mul_(scale))

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
        tile = vector_tile(tasks, d_in)
        launch(products.feature_sums, tile.grid(tasks),
            feature_T, first_F, offset_F, code.row_N[order_N], code.value_N[order_N].mul_(scale), gradient_N[order_N],
            reconstruction.pulled_LBD, centred_BD, self._widths(widths, sorted_N.device), *whole, *parts,
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


class TritonDenseKernels(DenseProducts, TritonKernels):
    """The same selection, with the products behind it as GEMMs over [B, F] buffers."""
