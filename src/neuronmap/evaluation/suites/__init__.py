"""Suites: what an SAE is good for, measured by several benchmarks with the same baselines in every table.

Reading stored records does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuronmap.evaluation.suites.record import BASELINES, SUITES, SuiteName, SuiteRecord, SuiteResult, SuiteRow

if TYPE_CHECKING:
    from neuronmap.evaluation.suites.run import evaluate_suites as evaluate_suites

__all__ = ["BASELINES", "SUITES", "SuiteName", "SuiteRecord", "SuiteResult", "SuiteRow", "evaluate_suites"]


def __getattr__(name: str) -> Any:
    if name == "evaluate_suites":
        return import_module("neuronmap.evaluation.suites.run").evaluate_suites
    raise AttributeError(f"module 'neuronmap.evaluation.suites' has no attribute '{name}'")
