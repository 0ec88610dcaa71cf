"""Interpretation: what a feature means, said by rules, language models and people; each label with a measured score. No torch at import."""

from __future__ import annotations

from neuronmap.interpretation.hints import Assessment, Indicator, Rule, TokenTraits, assess, make_hints

__all__ = ["Assessment", "Indicator", "Rule", "TokenTraits", "assess", "make_hints"]
