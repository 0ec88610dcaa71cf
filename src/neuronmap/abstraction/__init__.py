"""How concepts arise, turn and fade from layer to layer: probes with nulls, layer similarity, complexity, feature flow.

Names load on first use, so that pages which only read stored records stay free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronmap.abstraction.layers.similarity import layer_similarity as layer_similarity
    from neuronmap.abstraction.record import TrackingReport as TrackingReport
    from neuronmap.abstraction.record import Trajectory as Trajectory
    from neuronmap.abstraction.settings import TrackerConfig as TrackerConfig
    from neuronmap.abstraction.tracker import AbstractionTracker as AbstractionTracker

_HOMES = {
    "AbstractionTracker": "tracker",
    "TrackerConfig": "settings",
    "TrackingReport": "record",
    "Trajectory": "record",
    "layer_similarity": "layers.similarity",
}

__all__ = ["AbstractionTracker", "TrackerConfig", "TrackingReport", "Trajectory", "layer_similarity"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"neuronmap.abstraction.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'neuronmap.abstraction' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
