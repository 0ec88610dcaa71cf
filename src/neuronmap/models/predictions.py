"""What a model predicts with its activations as they are, and how other predictions differ: loss and KL by position.

Shapes: B contexts, T tokens, N scored rows, n rows of a chunk, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.errors import InputError

__all__ = ["CleanPredictions", "row_chunks"]

_CHUNK_VALUES = 8 << 20
"""Logits handled at once: 32 MB in float32."""


class CleanPredictions:
    """The clean log-probabilities of one batch's scored rows, in a buffer that is reused from batch to batch.

    log_softmax is taken in float32, where its error (1e-6 nats) is far below what is measured; sums are float64.
    """

    def __init__(self) -> None:
        self._buffer = torch.empty(0)
        self._log_p_NV = self._buffer

    def take(self, logits_BTV: Tensor, rows_N: Tensor, target_N: Tensor) -> Tensor:
        """Keep the rows' log-probabilities; their cross-entropy, float64 [N] on the CPU."""
        V, N = logits_BTV.shape[-1], rows_N.numel()
        if self._buffer.numel() < N * V:
            self._buffer = torch.empty(N * V, dtype=torch.float32, device=logits_BTV.device)
        self._log_p_NV = self._buffer[: N * V].view(N, V)
        flat = logits_BTV.reshape(-1, V)
        for part in row_chunks(N, V):
            chunk_nV = flat.index_select(0, rows_N[part]).float()
            torch.log_softmax(chunk_nV, dim=-1, out=self._log_p_NV[part])
        ce_N = -self._log_p_NV.gather(1, target_N.unsqueeze(1)).squeeze(1).double().cpu()
        if not bool(ce_N.isfinite().all()):
            raise InputError(
                f"The language model gives NaN or infinite logits at {int((~ce_N.isfinite()).sum())} of {N} positions.",
                hint="Load the model in float32 (dtype='float32'); if it stays, the weights are damaged.",
            )
        return ce_N

    @property
    def log_probabilities(self) -> Tensor:
        """float32 [N, V] of the rows last taken; valid until the next are."""
        return self._log_p_NV

    def compare(self, name: str, logits_BTV: Tensor, rows_N: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of other logits and KL(kept || other), each float64 [N] on the CPU."""
        V, N = logits_BTV.shape[-1], rows_N.numel()
        flat = logits_BTV.reshape(-1, V)
        ce_N, kl_N = torch.empty(N, dtype=torch.float64), torch.empty(N, dtype=torch.float64)
        for part in row_chunks(N, V):
            log_p_nV = self._log_p_NV[part]
            log_q_nV = torch.log_softmax(flat.index_select(0, rows_N[part]).float(), dim=-1)
            ce_N[part] = -log_q_nV.gather(1, target_N[part].unsqueeze(1)).squeeze(1).double().cpu()
            # p (log p - log q), not p log p - p log q: the difference is small and must not drown in rounding.
            # A token that no logits allow (-inf, padding of the vocabulary) has p = 0 and adds nothing.
            p_nV = log_p_nV.exp()
            gap_nV = torch.sub(log_p_nV, log_q_nV, out=log_q_nV).masked_fill_(p_nV == 0, 0.0)
            kl_N[part] = gap_nV.mul_(p_nV).sum(-1, dtype=torch.float64).cpu()
        broken = int((~(ce_N.isfinite() & kl_N.isfinite())).sum())
        if broken:
            raise InputError(
                f"With '{name}' in the activation's place the model gives NaN or infinite loss at {broken} of {N} positions.",
                hint="Load the model in float32 (dtype='float32'); if it stays, look at the SAE's reconstruction.",
            )
        return ce_N, kl_N


def row_chunks(rows: int, values: int) -> list[slice]:
    """Slices of rows of ``values`` logits each, about 32 MB a slice."""
    step = max(1, _CHUNK_VALUES // values)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
