"""Features: every feature of an SAE in one pass over the text, the feature store it leaves, and live use.

Names load on first use: what only reads a store (``neuronmap.features.storage.store``, ``queries``, ``schema``) stays free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronmap.features.live.analysis import TextAnalysis as TextAnalysis
    from neuronmap.features.live.effects import FeatureEffects as FeatureEffects
    from neuronmap.features.live.extractor import SAEFeatureExtractor as SAEFeatureExtractor
    from neuronmap.features.live.finder import MaxActivatingExamplesFinder as MaxActivatingExamplesFinder
    from neuronmap.features.live.interventions import Intervention as Intervention
    from neuronmap.features.live.steering import FeatureSteering as FeatureSteering
    from neuronmap.features.storage.store import FeatureStore as FeatureStore

_HOMES = {
    "FeatureEffects": "live.effects",
    "FeatureSteering": "live.steering",
    "FeatureStore": "storage.store",
    "Intervention": "live.interventions",
    "MaxActivatingExamplesFinder": "live.finder",
    "SAEFeatureExtractor": "live.extractor",
    "TextAnalysis": "live.analysis",
}

__all__ = [
    "FeatureEffects",
    "FeatureSteering",
    "FeatureStore",
    "Intervention",
    "MaxActivatingExamplesFinder",
    "SAEFeatureExtractor",
    "TextAnalysis",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"neuronmap.features.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'neuronmap.features' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
