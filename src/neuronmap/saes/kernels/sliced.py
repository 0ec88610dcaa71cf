"""A backend for an SAE whose features lie on several processes: each takes its own products, and what needs all features is put together.

Shapes: B rows, D = d_in, N entries of a code, L levels, M chosen features; T ranks share the features, F of them here.

    encode_*           the backend's own, of this rank's features; a row's k largest of all ranks are found among the k largest of each
    reconstruct        every level's decode is added up over the ranks, [L, B, D]; gradients are this rank's entries'
    weight_gradients   the backend's own: features need nothing of each other here

A row's cut is exact: 4 B k bytes go from each rank to the others. Ties go to the lowest feature, as in one process, because ranks hold
consecutive features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from neuronmap.saes.kernels.across import encode_top_across
from neuronmap.saes.kernels.code import SparseCode, offsets
from neuronmap.saes.kernels.portable import Decoded
from neuronmap.saes.kernels.protocol import AdamStep, Encoded, Encoder, Kernels, Reconstruction
from neuronmap.saes.ranks import Ranks

__all__ = ["SlicedKernels", "largest_of_rows"]


class SlicedKernels:
    """The answers of a backend, of all ranks' features where these decide; every rank makes the same calls.

    Args:
        own: the backend that works on this rank's features. Its workspace says who the others are.
    """

    def __init__(self, own: Kernels) -> None:
        self._own, self.workspace = own, own.workspace
        self.name, self.dense_above = own.name, own.dense_above

    @property
    def _features(self) -> Ranks:
        return self.workspace.features

    # --- encode --------------------------------------------------------------------------------------------------

    def encode_top_k(self, encoder: Encoder, k: int) -> Encoded:
        encoded = self._own.encode_top_k(encoder, min(k, encoder.num_features))
        return Encoded(largest_of_rows(encoded.code.trimmed(), k, self._features), encoded.kept_BM)

    def encode_top_of_batch(self, encoder: Encoder, count: int) -> Encoded:
        return encode_top_across(cast("Kernels", self), encoder, count, self.workspace)

    def encode_above(self, encoder: Encoder, floor_F: Tensor | None, limit: int) -> Encoded | None:
        """This rank's entries; None on all ranks as soon as one has more than ``limit``."""
        encoded = self._own.encode_above(encoder, floor_F, limit)
        if limit < encoder.num_rows * encoder.num_features:
            given_up = torch.tensor(int(encoded is None), device=encoder.W_DF.device)
            if int(self._features.sum_(given_up)):
                return None
        return encoded

    def top_k_of(self, pre_BM: Tensor, k: int) -> SparseCode:
        """Of the features that are here, which may be none, and of those that others have chosen."""
        rows, chosen = pre_BM.shape
        if chosen:
            code = self._own.top_k_of(pre_BM, min(k, chosen)).trimmed()
        else:
            index = torch.zeros(0, dtype=torch.int32, device=pre_BM.device)
            offset_R = torch.zeros(rows + 1, dtype=torch.int64, device=pre_BM.device)
            code = SparseCode(index, index.clone(), pre_BM.new_zeros(0), offset_R, 0)
        return largest_of_rows(code, k, self._features)

    def keep_top_k(self, pre_BM: Tensor, k: int) -> Tensor:
        code = self.top_k_of(pre_BM, k)
        return code.dense(code.value_N, pre_BM)

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
        """As the protocol says, of all ranks' features; ``widths`` count those that are here."""
        code = code.trimmed()
        pulled_LBD = self.workspace.get("pulled", (len(widths), *centred_BD.shape), centred_BD.dtype)
        decoded: list[Decoded] = []
        for level, (start, stop) in enumerate(zip((0, *widths), widths, strict=False)):
            decoded.append(Decoded.of(code, W_dec_FD, start, stop))
            pulled_LBD[level].copy_(decoded[level].xhat_BD.detach())
        self._features.sum_(pulled_LBD)
        squares: list[Tensor] = []
        for level in range(len(widths)):
            below_BD = pulled_LBD[level - 1] if level else None
            pulled_LBD[level].sub_(centred_BD) if below_BD is None else pulled_LBD[level].add_(below_BD)
            squares.append(torch.linalg.vector_norm(pulled_LBD[level], dim=1).square_().mean())
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
        if code.num_features:
            self._own.weight_gradients(code.trimmed(), gradient_N, reconstruction, centred_BD, widths, scale, out)

    # --- parameter step ------------------------------------------------------------------------------------------

    def gradient_energy(self, W_dec_FD: Tensor, gradient_FD: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Of what is here; the parameter step knows what else there is."""
        return self._own.gradient_energy(W_dec_FD, gradient_FD, others)

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
        self._own.adam(parameter, gradient, moments, step, scale, unit_rows, rounded)


def largest_of_rows(code: SparseCode, k: int, features: Ranks) -> SparseCode:
    """The entries of a code that are among their row's k largest of all ranks.

    Args:
        code: the k largest of each row of this rank's features, all positive.
        k: how many of all ranks.
        features: the ranks, which hold consecutive features.
    """
    rows = code.num_rows
    row_N = code.row_N.long()
    place_N = torch.arange(code.num_entries, device=row_N.device) - code.offset_R[row_N]
    value_BK = code.value_N.new_zeros(rows, k)
    value_BK[row_N, place_N] = code.value_N
    value_TBK = features.gathered(value_BK)
    cut_B = value_TBK.movedim(0, 1).reshape(rows, -1).topk(k, dim=1).values[:, -1]
    above_B = (value_TBK > cut_B.unsqueeze(1)).sum(dim=(0, 2))
    tied_TB = ((value_TBK == cut_B.unsqueeze(1)) & (cut_B > 0).unsqueeze(1)).sum(dim=2)
    room_B = k - above_B - tied_TB[: features.rank].sum(dim=0)  # for entries of this rank that equal the cut
    keep_N = code.value_N > cut_B[row_N]
    tied = torch.nonzero(code.value_N == cut_B[row_N]).view(-1)
    if len(tied):
        tied = tied[torch.argsort(row_N[tied] * max(code.num_features, 1) + code.feature_N[tied].long())]
        before_B = offsets(row_N[tied], rows)
        within_n = torch.arange(len(tied), device=tied.device) - before_B[row_N[tied]]
        keep_N[tied[within_n < room_B[row_N[tied]]]] = True
    kept = code.row_N[keep_N]
    return SparseCode(kept, code.feature_N[keep_N], code.value_N[keep_N], offsets(kept.long(), rows), code.num_features)
