"""SAEs whose figures are known in closed form, and token sets made by hand. Shapes: [..., D] rows, [..., F] features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuronmap.corpora import TokenSet
from neuronmap.corpora.tokenset import TokenArrays, TokenReport
from neuronmap.hashing import digest_bytes


class Scaled:
    """Reconstruction = factor * x; features are x itself."""

    def __init__(self, d_in: int, factor: float = 1.0) -> None:
        self.d_in = self.d_sae = d_in
        self.factor = factor

    def encode(self, x: Tensor) -> Tensor:
        return x.clone()

    def decode(self, f: Tensor) -> Tensor:
        return f * self.factor


class Constant:
    """Reconstruction = one vector, whatever the input; no feature ever fires."""

    def __init__(self, vector_D: Tensor, d_sae: int = 4) -> None:
        self.vector_D = vector_D
        self.d_in, self.d_sae = len(vector_D), d_sae

    def encode(self, x: Tensor) -> Tensor:
        return torch.zeros(*x.shape[:-1], self.d_sae)

    def decode(self, f: Tensor) -> Tensor:
        return self.vector_D.expand(*f.shape[:-1], -1).to(f)


class Added:
    """Reconstruction = x + a fixed pattern that depends on the row: an error of known size."""

    def __init__(self, d_in: int, size: float) -> None:
        self.d_in = self.d_sae = d_in
        self.size = size

    def encode(self, x: Tensor) -> Tensor:
        return x.clone()

    def decode(self, f: Tensor) -> Tensor:
        return f + self.size * torch.sin(50.0 * f)


class Latents:
    """Two features: the first never fires, the second always does. W_dec rows have norm 2."""

    d_in, d_sae = 6, 2

    def __init__(self) -> None:
        self.W_dec = torch.zeros(2, 6)
        self.W_dec[:, 0] = 2.0

    def encode(self, x: Tensor) -> Tensor:
        f = torch.zeros(*x.shape[:-1], 2)
        f[..., 1] = 3.0
        return f

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.W_dec


class Broken(Scaled):
    """Gives NaN for the first row."""

    def decode(self, f: Tensor) -> Tensor:
        xhat = f.clone()
        xhat[0, 0] = torch.nan
        return xhat


def token_set(contexts: int, length: int, *, padding: int = 0, vocabulary: int = 300, seed: int = 0) -> TokenSet:
    """Random ids (0 is the separator, after every 22 tokens); ``padding`` tokens end the last context."""
    count = contexts * length
    flat_M = np.arange(count)
    ids_M = np.random.default_rng(seed).integers(3, vocabulary, size=count).astype(np.int64)
    ids_M[flat_M % 22 == 21] = 0
    document_M = np.where(ids_M == 0, -1, flat_M // 22).astype(np.int32)
    if padding:
        ids_M[-padding:] = 2
        document_M[-padding:] = -1
    report = TokenReport(
        corpus="by hand",
        source="random ids",
        part="heldout",
        tokenizer="none",
        context_length=length,
        contexts=contexts,
        documents=count // 22 + 1,
        documents_read=count // 22 + 1,
        tokens=count - padding,
        dropped_tail_tokens=0,
        padding_tokens=padding,
        bad_rows={},
        bad_examples={},
        separator="0",
        bos=None,
    )
    arrays = TokenArrays(ids_M, document_M, (flat_M % 22).astype(np.int32), np.array([0, 2]), padding, _NoDocuments())
    return TokenSet(arrays, report, digest_bytes(ids_M.tobytes()))


class _NoDocuments:
    def __len__(self) -> int:
        return 0

    def id(self, index: int) -> str:
        raise IndexError(index)

    def start(self, index: int) -> int:
        raise IndexError(index)
