"""Hints: rules that predict where a feature fires, each scored on documents it was not made from. No language model."""

from __future__ import annotations

from neuronmap.interpretation.hints.assessment import Assessment, Indicator, assess
from neuronmap.interpretation.hints.making import make_hints
from neuronmap.interpretation.hints.rules import Rule
from neuronmap.interpretation.hints.traits import TokenTraits

__all__ = ["Assessment", "Indicator", "Rule", "TokenTraits", "assess", "make_hints"]
