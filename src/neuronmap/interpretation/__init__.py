"""Interpretation: what a feature means. Rules now; each label carries a measured score. No torch at import."""

from __future__ import annotations
