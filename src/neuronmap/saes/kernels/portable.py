"""The sparse step by public torch operations only: needs nothing but torch, runs on any device, and is the reference.

Shapes: B rows, D = d_in, F = d_sae, N entries of a code, L levels, M chosen features, R rows of a chunk.

A step of a sparse SAE needs four products besides the encoder's GEMM; each touches the N active entries only:

    xhat_BD  = f_BF @ W_dec_FD                 embedding_bag over the rows
    df_N     = (G_BD @ W_dec_FD^T) at entries  the gradient of that embedding_bag to its per-sample weights
    gW_FD    = f_BF^T @ G_BD                   embedding_bag over the entries sorted by feature
    gWenc_FD = df_BF^T @ x_BD                  the same, same sort

4 B k D multiply-adds instead of 4 B F D. Measured (2 cores, B=4096, D=576, F=4096, k=32), in units of one encoder GEMM:
0.07 for the first two together, 0.02 to 0.03 for each of the others; adding materialised contributions row by row
(index_add) costs some fifty times as much. embedding_bag sums each bag in the order of its list, in one thread, so
results are the same from run to run.

The encoder runs over chunks of rows, so that what exists of the pre-activations at a time is [R, F].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.optim.adam import adam as adam_step

from neuronmap.saes.kernels.code import SparseCode, offsets
from neuronmap.saes.kernels.protocol import AdamStep, Encoded, Encoder, Reconstruction
from neuronmap.saes.kernels.select import positive_above, sampled_bound, select_top_k, top_of_entries
from neuronmap.saes.workspace import Workspace

__all__ = ["Decoded", "DenseKernels", "DenseProducts", "TorchKernels"]

CHUNK_ENTRIES = 2**24
"""Pre-activations that exist at a time (64 MiB of float32), unless ``LEAST_ROWS`` rows are more."""
LEAST_ROWS = 512
"""Fewer rows cost a GEMM 20 to 50 % of its speed: the weights are repacked for each chunk."""
SAMPLE_ROWS = 64
"""Rows encoded in advance, to guess where the first batch's threshold lies."""
MARGIN = 0.9
"""Of the last batch's threshold: what an entry has to exceed to be looked at."""
CHUNK_FEATURES = 1024
"""Features a weight gradient is computed for at a time: the result is still in cache when it is copied to its place."""


