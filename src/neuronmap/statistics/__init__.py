"""Statistics that several rooms share: resamples of whole clusters, and areas under the ROC curve from them."""

from __future__ import annotations

from neuronmap.statistics.auc import auc_by_clusters, macro_auc, resampled_auc
from neuronmap.statistics.resampling import Bands, Draws, bands, draw_clusters, interval

__all__ = [
    "Bands",
    "Draws",
    "auc_by_clusters",
    "bands",
    "draw_clusters",
    "interval",
    "macro_auc",
    "resampled_auc",
]
