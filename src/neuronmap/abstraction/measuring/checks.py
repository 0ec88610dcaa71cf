"""What speaks against a score: permutations, random concepts, control tasks, baselines, stability of directions.

Legend: L layers, N items, T training items, W width, C columns, P labelings.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from neuronmap.abstraction.measuring.frame import Frame
from neuronmap.abstraction.measuring.scores import Part, labelled_auc
from neuronmap.abstraction.measuring.series import series
from neuronmap.abstraction.probes.ridge import contrast, fit_ridge
from neuronmap.abstraction.record import ControlTask
from neuronmap.abstraction.statistics.relabelling import permuted_labels, random_labels, targets_of
from neuronmap.statistics.auc import auc, macro_auc

__all__ = [
    "baseline_aucs",
    "control_task",
    "families",
    "parallelism",
    "permuted_scores",
    "random_concepts",
    "reliability",
]


def permuted_scores(
    frame: Frame, within: Part, across: list[Part], count: int, seed: int
) -> tuple[Tensor, list[Tensor]]:
    """Scores of ``count`` permutations, refitted and tested on the permuted labels.

    Returns:
        Within, and on each left-out condition: float64 [P, L] each.
    """
    drawn_PN = permuted_labels(frame.reading.data.items, frame.labels, count, seed)
    inside_PL = labelled_auc(frame, within, drawn_PN, drawn_PN)
    return inside_PL, [labelled_auc(frame, part, drawn_PN, drawn_PN) for part in across]


def families(score_L: Tensor, permuted_PL: Tensor) -> tuple[float, Tensor]:
    """Control of the error over all layers, by the permutations' maximum (Westfall and Young).

    Returns:
        What 95 % of the permutations stay below at every layer, and the adjusted p-value of each layer [L].
    """
    most_P = permuted_PL.nan_to_num(0.5).amax(1)
    reached_L = (most_P[:, None] >= score_L[None] - 1e-9).sum(0)
    return float(torch.quantile(most_P, 0.95)), (1 + reached_L) / (1 + len(most_P))


def random_concepts(frame: Frame, within: Part, count: int, seed: int) -> Tensor:
    """95th percentile of max(AUC, 1 - AUC) on the real labels, of probes for random splits of the same texts; float64 [L].

    In the spirit of TCAV's random concepts (1711.11279): what any direction found in these texts would score.
    """
    drawn_PN = random_labels(frame.reading.data.items, frame.labels.classes, count, seed)
    found_PL = labelled_auc(frame, within, drawn_PN, frame.labels.label_N[None])
    return torch.quantile(torch.maximum(found_PL, 1 - found_PL).nan_to_num(0.5), 0.95, dim=0)


def control_task(frame: Frame, within: Part, labelings: int, seed: int) -> ControlTask | None:
    """Random labels of clusters (Hewitt and Liang 2019, D19-1275), where training and test share the clusters and where they do not.

    None where too few clusters have two items, so that training and test cannot share them.
    """
    generator = torch.Generator().manual_seed(seed)
    half_N = torch.zeros(len(frame.cluster_ids), dtype=torch.bool)
    for cluster in range(len(frame.clusters)):
        # By whole pairs: a member whose twin of the other class was learned would be told by its likeness to it, the wrong way round.
        members = torch.nonzero(frame.cluster_ids == cluster).squeeze(1).tolist()
        pairs = list(dict.fromkeys(frame.reading.data.items[at].pair for at in members))
        drawn = torch.randperm(len(pairs), generator=generator).tolist()
        kept = {pairs[at] for at in drawn[: (len(pairs) + 1) // 2]}
        half_N[[at for at in members if frame.reading.data.items[at].pair in kept]] = True
    targets_NC = frame.labels.targets()
    rows_T, rest_N = torch.nonzero(half_N).squeeze(1), torch.nonzero(~half_N).squeeze(1)
    if any(len(set(frame.labels.label_N[rows].tolist())) < frame.labels.classes for rows in (rows_T, rest_N)):
        return None
    fit = fit_ridge(frame.reading.x_LNW, rows_T, targets_NC[rows_T], frame.cluster_ids[rows_T], within.fit.ridge_L)
    real_L = macro_auc(fit.scores(targets_NC[rows_T], rest_N), frame.labels.label_N[rest_N])
    drawn_PN = random_labels(frame.reading.data.items, 2, labelings, seed + 1)
    shared_L = _binary_auc(Part("", fit, rest_N), drawn_PN).nanmean(0)
    return ControlTask(
        shared=series(shared_L),
        real=series(real_L),
        selectivity=series(real_L - shared_L),
        heldout=series(_binary_auc(within, drawn_PN).nanmean(0)),
        labelings=labelings,
    )


def _binary_auc(part: Part, drawn_PN: Tensor) -> Tensor:
    """AUC of labelings with two classes, whatever the concept has; [P, L]."""
    targets_TP = targets_of(drawn_PN[:, part.fit.rows_T], 2)[..., 0].T
    scores_LNP = part.fit.scores(targets_TP, part.test_N)
    tested_PN = drawn_PN[:, part.test_N] == 1
    return torch.stack([auc(scores_NP.T, tested_PN) for scores_NP in scores_LNP], dim=1)


def baseline_aucs(frame: Frame) -> tuple[float | None, float | None]:
    """AUC of the mean embedding of the tokens up to the one that is read, and of position and length alone."""
    items = frame.reading.data.items
    place_N2 = torch.tensor(
        [[float(position), float(item.span[0])] for position, item in zip(frame.reading.position_N, items, strict=True)]
    )
    place_ND = torch.cat([place_N2, place_N2.square()], dim=1)
    return _single(frame, frame.reading.before_NW), _single(frame, place_ND)


def _single(frame: Frame, x_NW: Tensor) -> float | None:
    rows_T, test_N, targets_NC = frame.rows("train"), frame.rows("test"), frame.labels.targets()
    fit = fit_ridge(x_NW[None].float(), rows_T, targets_NC[rows_T], frame.cluster_ids[rows_T])
    value = float(macro_auc(fit.scores(targets_NC[rows_T], test_N), frame.labels.label_N[test_N])[0])
    return value if math.isfinite(value) else None


def reliability(frame: Frame, within: Part, halves: int, seed: int) -> Tensor:
    """Cosine of the differences of class means of two random halves of the training clusters, the mean over ``halves`` splits; [L]."""
    generator = np.random.default_rng(seed)
    rows_T = within.fit.rows_T
    targets_TC = frame.labels.targets()[rows_T]
    cluster_T = frame.cluster_ids[rows_T]
    gram_LTT = within.fit.gram_LNT[:, rows_T]
    return _split_cosine(gram_LTT, targets_TC, cluster_T, halves, generator)


def parallelism(frame: Frame, within: Part, seed: int) -> Tensor | None:
    """Mean cosine between the differences of means in different conditions, over the root of their reliabilities; [L].

    NaN where a reliability is below 0.1; None with fewer than two conditions. Above 1 can come from chance and is cut there.
    """
    generator = np.random.default_rng(seed)
    rows_T = within.fit.rows_T
    gram_LTT, targets_NC = within.fit.gram_LNT[:, rows_T], frame.labels.targets()
    condition_T, cluster_T, label_T = (
        frame.condition_ids[rows_T],
        frame.cluster_ids[rows_T],
        frame.labels.label_N[rows_T],
    )
    found = []
    for index in range(len(frame.conditions)):
        inside_T = torch.nonzero(condition_T == index).squeeze(1)
        if len(set(label_T[inside_T].tolist())) < frame.labels.classes:
            continue
        weights_TC = torch.zeros(len(rows_T), targets_NC.shape[1], dtype=torch.float64)
        weights_TC[inside_T] = contrast(targets_NC[rows_T][inside_T])
        half_L = _split_cosine(
            gram_LTT[:, inside_T][:, :, inside_T], targets_NC[rows_T][inside_T], cluster_T[inside_T], 10, generator
        )
        full_L = (2 * half_L / (1 + half_L)).clamp_max(1.0)  # Spearman and Brown: of the whole, from halves
        found.append((weights_TC, full_L))
    if len(found) < 2:
        return None
    pairs = []
    for first in range(len(found)):
        for second in range(first + 1, len(found)):
            cosine_L = _cosines(gram_LTT, found[first][0][None], found[second][0][None])[0]
            least_L = torch.minimum(found[first][1], found[second][1])
            root_L = (found[first][1] * found[second][1]).clamp_min(1e-12).sqrt()
            pairs.append(torch.where(least_L > 0.1, (cosine_L / root_L).clamp(-1, 1), torch.nan))
    return torch.stack(pairs).mean(0)


def _cosines(gram_LTT: Tensor, a_MTC: Tensor, b_MTC: Tensor) -> Tensor:
    """Cosines of pairs of directions given as weights of items, the mean over the columns; [M, L]."""
    pairs, _, columns = a_MTC.shape
    both_TM = torch.cat([a_MTC, b_MTC]).permute(1, 0, 2).reshape(a_MTC.shape[1], -1)
    image_LTM = gram_LTT @ both_TM
    squares_LM = (image_LTM * both_TM).sum(1)
    half = pairs * columns
    products_LM = (image_LTM[:, :, :half] * both_TM[:, half:]).sum(1)
    length_LM = (squares_LM[:, :half] * squares_LM[:, half:]).clamp_min(0).sqrt()
    cosine_LM = torch.where(length_LM > 1e-12, products_LM / length_LM.clamp_min(1e-12), 0.0)
    return cosine_LM.reshape(-1, pairs, columns).mean(2).T


def _split_cosine(
    gram_LTT: Tensor, targets_TC: Tensor, cluster_T: Tensor, halves: int, generator: np.random.Generator
) -> Tensor:
    """Mean cosine of the differences of means of two halves of the clusters; [L], NaN where no split has every class on both sides."""
    names = torch.unique(cluster_T).numpy()
    first, second = [], []
    for _ in range(halves):
        order = generator.permutation(names)
        first_T = torch.from_numpy(np.isin(cluster_T.numpy(), order[: len(order) // 2]))
        sides = []
        for side_T in (first_T, ~first_T):
            part_TC = targets_TC[side_T]
            weights_TC = torch.zeros_like(targets_TC)
            weights_TC[side_T] = contrast(part_TC)
            sides.append((weights_TC, bool(((part_TC > 0).any(0) & (part_TC < 0).any(0)).all())))
        if sides[0][1] and sides[1][1]:
            first.append(sides[0][0])
            second.append(sides[1][0])
    if not first:
        return torch.full((gram_LTT.shape[0],), torch.nan, dtype=torch.float64)
    return _cosines(gram_LTT, torch.stack(first), torch.stack(second)).mean(0)
