"""Interpretation: what a feature means, said by rules, language models and people; each label with a measured score. No torch at import.

Names load on first use, so that making hints needs no HTTP library, and pages that show labels need neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronmap.interpretation.endpoint import AnswerCache as AnswerCache
    from neuronmap.interpretation.endpoint import EndpointConfig as EndpointConfig
    from neuronmap.interpretation.endpoint import Limit as Limit
    from neuronmap.interpretation.explaining import Explainer as Explainer
    from neuronmap.interpretation.explaining import ExplainReport as ExplainReport
    from neuronmap.interpretation.explaining import explain_features as explain_features
    from neuronmap.interpretation.hints import Assessment as Assessment
    from neuronmap.interpretation.hints import Indicator as Indicator
    from neuronmap.interpretation.hints import Rule as Rule
    from neuronmap.interpretation.hints import TokenTraits as TokenTraits
    from neuronmap.interpretation.hints import assess as assess
    from neuronmap.interpretation.hints import make_hints as make_hints
    from neuronmap.interpretation.judging import Scorer as Scorer
    from neuronmap.interpretation.judging import ScoreReport as ScoreReport
    from neuronmap.interpretation.judging import score_labels as score_labels

_HOMES = {
    "AnswerCache": "endpoint",
    "EndpointConfig": "endpoint",
    "Assessment": "hints",
    "ExplainReport": "explaining",
    "Explainer": "explaining",
    "Indicator": "hints",
    "Limit": "endpoint",
    "Rule": "hints",
    "ScoreReport": "judging",
    "Scorer": "judging",
    "TokenTraits": "hints",
    "assess": "hints",
    "explain_features": "explaining",
    "make_hints": "hints",
    "score_labels": "judging",
}

__all__ = [
    "AnswerCache",
    "Assessment",
    "EndpointConfig",
    "ExplainReport",
    "Explainer",
    "Indicator",
    "Limit",
    "Rule",
    "ScoreReport",
    "Scorer",
    "TokenTraits",
    "assess",
    "explain_features",
    "make_hints",
    "score_labels",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"neuronmap.interpretation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'neuronmap.interpretation' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
