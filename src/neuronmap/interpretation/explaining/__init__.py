"""Labels by language models: example sets split by document, prompts as versioned files, explainers."""

from __future__ import annotations

from neuronmap.interpretation.explaining.example_sets import (
    Activations,
    ExplainSet,
    ScoreSet,
    Shown,
    explain_set,
    score_sets,
)
from neuronmap.interpretation.explaining.explainers import Explainer, explainers
from neuronmap.interpretation.explaining.halves import Halves
from neuronmap.interpretation.explaining.making import ExplainReport, estimate_explaining, explain_features

__all__ = [
    "Activations",
    "ExplainReport",
    "ExplainSet",
    "Explainer",
    "Halves",
    "ScoreSet",
    "Shown",
    "estimate_explaining",
    "explain_features",
    "explain_set",
    "explainers",
    "score_sets",
]
