"""Interpretation: what a feature means. Rules now; each label carries a measured score. No torch at import."""

from __future__ import annotations

from neuronmap.interpretation.assessment import Assessment, Indicator, assess
from neuronmap.interpretation.hints import make_hints
from neuronmap.interpretation.rules import Rule
from neuronmap.interpretation.traits import TokenTraits

__all__ = ["Assessment", "Indicator", "Rule", "TokenTraits", "assess", "make_hints"]
