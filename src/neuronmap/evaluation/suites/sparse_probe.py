"""Logistic probes on a few entries of a code, and their scores with intervals over clusters.

Choosing latents, scaling and C see training items only. The rule is that of sae-probes (2502.16681): each latent is divided by
its mean size over the items where it is active, and latents are ranked by |mean over positives - mean over negatives|.

Shapes: N items, F entries of a code, K chosen ones, R resamples, G clusters.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from neuronmap.evaluation.metrics import Estimate
from neuronmap.evaluation.suites.logistic import fit_logistic
from neuronmap.evaluation.suites.record import ProbeScore
from neuronmap.statistics.auc import auc, auc_by_clusters, resampled_auc
from neuronmap.statistics.resampling import Draws, bands, draw_clusters

__all__ = ["ProbeItems", "dense_score", "held_out_f1", "probe_scores", "ranked_latents"]

Array = npt.NDArray[np.float64]

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
_FOLDS = 4


@dataclass(frozen=True)
class ProbeItems:
    """Which items train, which test, and what they are.

    Attributes:
        positive_N: bool [N].
        cluster_N: int64 [N], cluster (lemma) of each item.
        train_N: bool [N].
        draws: resamples of the test items' clusters.
        test_cluster_T: int64 [T], cluster of each test item among those.
    """

    positive_N: npt.NDArray[np.bool_]
    cluster_N: npt.NDArray[np.int64]
    train_N: npt.NDArray[np.bool_]
    draws: Draws
    test_cluster_T: Tensor

    @classmethod
    def of(
        cls, positive: Sequence[bool], cluster: Sequence[str], train: Sequence[bool], resamples: int, seed: int
    ) -> ProbeItems:
        """From plain lists; clusters of the test items are drawn within strata of the classes they hold."""
        positive_N, train_N = np.asarray(positive, dtype=bool), np.asarray(train, dtype=bool)
        _, cluster_N = np.unique(np.asarray(cluster), return_inverse=True)
        tested, test_cluster_T = np.unique(cluster_N[~train_N], return_inverse=True)
        strata = [
            ",".join(sorted({str(value) for value in positive_N[~train_N][test_cluster_T == at]}))
            for at in range(len(tested))
        ]
        draws = draw_clusters(strata, resamples, seed)
        return cls(positive_N, cluster_N, train_N, draws, torch.from_numpy(test_cluster_T))

    @property
    def tested_positive(self) -> Tensor:
        """bool [T]."""
        return torch.from_numpy(self.positive_N[~self.train_N])


def ranked_latents(codes_NF: Tensor, positive_N: Tensor, *, signed: bool = True) -> tuple[Tensor, Tensor]:
    """Latents from the most to the least telling one.

    Args:
        codes_NF: codes of training items.
        positive_N: bool.
        signed: whether a latent that is active on negatives counts too; else only those that rise with the positives.

    Returns:
        Indices [F], and the mean size over active items [F] (1 where none is active), by which entries are divided.
    """
    size_NF = codes_NF.abs()
    active_F = (codes_NF != 0).sum(0)
    mean_F = torch.where(active_F > 0, size_NF.sum(0) / active_F.clamp_min(1), 1.0)
    difference_F = (codes_NF[positive_N].mean(0) - codes_NF[~positive_N].mean(0)) / mean_F
    # A latent that never differs by chance of order alone comes last; ties keep their order, so results do not depend on the machine.
    order_F = (difference_F.abs() if signed else difference_F).argsort(descending=True, stable=True)
    return order_F, mean_F


def probe_scores(codes_NF: Tensor, items: ProbeItems, ks: Sequence[int], seed: int) -> tuple[ProbeScore, ...]:
    """A probe for each k on the k most telling latents; k above the width takes all.

    Args:
        codes_NF: float [N, F], on the CPU.
        items: what they are.
        ks: numbers of latents.
        seed: of the folds.
    """
    train_N = torch.from_numpy(items.train_N)
    order_F, mean_F = ranked_latents(codes_NF[train_N].double(), torch.from_numpy(items.positive_N)[train_N])
    found = []
    for k in ks:
        chosen = order_F[:k]
        x_NK = (codes_NF[:, chosen].double() / mean_F[chosen]).numpy()
        raw = _raw_auc(x_NK[:, 0], items) if k == 1 else None
        found.append(_scored(x_NK, items, k, tuple(chosen.tolist()), seed, raw))
    return tuple(found)


def dense_score(rows_ND: Tensor, items: ProbeItems, seed: int) -> ProbeScore:
    """A probe on all entries, each standardised on training items."""
    x_ND = rows_ND.double().numpy()
    mean_D, spread_D = x_ND[items.train_N].mean(0), x_ND[items.train_N].std(0)
    return _scored((x_ND - mean_D) / np.where(spread_D > 1e-12, spread_D, 1.0), items, None, (), seed, None)


def _scored(
    x_NK: Array, items: ProbeItems, k: int | None, latents: tuple[int, ...], seed: int, raw: Estimate | None
) -> ProbeScore:
    train_N = items.train_N
    strength = _best_strength(x_NK[train_N], items.positive_N[train_N], items.cluster_N[train_N], seed)
    model = fit_logistic(x_NK[train_N], items.positive_N[train_N], strength)
    score_T = torch.from_numpy(model.log_odds(x_NK[~train_N]))
    right_T = (score_T > 0) == items.tested_positive
    hit_T, said_T = (score_T > 0) & items.tested_positive, (score_T > 0).double() + items.tested_positive.double()
    return ProbeScore(
        k=k,
        latents=latents,
        strength=strength,
        auc=_auc_estimate(score_T, items),
        accuracy=_ratio_estimate(right_T.double(), torch.ones_like(score_T), items),
        f1=_ratio_estimate(2 * hit_T.double(), said_T, items),
        raw_auc=raw,
    )


def _best_strength(
    x_NK: Array, positive_N: npt.NDArray[np.bool_], cluster_N: npt.NDArray[np.int64], seed: int
) -> float:
    """C with the best mean AUC over folds that share no cluster; the strongest penalty among equals, 1 if there can be no folds."""
    folds = min(_FOLDS, len(np.unique(cluster_N)), int(positive_N.sum()), int((~positive_N).sum()))
    if folds < 2:
        return 1.0
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few clusters cannot be spread evenly, which is no matter here
        parts = list(splitter.split(x_NK, positive_N, cluster_N))
    parts = [(fit, held) for fit, held in parts if len(set(positive_N[fit])) == 2 and len(set(positive_N[held])) == 2]
    if not parts:
        return 1.0
    means = [
        np.mean([
            roc_auc_score(
                positive_N[held], fit_logistic(x_NK[fit], positive_N[fit], strength).log_odds(x_NK[held])
            )
            for fit, held in parts
        ])
        for strength in _STRENGTHS
    ]  # fmt: skip
    return _STRENGTHS[int(np.argmax(np.round(means, 6)))]


def _raw_auc(x_N: Array, items: ProbeItems) -> Estimate:
    train_N = items.train_N
    rises = x_N[train_N & items.positive_N].mean() >= x_N[train_N & ~items.positive_N].mean()
    return _auc_estimate(torch.from_numpy(x_N[~train_N] * (1.0 if rises else -1.0)), items)


def _auc_estimate(score_T: Tensor, items: ProbeItems) -> Estimate:
    value = float(auc(score_T[None], items.tested_positive[None])[0])
    clusters = len(items.draws.between_GG)
    parts = auc_by_clusters(score_T[None], items.tested_positive, items.test_cluster_T, clusters)
    return _estimate(value, resampled_auc(*parts, items.draws), clusters, len(score_T))


def _ratio_estimate(top_T: Tensor, bottom_T: Tensor, items: ProbeItems) -> Estimate:
    """A ratio of sums over items, resampled by clusters."""
    clusters = len(items.draws.between_GG)

    def by_cluster(value_T: Tensor) -> Tensor:
        return torch.zeros(clusters, dtype=torch.float64).index_add_(0, items.test_cluster_T, value_T)

    top_G, bottom_G = by_cluster(top_T), by_cluster(bottom_T)
    drawn_R = (items.draws.weights_RG @ top_G) / (items.draws.weights_RG @ bottom_G)
    if float(bottom_G.sum()) == 0:
        return Estimate(value=None, count=len(top_T), reason="nothing is positive, and nothing is said to be")
    return _estimate(float(top_G.sum() / bottom_G.sum()), drawn_R[:, None], clusters, len(top_T))


def _estimate(value: float, samples_R1: Tensor, clusters: int, count: int) -> Estimate:
    samples_R1 = samples_R1[samples_R1.isfinite().all(1)]
    if len(samples_R1) < 2 or clusters < 2:
        return Estimate(value=value, count=count, reason="no error: fewer than two clusters or resamples")
    found = bands(torch.tensor([value], dtype=torch.float64), samples_R1, clusters)
    return Estimate(
        value=value, error=float(samples_R1.std()), low=float(found.low[0]), high=float(found.high[0]), count=count
    )


def held_out_f1(
    x_NK: Array, positive_N: npt.NDArray[np.bool_], train_N: npt.NDArray[np.bool_]
) -> tuple[float, Array, Array]:
    """A probe with classes weighted equally and C = 1: F1 on what is not trained on, log-odds of all items, and its weights [K]."""
    model = fit_logistic(x_NK[train_N], positive_N[train_N], 1.0, balanced=True)
    odds_N = model.log_odds(x_NK)
    f1 = f1_score(positive_N[~train_N], odds_N[~train_N] > 0, zero_division=0.0)
    return float(f1), odds_N, model.weights_K
