"""Evaluation: how good an SAE is, with stated masks, counts and errors.

Reading a stored record (``CoreMetrics`` and the text histogram) does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuronmap.evaluation.density import dead_density_bound, density_histogram, density_text
from neuronmap.evaluation.metrics import (
    Behaviour,
    CoreMetrics,
    DensityHistogram,
    Estimate,
    MetricRow,
    Protocol,
    Reconstruction,
    Sparsity,
    Spread,
    Weights,
    metrics_schema,
)

if TYPE_CHECKING:
    from neuronmap.evaluation.core import evaluate_sae as evaluate_sae

__all__ = [
    "Behaviour",
    "CoreMetrics",
    "DensityHistogram",
    "Estimate",
    "MetricRow",
    "Protocol",
    "Reconstruction",
    "Sparsity",
    "Spread",
    "Weights",
    "dead_density_bound",
    "density_histogram",
    "density_text",
    "evaluate_sae",
    "metrics_schema",
]


def __getattr__(name: str) -> Any:
    if name == "evaluate_sae":
        return import_module("neuronmap.evaluation.core").evaluate_sae
    raise AttributeError(f"module 'neuronmap.evaluation' has no attribute '{name}'")
