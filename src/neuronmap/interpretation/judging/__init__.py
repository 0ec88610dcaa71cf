"""Scores of labels on held-out documents: judges, figures with intervals, baselines, agreement."""

from __future__ import annotations

from neuronmap.interpretation.judging.agreement import Agreement, agreements
from neuronmap.interpretation.judging.registry import scorers
from neuronmap.interpretation.judging.scorers import Claim, Judged, Scorer, Tools
from neuronmap.interpretation.judging.scoring import ScoreReport, estimate_scoring, score_labels

__all__ = [
    "Agreement",
    "Claim",
    "Judged",
    "ScoreReport",
    "Scorer",
    "Tools",
    "agreements",
    "estimate_scoring",
    "score_labels",
    "scorers",
]
