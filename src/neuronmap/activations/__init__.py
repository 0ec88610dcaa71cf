"""Activations: harvested into a memory-mapped store or streamed, masked, measured and shuffled."""

from neuronmap.activations.extract import Calibration
from neuronmap.activations.harvest import StoreDtype, find_store, harvest, store_key
from neuronmap.activations.mask import MaskConfig
from neuronmap.activations.rows import ArrayRows, RowSource, RowStatistics
from neuronmap.activations.shuffle import ShuffledBatches
from neuronmap.activations.store import ActivationStore, RowOrigin, StoreEntry, list_stores
from neuronmap.activations.stream import ActivationStream

__all__ = [
    "ActivationStore",
    "ActivationStream",
    "ArrayRows",
    "Calibration",
    "MaskConfig",
    "RowOrigin",
    "RowSource",
    "RowStatistics",
    "ShuffledBatches",
    "StoreDtype",
    "StoreEntry",
    "find_store",
    "harvest",
    "list_stores",
    "store_key",
]
