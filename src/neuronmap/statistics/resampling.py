"""Resamples of whole clusters, and intervals and bands from them.

Items of one lemma depend on each other, so that n is the number of clusters, not of items. The same draws serve all layers and all
scores, which makes differences between layers paired.

Legend: R resamples, G clusters, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Bands", "Draws", "bands", "draw_clusters", "interval"]

_QUANTILES = (0.025, 0.975)


class Bands(NamedTuple):
    """Intervals of a curve; float64 [L] each.

    Attributes:
        low, high: pointwise 95 % interval.
        band_low, band_high: 95 % band over all layers at once.
    """

    low: Tensor
    high: Tensor
    band_low: Tensor
    band_high: Tensor


class Draws(NamedTuple):
    """Resamples of clusters.

    Attributes:
        weights_RG: float64 [R, G], how often each cluster is drawn; in each stratum a row adds up to its clusters.
        between_GG: float64 [G, G], weight of a pair of different clusters: S / (S - 1) within a stratum of S, 1 across strata; 0 on the
            diagonal.
    """

    weights_RG: Tensor
    between_GG: Tensor


def draw_clusters(strata: Sequence[str], resamples: int, seed: int) -> Draws:
    """How often each cluster is drawn in each resample, with replacement within its stratum.

    Args:
        strata: stratum of each of the G clusters (its class, where a cluster has only one; so no resample lacks a class).
        resamples: R.
        seed: of the draws.

    """
    generator = np.random.default_rng(seed)
    names = np.asarray(strata)
    weights_RG, between_GG = np.zeros((resamples, len(names))), np.ones((len(names), len(names)))
    for name in dict.fromkeys(strata):
        members = np.flatnonzero(names == name)
        drawn = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
        weights_RG[:, members] = drawn
        if len(members) > 1:
            between_GG[np.ix_(members, members)] = len(members) / (len(members) - 1)
    np.fill_diagonal(between_GG, 0.0)
    return Draws(torch.from_numpy(weights_RG), torch.from_numpy(between_GG))


def bands(score_L: Tensor, samples_RL: Tensor, clusters: int) -> Bands:
    """Pointwise intervals (percentiles) and the simultaneous band (max |t| over the layers) of a curve of AUCs.

    Near 1 (or 0) resampling cannot see the error, and gives the narrower an interval the fewer clusters there are. The rule of three on the
    clusters bounds it: with G clusters and no failure, the share of failing ones may be 3 / G, so no lower end is above 1 - 3 / G and
    no upper end below 3 / G.

    Args:
        score_L: the curve.
        samples_RL: its resamples; rows with NaN are left out.
        clusters: G.
    """
    samples_RL = samples_RL[samples_RL.isfinite().all(1)]
    if samples_RL.shape[0] < 2:
        none_L = torch.full_like(score_L, torch.nan)
        return Bands(none_L, none_L, none_L, none_L)
    quantiles = torch.tensor(_QUANTILES, dtype=samples_RL.dtype)
    low_L, high_L = torch.quantile(samples_RL, quantiles, dim=0)
    error_L = samples_RL.std(0)
    sure_L = error_L < 1e-9
    exact_L = sure_L & (score_L > 1e-9) & (score_L < 1 - 1e-9)  # equal rows: 0.5 by construction
    t_R = ((samples_RL - score_L).abs() / error_L.clamp_min(1e-9))[:, ~sure_L]
    widest = float(torch.quantile(t_R.amax(1), 0.95)) if t_R.shape[1] else 0.0
    band_low_L, band_high_L = score_L - widest * error_L, score_L + widest * error_L
    floor = min(1.0, 3 / max(clusters, 1))
    low_L, band_low_L = (torch.where(exact_L, value, value.clamp_max(1 - floor)) for value in (low_L, band_low_L))
    high_L, band_high_L = (torch.where(exact_L, value, value.clamp_min(floor)) for value in (high_L, band_high_L))
    return Bands(low_L, high_L, band_low_L.clamp(0, 1), band_high_L.clamp(0, 1))


def interval(samples_R: Tensor) -> tuple[float, float] | None:
    """95 % percentile interval of finite samples; None if over 1 % of them are not finite, or fewer than two are."""
    finite_R = samples_R[samples_R.isfinite()]
    if finite_R.numel() < 2 or finite_R.numel() < 0.99 * samples_R.numel():
        return None
    low, high = torch.quantile(finite_R.double(), torch.tensor(_QUANTILES, dtype=torch.float64)).tolist()
    return low, high