class TorchKernels:
    """The backend ``torch``.

    Args:
        workspace: where buffers live.
    """

    name: ClassVar[str] = "torch"
    dense_above: ClassVar[float] = 1 / 6
    """Measured crossover on a CPU: a density of 1/4 to 1/5 while W_dec fits the cache (F=1152 and 4096, D=576), 1/10 at F=16384."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._last_cut = 0.0

    # --- encode --------------------------------------------------------------------------------------------------

    def encode_top_k(self, encoder: Encoder, k: int) -> Encoded:
        kept_BM = self._kept(encoder)
        parts = [select_top_k(pre_RF, k) for _, pre_RF in self._chunks(encoder, kept_BM)]
        return Encoded(_joined(parts), kept_BM)

    def encode_top_of_batch(self, encoder: Encoder, count: int) -> Encoded:
        kept_BM = self._kept(encoder)
        for bound in self._likely_bounds(encoder, count):
            found: list[tuple[Tensor, Tensor]] = []
            for start, pre_RF in self._chunks(encoder, kept_BM):
                flat_n, value_n = positive_above(pre_RF, bound, self.workspace)
                found.append((flat_n.add_(start * encoder.num_features), value_n))
            flat_N, value_N = torch.cat([flat for flat, _ in found]), torch.cat([value for _, value in found])
            if value_N.numel() >= count or bound == 0.0:
                break
        kept = top_of_entries(value_N, count)
        if kept is not None:
            flat_N, value_N = flat_N[kept], value_N[kept]
        self._last_cut = float(value_N.min()) if 0 < value_N.numel() == count else 0.0
        return Encoded(SparseCode.from_flat(flat_N, value_N, encoder.num_rows, encoder.num_features), kept_BM)

    def _likely_bounds(self, encoder: Encoder, count: int) -> Iterator[float]:
        """Bounds >= 0 that ``count`` entries of the batch may exceed, until they do: what is found does not depend on them.

        A few rows mislead at one step in four (F = 4096, k = 32), and each time the encoder runs again; the last batch's threshold
        hardly ever.
        """
        if not encoder.num_rows:
            yield 0.0
            return
        per_row = count / encoder.num_rows
        rows = encoder.centred_BD[:: max(1, encoder.num_rows // SAMPLE_ROWS)]
        if self._last_cut > 0.0:
            yield self._last_cut * MARGIN
        else:
            yield sampled_bound(torch.addmm(encoder.b_F, rows, encoder.W_DF), 1.3 * per_row + 1.0)
        yield sampled_bound(torch.addmm(encoder.b_F, rows, encoder.W_DF), 3.0 * per_row + 1.0)
        yield 0.0

    def encode_above(self, encoder: Encoder, floor_F: Tensor | None, limit: int) -> Encoded | None:
        kept_BM = self._kept(encoder)
        rows, features, values = [], [], []
        found = 0
        for start, pre_RF in self._chunks(encoder, kept_BM):
            flat_n = torch.nonzero((pre_RF > (0.0 if floor_F is None else floor_F)).view(-1)).view(-1)
            found += flat_n.numel()
            if found > limit:
                return None
            row_n = torch.div(flat_n, encoder.num_features, rounding_mode="floor")
            rows.append(row_n + start)
            features.append(flat_n - row_n * encoder.num_features)
            values.append(torch.take(pre_RF, flat_n))
        row_N = torch.cat(rows)
        offset_R = offsets(row_N, encoder.num_rows)
        return Encoded(
            SparseCode(row_N, torch.cat(features), torch.cat(values), offset_R, encoder.num_features), kept_BM
        )

    def top_k_of(self, pre_BM: Tensor, k: int) -> SparseCode:
        return select_top_k(pre_BM, k)

    def keep_top_k(self, pre_BM: Tensor, k: int) -> Tensor:
        if k >= pre_BM.shape[1]:
            return pre_BM.relu_()
        code = select_top_k(pre_BM, k)
        return code.dense(code.value_N, pre_BM)

    def _kept(self, encoder: Encoder) -> Tensor | None:
        if encoder.kept_M is None:
            return None
        return self.workspace.get("kept", (encoder.num_rows, len(encoder.kept_M)), encoder.W_DF.dtype)

    def _chunks(self, encoder: Encoder, kept_BM: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """First row and pre-activations [R, F] of each chunk; the buffer is the same each time."""
        count = max(LEAST_ROWS, CHUNK_ENTRIES // encoder.num_features)
        for start in range(0, max(1, encoder.num_rows), count):
            rows_RD = encoder.centred_BD[start : start + count]
            pre_RF = self.workspace.get("pre", (len(rows_RD), encoder.num_features), encoder.W_DF.dtype)
            torch.addmm(encoder.b_F, rows_RD, encoder.W_DF, out=pre_RF)
            if kept_BM is not None and encoder.kept_M is not None:
                torch.index_select(pre_RF, 1, encoder.kept_M, out=kept_BM[start : start + count])
            yield start, pre_RF

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
        pulled_LBD = self.workspace.get("pulled", (len(widths), *centred_BD.shape), centred_BD.dtype)
        squares: list[Tensor] = []
        decoded: list[Decoded] = []
        start = 0
        for level, stop in enumerate(widths):
            decoded.append(Decoded.of(code, W_dec_FD, start, stop))
            if level == 0:
                torch.sub(decoded[0].xhat_BD.detach(), centred_BD, out=pulled_LBD[0])
            else:
                torch.add(decoded[-1].xhat_BD.detach(), pulled_LBD[level - 1], out=pulled_LBD[level])
            squares.append(torch.linalg.vector_norm(pulled_LBD[level], dim=1).square_().mean())
            start = stop
        gradient_N = torch.empty_like(code.value_N)
        for level in reversed(range(len(widths))):
            if level + 1 < len(widths):
                pulled_LBD[level].add_(pulled_LBD[-1 if detached else level + 1])
            decoded[level].pull_back(pulled_LBD[level], gradient_N)
        return Reconstruction(pulled_LBD[-1], pulled_LBD, torch.stack(squares), gradient_N.mul_(scale))

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
        # 32-bit keys: half the cost of 64-bit ones. Rows of a feature stay in order.
        order_N = torch.sort(code.feature_N.int(), stable=True).indices
        row_N, offset_F = code.row_N.long()[order_N], offsets(code.feature_N, code.num_features)
        value_N = code.value_N[order_N].mul_(scale)
        start = 0
        for level, stop in enumerate(widths):
            source_BD = reconstruction.pulled_LBD[level]
            _feature_sums(row_N, value_N, offset_F, source_BD, W_dec_FD[start:stop], start, stop)
            start = stop
        _feature_sums(row_N, gradient_N[order_N], offset_F, centred_BD, W_enc_DF.T, 0, code.num_features)
        totals_F = torch.bincount(code.feature_N, weights=gradient_N, minlength=code.num_features)
        b_enc_F.copy_(totals_F)

    # --- parameter step ------------------------------------------------------------------------------------------

    def gradient_energy(self, W_dec_FD: Tensor, gradient_FD: Tensor, others: Sequence[Tensor]) -> Tensor:
        along_F = torch.linalg.vecdot(gradient_FD, W_dec_FD)
        norm_F = torch.linalg.vector_norm(W_dec_FD, dim=1).square_()
        square_F = torch.linalg.vector_norm(gradient_FD, dim=1).square_()
        energy: Tensor = square_F.addcmul_(along_F.square_(), norm_F.sub_(2.0)).clamp_min_(0.0).sum()
        for other in others:
            energy = energy + torch.linalg.vector_norm(other).square_()
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
        if unit_rows:
            along_F1 = torch.linalg.vecdot(gradient, parameter).unsqueeze(1)
            gradient.addcmul_(along_F1, parameter, value=-1.0)
        gradient.mul_(scale)
        steps = torch.tensor(float(step.step - 1), device=parameter.device)  # the function adds one
        adam_step(
            [parameter], [gradient], [moments[0]], [moments[1]], [], [steps], fused=True, amsgrad=False, maximize=False,
            beta1=step.beta1, beta2=step.beta2, lr=step.rate, weight_decay=0.0, eps=step.epsilon,
        )  # fmt: skip
        if unit_rows:
            parameter.div_(torch.linalg.vector_norm(parameter, dim=1, keepdim=True).clamp_min_(1e-12))
        if rounded is not None:
            rounded.copy_(parameter)


class DenseProducts:
    """The products of a step as GEMMs over [B, F] buffers, for codes that are not sparse."""

    workspace: Workspace

    def reconstruct(
        self,
        code: SparseCode,
        W_dec_FD: Tensor,
        centred_BD: Tensor,
        widths: tuple[int, ...],
        scale: float,
        detached: bool = False,
    ) -> Reconstruction:
        shape, dtype = (code.num_rows, code.num_features), code.value_N.dtype
        f_BF = code.dense(code.value_N, self.workspace.get("dense.code", shape, dtype))
        g_BF = self.workspace.get("dense.gradient", shape, dtype)
        pulled_LBD = self.workspace.get("pulled", (len(widths), *centred_BD.shape), dtype)
        squares: list[Tensor] = []
        ranges = list(zip((0, *widths), widths, strict=False))
        for level, (start, stop) in enumerate(ranges):
            below_BD = centred_BD.neg() if level == 0 else pulled_LBD[level - 1]
            torch.addmm(below_BD, f_BF[:, start:stop], W_dec_FD[start:stop], out=pulled_LBD[level])
            squares.append(torch.linalg.vector_norm(pulled_LBD[level], dim=1).square_().mean())
        for level in reversed(range(len(widths))):
            start, stop = ranges[level]
            if level + 1 < len(widths):
                pulled_LBD[level].add_(pulled_LBD[-1 if detached else level + 1])
            torch.mm(pulled_LBD[level], W_dec_FD[start:stop].T, out=g_BF[:, start:stop])
        gradient_N = torch.take(g_BF, code.flat()).mul_(scale)
        if code.padded:
            gradient_N.masked_fill_(code.value_N == 0, 0.0)
        return Reconstruction(pulled_LBD[-1], pulled_LBD, torch.stack(squares), gradient_N)

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
        shape, dtype = (code.num_rows, code.num_features), code.value_N.dtype
        f_BF = code.dense(code.value_N, self.workspace.get("dense.code", shape, dtype))
        g_BF = code.dense(gradient_N, self.workspace.get("dense.gradient", shape, dtype))
        start = 0
        for level, stop in enumerate(widths):
            torch.mm(f_BF[:, start:stop].T, reconstruction.pulled_LBD[level], out=W_dec_FD[start:stop])
            start = stop
        W_dec_FD.mul_(scale)
        torch.mm(centred_BD.T, g_BF, out=W_enc_DF)
        torch.sum(g_BF, dim=0, out=b_enc_F)


class DenseKernels(DenseProducts, TorchKernels):
    """The backend ``torch`` with dense products."""


class Decoded:
    """The decode of one level's features, and what its backward pass needs."""

    def __init__(self, xhat_BD: Tensor, weight_n: Tensor | None, entries_n: Tensor | None) -> None:
        self.xhat_BD, self._weight_n, self._entries_n = xhat_BD, weight_n, entries_n

    @classmethod
    def of(cls, code: SparseCode, W_dec_FD: Tensor, start: int, stop: int) -> Decoded:
        entries_n = code.entries_of(start, stop)
        feature_n, value_n, offset_R = code.feature_N, code.value_N, code.offset_R
        if entries_n is not None:
            feature_n, value_n = feature_n[entries_n], value_n[entries_n]
            offset_R = offsets(code.row_N[entries_n], code.num_rows)
        if feature_n.numel() == 0:
            return cls(W_dec_FD.new_zeros(code.num_rows, W_dec_FD.shape[1]), None, entries_n)
        # Autograd of embedding_bag with respect to the per-sample weights alone is the gather-and-dot we want.
        with torch.enable_grad():
            weight_n = value_n.detach().requires_grad_()
            xhat_BD = _bags(feature_n.long(), W_dec_FD.detach(), offset_R, weight_n)
        return cls(xhat_BD, weight_n, entries_n)

    def pull_back(self, gradient_BD: Tensor, out_N: Tensor) -> None:
        """Write the gradient of each entry of the range into its place."""
        if self._weight_n is None:
            return  # no entries in this range
        gradient_n = torch.autograd.grad(self.xhat_BD, self._weight_n, gradient_BD)[0]
        if self._entries_n is None:
            out_N.copy_(gradient_n)
        else:
            out_N[self._entries_n] = gradient_n


