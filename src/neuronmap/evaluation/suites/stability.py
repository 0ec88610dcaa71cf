"""Seed stability: which features of an SAE a second one, trained with another seed, finds again.

Decoder rows are made unit and matched one to one: by the best assignment, or, where F^2 would be too many, as pairs that are each other's
nearest. Chance is the same with rows drawn at random with the mean and covariance of the second decoder's: what two decoders share because
both lie in one cloud (a common mean, few large directions) is no feature that was found again.

Shapes: A features of the first, B of the second, D = d_in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from neuronmap.errors import MismatchError
from neuronmap.evaluation.suites.coding import pieces
from neuronmap.evaluation.suites.record import StabilitySuite
from neuronmap.evaluation.suites.structure import matched_rows, nearest, redundancy_of, unit_decoder
from neuronmap.progress import Progress

__all__ = ["stability_suite"]

MOST_ASSIGNED = 6144
"""Features up to which the best assignment is found (F = 4,096: about 10 seconds); beyond, pairs of mutual nearest."""


def stability_suite(
    sae: Any, against: Any, *, name: str, digest: str, alive_F: Tensor | None, seed: int, progress: Progress
) -> StabilitySuite:
    """Match the features of two SAEs.

    Args:
        sae, against: SAEs with ``W_dec`` [F, D] of one width D.
        name, digest: of the second.
        alive_F: bool [A], features of the first that fire; None if that is not known.
        seed: of the random rows.
        progress: where the bar goes.

    Raises:
        MismatchError: they have no such decoder, or the widths D differ.
    """
    first_AD, second_BD = unit_decoder(sae), unit_decoder(against)
    if first_AD.shape[1] != second_BD.shape[1]:
        raise MismatchError(
            f"The two SAEs read activations of width {first_AD.shape[1]} and {second_BD.shape[1]}; their features cannot be matched."
        )
    by_assignment = min(len(first_AD), len(second_BD)) <= MOST_ASSIGNED
    drawn_BD = matched_rows(second_BD, torch.Generator().manual_seed(seed))
    with progress.task("Matching features", 3, "matchings") as bar:
        mine_P, cosine_P = _matched(first_AD, second_BD, by_assignment)
        bar.advance(1)
        by_chance_P, chance_P = _matched(first_AD, drawn_BD, by_assignment)
        bar.advance(1)
        forth_A, back_B = nearest(first_AD, second_BD), nearest(second_BD, first_AD)
        bar.advance(1)
    size = min(len(first_AD), len(second_BD))

    def of_alive(pairs_P: Tensor, cosines_P: Tensor, threshold: float) -> float | None:
        alive = 0 if alive_F is None else min(int(alive_F.sum()), size)
        return _share(cosines_P[alive_F[pairs_P]], threshold, alive) if alive_F is not None and alive else None

    return StabilitySuite(
        against=name,
        against_digest=digest,
        matching="assignment" if by_assignment else "mutual best",
        pairs=len(cosine_P),
        mean_cosine=float(cosine_P.mean()) if len(cosine_P) else None,
        share_above_07=_share(cosine_P, 0.7, size),
        share_above_09=_share(cosine_P, 0.9, size),
        alive_share_above_07=of_alive(mine_P, cosine_P, 0.7),
        alive_share_above_09=of_alive(mine_P, cosine_P, 0.9),
        chance_mean_cosine=float(chance_P.mean()) if len(chance_P) else None,
        chance_share_above_07=_share(chance_P, 0.7, size),
        chance_share_above_09=_share(chance_P, 0.9, size),
        chance_alive_share_above_07=of_alive(by_chance_P, chance_P, 0.7),
        best_forth=redundancy_of(forth_A),
        best_back=redundancy_of(back_B),
    )


def _share(cosine_P: Tensor, threshold: float, of: int) -> float:
    return int((cosine_P > threshold).sum()) / of


def _matched(first_AD: Tensor, second_BD: Tensor, by_assignment: bool) -> tuple[Tensor, Tensor]:
    """Features of the first that are in a pair [P], and the cosines of the pairs [P]."""
    if by_assignment:
        cosine_AB = (first_AD @ second_BD.T).cpu().numpy()
        rows_P, columns_P = linear_sum_assignment(cosine_AB, maximize=True)
        return torch.from_numpy(rows_P), torch.from_numpy(cosine_AB[rows_P, columns_P].astype(np.float64))
    forth, back = _argbest(first_AD, second_BD), _argbest(second_BD, first_AD)
    mine_P = (back[forth] == torch.arange(len(first_AD))).nonzero().squeeze(1)
    return mine_P, torch.linalg.vecdot(first_AD[mine_P], second_BD[forth[mine_P]]).double().cpu()


def _argbest(first_AD: Tensor, second_BD: Tensor) -> Tensor:
    return torch.cat([(part_aD @ second_BD.T).argmax(1).cpu() for part_aD in pieces(first_AD, 1024)])
