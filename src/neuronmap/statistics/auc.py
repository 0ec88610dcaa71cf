"""Area under the ROC curve for many scores at once, and by clusters, so that resamples cost nothing.

AUC is the share of (positive, negative) pairs of items that the score puts in order, ties counting half. Scores that differ by less than
1e-6 of their spread are ties: at the embedding both members of a minimal pair are the same vector, and rounding must not tell
them apart.

Legend: M scores (layers, labelings, ...), N items, G clusters, R resamples, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.statistics.resampling import Draws

__all__ = ["auc", "auc_by_clusters", "macro_auc", "resampled_auc"]

_TIE = 1e-6


def auc(scores_MN: Tensor, positive_MN: Tensor) -> Tensor:
    """AUC of each row.

    Args:
        scores_MN: float [M, N].
        positive_MN: bool [M, N], or [N] for the same labels in all rows.

    Returns:
        float64 [M]; NaN where a row has no positive or no negative item.
    """
    scores_MN = _rounded(scores_MN)
    positive_MN = positive_MN.expand(scores_MN.shape).to(torch.float64)
    sorted_MN = scores_MN.sort(dim=1).values
    left_MN = torch.searchsorted(sorted_MN, scores_MN, right=False)
    right_MN = torch.searchsorted(sorted_MN, scores_MN, right=True)
    ranks_MN = (left_MN + right_MN + 1).to(torch.float64) / 2  # ties share their mean rank
    positives_M = positive_MN.sum(1)
    negatives_M = scores_MN.shape[1] - positives_M
    wins_M = (ranks_MN * positive_MN).sum(1) - positives_M * (positives_M + 1) / 2
    pairs_M = positives_M * negatives_M
    return torch.where(pairs_M > 0, wins_M / pairs_M, torch.nan)


def macro_auc(scores_MNK: Tensor, labels_N: Tensor) -> Tensor:
    """Mean over the classes of each one's AUC against the rest; with one column the AUC of class 1.

    Args:
        scores_MNK: float [M, N, K], or [M, N, 1] for two classes.
        labels_N: int64 [N], class indices.

    Returns:
        float64 [M].
    """
    columns = scores_MNK.shape[2]
    parts = [auc(scores_MNK[:, :, column], labels_N == (column if columns > 1 else 1)) for column in range(columns)]
    return torch.stack(parts).mean(0)


def auc_by_clusters(scores_MN: Tensor, positive_N: Tensor, cluster_N: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """What :func:`resampled_auc` needs: pairs in order, by the clusters of their members.

    Args:
        scores_MN: float [M, N].
        positive_N: bool [N].
        cluster_N: int64 [N], cluster of each item.
        clusters: G.

    Returns:
        Pairs in order [M, G, G] (cluster of the positive item, of the negative one), and items [G, 2] (negative, positive).
    """
    scores_MN = _rounded(scores_MN)
    member_NG = torch.nn.functional.one_hot(cluster_N, clusters).to(torch.float64)
    up_MP, down_MQ = scores_MN[:, positive_N], scores_MN[:, ~positive_N]
    ordered_MPQ = (up_MP[:, :, None] > down_MQ[:, None, :]).to(torch.float64)
    ordered_MPQ += 0.5 * (up_MP[:, :, None] == down_MQ[:, None, :])
    ordered_MGG = member_NG[positive_N].T @ ordered_MPQ @ member_NG[~positive_N]
    items_G2 = torch.stack([member_NG[~positive_N].sum(0), member_NG[positive_N].sum(0)], dim=1)
    return ordered_MGG, items_G2


def resampled_auc(ordered_MGG: Tensor, items_G2: Tensor, draws: Draws) -> Tensor:
    """AUC of each score in each resample of the clusters.

    A cluster that is drawn twice stands for two clusters, which were not measured against each other: its copies are compared each with
    itself and never with one another, or minimal pairs within clusters would count by the square of the draws, and all resamples would lie
    too high. Pairs of different clusters of a stratum of S are met (S - 1) / S times as often as in the sample, and weighted accordingly.

    Args:
        ordered_MGG, items_G2: from :func:`auc_by_clusters`.
        draws: of the clusters.

    Returns:
        float64 [R, M]; NaN where a resample has no positive or no negative item.
    """
    between_MGG = ordered_MGG * draws.between_GG
    wins_RM = torch.einsum("rg,mgh,rh->rm", draws.weights_RG, between_MGG, draws.weights_RG)
    wins_RM += draws.weights_RG @ ordered_MGG.diagonal(dim1=1, dim2=2).T
    possible_GG = items_G2[:, 1:] * items_G2[:, 0]
    pairs_R = torch.einsum("rg,gh,rh->r", draws.weights_RG, possible_GG * draws.between_GG, draws.weights_RG)
    pairs_R += draws.weights_RG @ possible_GG.diagonal()
    return torch.where(pairs_R[:, None] > 0, wins_RM / pairs_R[:, None], torch.nan)


def _rounded(scores_MN: Tensor) -> Tensor:
    """Scores in steps of a millionth of their row's spread."""
    scores_MN = scores_MN.to(torch.float64)
    centred_MN = scores_MN - scores_MN.mean(1, keepdim=True)
    spread_M1 = centred_MN.abs().amax(1, keepdim=True)
    size_M1 = scores_MN.abs().amax(1, keepdim=True)
    # A spread that is rounding itself (1e-9 of the values) is no spread.
    step_M1 = torch.maximum(spread_M1 * _TIE, size_M1 * 1e-9).clamp_min(1e-300)
    return (centred_MN / step_M1).round().contiguous()