def _feature_sums(
    row_N: Tensor, weight_N: Tensor, offset_F: Tensor, source_BD: Tensor, out_FD: Tensor, start: int, stop: int
) -> None:
    """Write, for each feature of a range, the weighted sum of rows of its entries, which are sorted by feature."""
    edges = [*range(start, stop, CHUNK_FEATURES), stop]
    cuts = offset_F[edges].tolist()
    for low, high, first, last in zip(edges, edges[1:], cuts, cuts[1:], strict=False):
        part_FD = out_FD[low - start : high - start]
        if first == last:
            part_FD.zero_()
            continue
        part_offset = offset_F[low : high + 1] - first
        part_FD.copy_(_bags(row_N[first:last], source_BD, part_offset, weight_N[first:last]))


def _bags(index_n: Tensor, table: Tensor, offset_R: Tensor, weight_n: Tensor) -> Tensor:
    return functional.embedding_bag(
        index_n, table, offset_R, mode="sum", per_sample_weights=weight_n, include_last_offset=True
    )


def _joined(parts: list[SparseCode]) -> SparseCode:
    """Codes of consecutive rows as one."""
    if len(parts) == 1:
        return parts[0]
    rows = entries = 0
    row_parts, offset_parts = [], []
    for part in parts:
        row_parts.append(part.row_N + rows)
        offset_parts.append(part.offset_R[:-1] + entries)
        rows += part.num_rows
        entries += part.num_entries
    offset_parts.append(torch.tensor([entries], device=row_parts[0].device))
    return SparseCode(
        torch.cat(row_parts),
        torch.cat([part.feature_N for part in parts]),
        torch.cat([part.value_N for part in parts]),
        torch.cat(offset_parts),
        parts[0].num_features,
    )
