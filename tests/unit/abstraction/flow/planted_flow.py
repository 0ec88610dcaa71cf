"""Codes and decoders with a known relation between two layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse
import torch

from neuronmap.abstraction.flow.codes import SharedCodes

CONTEXTS, LENGTH, D = 100, 40, 64
ROWS = CONTEXTS * (LENGTH - 1)


def shared(columns: Sequence[np.ndarray], contexts: int = CONTEXTS, length: int = LENGTH) -> SharedCodes:
    """Codes of SAEs given as dense [N, F]; position 0 of each context is no row."""
    context, place = np.divmod(np.arange(contexts * length), length)
    row = place > 0
    codes = [scipy.sparse.csr_matrix(f_NF.astype(np.float32)) for f_NF in columns]
    return SharedCodes(codes, context[row].astype(np.int32), place[row].astype(np.int32), contexts, length)


def random_code(features: int, seed: int, rate: float = 0.03, rows: int = ROWS) -> np.ndarray:
    """Independent features: float32 [N, F], each active at a share of the rows around ``rate``."""
    rng = np.random.default_rng(seed)
    rates_F = rate * rng.uniform(0.5, 2.0, features)
    active_NF = rng.random((rows, features)) < rates_F
    values_NF: np.ndarray = np.where(active_NF, rng.gamma(4.0, 1.0, (rows, features)), 0.0).astype(np.float32)
    return values_NF


def directions(features: int, seed: int, width: int = D) -> torch.Tensor:
    """Random unit rows."""
    W_FD = torch.randn(features, width, generator=torch.Generator().manual_seed(seed))
    unit_FD: torch.Tensor = W_FD / W_FD.norm(dim=1, keepdim=True)
    return unit_FD


def noisy(f_NF: np.ndarray, seed: int, kept: float = 0.95, noise: float = 0.1) -> np.ndarray:
    """The same firing, but for a few rows and a little of the activation."""
    rng = np.random.default_rng(seed)
    stays_NF = rng.random(f_NF.shape) < kept
    values_NF: np.ndarray = (f_NF * stays_NF * rng.lognormal(0.0, noise, f_NF.shape)).astype(np.float32)
    return values_NF
