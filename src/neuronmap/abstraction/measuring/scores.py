"""AUC within and across conditions, each with its resamples.

Within: probes trained on the training clusters of all conditions, tested on held-out clusters. Across: trained on the training clusters of
all conditions but one, tested on held-out clusters in that one (cross-condition generalisation, Bernardi et al. 2020).

Legend: L layers, N items, T training items, C columns, R resamples, G clusters, P labelings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuronmap.abstraction.measuring.frame import Frame
from neuronmap.abstraction.probes.ridge import RidgeFit, fit_ridge
from neuronmap.abstraction.statistics.relabelling import Labels, targets_of
from neuronmap.statistics.auc import auc, auc_by_clusters, macro_auc, resampled_auc
from neuronmap.statistics.resampling import Draws

__all__ = ["Part", "ScoredCurve", "fit_parts", "labelled_auc", "score_items", "score_part"]


@dataclass(frozen=True, eq=False)
class Part:
    """A fit and the items it is tested on.

    Attributes:
        name: the condition that was left out; empty for the within score.
        fit: probes of all layers.
        test_N: indices of the test items.
    """

    name: str
    fit: RidgeFit
    test_N: Tensor


@dataclass(frozen=True, eq=False)
class ScoredCurve:
    """A curve and its resamples; float64 [L] and [R, L]."""

    score_L: Tensor
    samples_RL: Tensor


def fit_parts(frame: Frame) -> tuple[Part, list[Part]]:
    """The within fit, and one fit for each condition that can be left out (at least two, each with every class on both sides)."""
    x_LNW, targets_NC = frame.reading.x_LNW, frame.labels.targets()

    def fitted(name: str, rows_T: Tensor, test_N: Tensor) -> Part:
        fit = fit_ridge(x_LNW, rows_T, targets_NC[rows_T], frame.cluster_ids[rows_T])
        return Part(name, fit, test_N)

    within = fitted("", frame.rows("train"), frame.rows("test"))
    across = []
    for index, name in enumerate(frame.conditions):
        rows_T, test_N = frame.rows("train", without=index), frame.rows("test", index)
        both = [set(frame.labels.label_N[rows].tolist()) for rows in (rows_T, test_N)]
        if all(len(found) == frame.labels.classes for found in both):
            across.append(fitted(name, rows_T, test_N))
    return within, across if len(across) > 1 else []


def score_part(frame: Frame, part: Part, draws: Draws, scores_LNC: Tensor | None = None) -> ScoredCurve:
    """Score one part on its test items.

    Args:
        frame: the items.
        part: the fit and its test items.
        draws: of the clusters.
        scores_LNC: scores of the test items, where they are not the fit's own.
    """
    targets_NC = frame.labels.targets()
    if scores_LNC is None:
        scores_LNC = part.fit.scores(targets_NC[part.fit.rows_T], part.test_N)
    return score_items(frame.labels, scores_LNC, part.test_N, frame.cluster_ids[part.test_N], draws)


def score_items(labels: Labels, scores_LNC: Tensor, rows_N: Tensor, clusters_N: Tensor, draws: Draws) -> ScoredCurve:
    """Score items whose scores are known.

    Args:
        labels: of all items.
        scores_LNC: scores of some of them.
        rows_N: which.
        clusters_N: cluster of each, by the numbers of the draws.
        draws: of the clusters.
    """
    label_N = labels.label_N[rows_N]
    samples = []
    for column in range(scores_LNC.shape[2]):
        positive_N = label_N == (column if labels.columns > 1 else 1)
        parts = auc_by_clusters(scores_LNC[:, :, column], positive_N, clusters_N, draws.weights_RG.shape[1])
        samples.append(resampled_auc(*parts, draws))
    return ScoredCurve(macro_auc(scores_LNC, label_N), torch.stack(samples).mean(0))


def labelled_auc(frame: Frame, part: Part, trained_PN: Tensor, tested_PN: Tensor) -> Tensor:
    """AUC of probes for other labelings: one fit serves them all.

    Args:
        frame: the items.
        part: the fit and its test items.
        trained_PN: int64 [P, N], labels of all items that the probes are trained on.
        tested_PN: int64 [P, N], labels that they are tested on; [1, N] for the same in all.

    Returns:
        float64 [P, L].
    """
    classes, count = frame.labels.classes, trained_PN.shape[0]
    targets_PTC = targets_of(trained_PN[:, part.fit.rows_T], classes)
    columns = targets_PTC.shape[2]
    scores_LNM = part.fit.scores(targets_PTC.permute(1, 0, 2).reshape(len(part.fit.rows_T), -1), part.test_N)
    tested_PN = tested_PN[:, part.test_N].expand(count, -1)
    result_PL = torch.empty(count, scores_LNM.shape[0], dtype=torch.float64)
    for layer, scores_NM in enumerate(scores_LNM):
        scores_PNC = scores_NM.reshape(-1, count, columns).transpose(0, 1)
        found = [
            auc(scores_PNC[:, :, column], tested_PN == (column if columns > 1 else 1)) for column in range(columns)
        ]
        result_PL[:, layer] = torch.stack(found).nanmean(0)
    return result_PL
