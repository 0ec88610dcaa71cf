"""NeuronMap: train, evaluate, explore and share sparse autoencoders on any Hugging Face transformer.

The names below are the public front door; each loads its room (and torch) only when first used, so that
``import neuronmap`` and ``neuronmap --help`` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronmap.abstraction import AbstractionTracker as AbstractionTracker
    from neuronmap.evaluation import evaluate_sae as evaluate_sae
    from neuronmap.features import SAEFeatureExtractor as SAEFeatureExtractor
    from neuronmap.hub import SAEModelHub as SAEModelHub
    from neuronmap.models import load_model as load_model
    from neuronmap.saes import SparseAutoencoder as SparseAutoencoder
    from neuronmap.training import SAEConfig as SAEConfig
    from neuronmap.training import SAESweep as SAESweep
    from neuronmap.training import SAETrainer as SAETrainer
    from neuronmap.training import SweepConfig as SweepConfig

_HOMES = {
    "AbstractionTracker": "neuronmap.abstraction",
    "SAEConfig": "neuronmap.training",
    "SAEFeatureExtractor": "neuronmap.features",
    "SAEModelHub": "neuronmap.hub",
    "SAESweep": "neuronmap.training",
    "SAETrainer": "neuronmap.training",
    "SparseAutoencoder": "neuronmap.saes",
    "SweepConfig": "neuronmap.training",
    "evaluate_sae": "neuronmap.evaluation",
    "load_model": "neuronmap.models",
}

__all__ = [
    "AbstractionTracker",
    "SAEConfig",
    "SAEFeatureExtractor",
    "SAEModelHub",
    "SAESweep",
    "SAETrainer",
    "SparseAutoencoder",
    "SweepConfig",
    "__version__",
    "evaluate_sae",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("neuronmap")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'neuronmap' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
