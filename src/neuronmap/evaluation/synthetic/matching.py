"""Latents and truths by the cosines of their directions: matched one to one, and nearest neighbours.

The matrix of cosines is G F float32 and the assignment works on a float64 copy of it, on a CPU: 16,384 truths with 4,096 latents
take 0.8 GB and with 16,384 latents 3 GB.

Shapes: G truths, F latents, D width, M = min(G, F) matched pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from neuronmap.errors import InputError, MismatchError
from neuronmap.evaluation.rows import Autoencoder

__all__ = ["Matching", "decoder_directions", "match_directions"]

UNMATCHED = -1


@dataclass(frozen=True)
class Matching:
    """Who belongs to whom. All on the CPU.

    Attributes:
        latent_G: int64 [G], the latent matched to each truth; -1 for none.
        cosine_G: [G], its cosine, with sign; 0 for none.
        nearest_latent_G: [G], largest cosine of each truth with any latent.
        nearest_truth_F: [F], largest cosine of each latent with any truth.
        unsigned_M: [M], |cosine| of the pairs of a matching by |cosine|.
        unsigned_truth_F: int64 [F], the nearest truth of each latent by |cosine|.
    """

    latent_G: Tensor
    cosine_G: Tensor
    nearest_latent_G: Tensor
    nearest_truth_F: Tensor
    unsigned_M: Tensor
    unsigned_truth_F: Tensor


def decoder_directions(sae: Autoencoder) -> Tensor:
    """float32 [F, D], what one unit of each latent adds to the reconstruction: ``W_dec``, or found by decoding unit vectors."""
    weights = getattr(sae, "W_dec", None)
    if isinstance(weights, Tensor):
        return weights.detach().float()
    with torch.no_grad():
        unit_FF = torch.eye(sae.d_sae)
        return (sae.decode(unit_FF) - sae.decode(torch.zeros(1, sae.d_sae))).float()


def match_directions(latents_FD: Tensor, truths_GD: Tensor) -> Matching:
    """Match latents and truths by cosine. A latent of length 0 has cosine 0 with everything.

    Raises:
        MismatchError: if their widths differ.
        InputError: for directions that are not finite.
    """
    if latents_FD.shape[1] != truths_GD.shape[1]:
        raise MismatchError(
            f"The SAE's directions are {latents_FD.shape[1]} wide, the synthetic model's {truths_GD.shape[1]}."
        )
    if not bool(latents_FD.isfinite().all()):
        raise InputError("The SAE's decoder holds NaN or infinity.", hint="Its weights are damaged.")
    unit_FD = torch.nn.functional.normalize(latents_FD.detach().float(), dim=1)
    cosine_GF = (truths_GD.to(unit_FD) @ unit_FD.T).cpu()
    truth_M, latent_M = _assign(cosine_GF)
    latent_G = torch.full((len(cosine_GF),), UNMATCHED)
    latent_G[truth_M] = latent_M
    cosine_G = torch.zeros(len(cosine_GF))
    cosine_G[truth_M] = cosine_GF[truth_M, latent_M]
    nearest_latent_G, nearest_truth_F = cosine_GF.amax(1), cosine_GF.amax(0)
    size_GF = cosine_GF.abs_()
    return Matching(latent_G, cosine_G, nearest_latent_G, nearest_truth_F, size_GF[_assign(size_GF)], size_GF.argmax(0))


def _assign(gain_GF: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs with the largest sum of gains."""
    cost_GF = gain_GF.numpy().astype(np.float64)
    np.negative(cost_GF, out=cost_GF)
    row_M, column_M = linear_sum_assignment(cost_GF)
    return torch.from_numpy(row_M), torch.from_numpy(column_M)
