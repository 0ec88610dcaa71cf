"""What any SAE must be compared with: the identity, as many principal components, random directions, and neurons.

All are fitted on training rows, never on what is scored, and those that are sparse keep as many entries as the SAE has
active features (L0) on the rows that are scored: its own L0 on training rows may be another.

    identity   f = x                                xhat = x
    pca        f = V_k (x - mean)                   xhat = f V_k + mean                   k components, dense
    random     f = s topk_k(relu(R (x - mean)))     xhat = f R + mean                     rows of R uniform on the sphere
    neurons    f = topk_k by |.| of (x - mean)      xhat = f + mean                       raw coordinates

s is the one number that fits best (least squares): without it directions that overlap would be counted twice.

Shapes: N rows, D = d_in, F = width of the code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuronmap.errors import InputError
from neuronmap.evaluation.suites.coding import pieces
from neuronmap.evaluation.suites.record import BaselineFacts

__all__ = ["Dictionary", "make_baselines"]


class Dictionary:
    """A code and its decoder; what :func:`neuronmap.evaluation.evaluate_sae` needs of an SAE.

    Args:
        facts: what it is.
        code: rows [..., D], minus ``b_dec``, -> code [..., F].
        W_dec: directions [F, D].
        b_dec: [D], added by the decoder.
    """

    def __init__(self, name: str, facts: BaselineFacts, code: Callable[[Tensor], Tensor], W_dec: Tensor, b_dec: Tensor):
        self.architecture, self.facts, self._code = name, facts, code
        self.W_dec, self.b_dec = W_dec, b_dec
        self.d_sae, self.d_in = W_dec.shape

    def encode(self, x: Tensor) -> Tensor:
        """Code [..., F] of rows [..., D]."""
        return self._code(x - self.b_dec)

    def decode(self, f: Tensor) -> Tensor:
        """Reconstruction [..., D]."""
        return f @ self.W_dec + self.b_dec


def make_baselines(rows_ND: Tensor, d_sae: int, l0: float, seed: int) -> dict[str, Dictionary]:
    """Fit the baselines.

    Args:
        rows_ND: float32 training rows, on the device that everything runs on.
        d_sae: width of the SAE, and of the random dictionary.
        l0: active features of the SAE on a row of what is measured; rounded, and at least 1, it is the baselines' k.
        seed: of the random directions.

    Raises:
        InputError: there are fewer than two rows.
    """
    if rows_ND.shape[0] < 2:
        raise InputError(f"Baselines need at least 2 training rows to be fitted on; there are {rows_ND.shape[0]}.")
    D = rows_ND.shape[1]
    k, F = min(max(1, round(l0)), D), d_sae
    mean_D = rows_ND.double().mean(0).to(rows_ND)
    eye_DD = torch.eye(D).to(rows_ND)
    components_kD = _components(rows_ND, k)
    random_FD = torch.randn(F, D, generator=torch.Generator().manual_seed(seed)).to(rows_ND)
    random_FD /= random_FD.norm(dim=1, keepdim=True)
    scale = _scale(rows_ND - mean_D, random_FD, min(k, F))

    def facts(description: str, width: int, kept: int | None) -> BaselineFacts:
        return BaselineFacts(description=description, d_sae=width, k=kept)

    return {
        "identity": Dictionary(
            "identity", facts("the activation itself", D, None), torch.clone, eye_DD, torch.zeros_like(mean_D)
        ),
        "pca": Dictionary(
            "pca",
            facts(f"the first {k} principal components of training rows", k, None),
            lambda x: x @ components_kD.T,
            components_kD,
            mean_D,
        ),
        "random": Dictionary(
            "random",
            facts(f"{F:,} random directions, the {min(k, F)} largest kept, one fitted scale", F, min(k, F)),
            lambda x: scale * _kept_largest(x @ random_FD.T, min(k, F)),
            random_FD,
            mean_D,
        ),
        "neurons": Dictionary(
            "neurons",
            facts(f"raw coordinates, the {k} farthest from their mean kept", D, k),
            lambda x: _kept_farthest(x, k),
            eye_DD,
            mean_D,
        ),
    }


def _components(rows_ND: Tensor, k: int) -> Tensor:
    """The k directions of largest variance [k, D], by the covariance in float64."""
    centred_ND = rows_ND.double().cpu()
    centred_ND = centred_ND - centred_ND.mean(0)
    _, vectors_DD = torch.linalg.eigh(centred_ND.T @ centred_ND)
    components_kD: Tensor = vectors_DD.flip(1)[:, :k].T.contiguous().to(rows_ND)
    return components_kD


def _kept_largest(pre: Tensor, k: int) -> Tensor:
    """The k largest entries of each row that are above 0; zeros elsewhere."""
    top = pre.topk(k, dim=-1)
    kept: Tensor = torch.zeros_like(pre).scatter_(-1, top.indices, top.values.clamp_min(0))
    return kept


def _kept_farthest(x: Tensor, k: int) -> Tensor:
    """The k entries of each row that are farthest from 0."""
    chosen = x.abs().topk(k, dim=-1).indices
    kept: Tensor = torch.zeros_like(x).scatter_(-1, chosen, x.gather(-1, chosen))
    return kept


def _scale(centred_ND: Tensor, random_FD: Tensor, k: int) -> float:
    """s that minimises sum |x - s f R|^2."""
    dot, square = 0.0, 0.0
    for x_ND in pieces(centred_ND, 1024):
        xhat_ND = _kept_largest(x_ND @ random_FD.T, k) @ random_FD
        dot += float((x_ND * xhat_ND).double().sum())
        square += float(xhat_ND.double().square().sum())
    return dot / square if square > 0 else 1.0
