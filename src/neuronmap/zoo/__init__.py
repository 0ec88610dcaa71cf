"""The zoo: artefacts that people publish, find, check, depend on and build on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronmap.zoo.client.pulling import Pulled as Pulled
    from neuronmap.zoo.client.zoo import Zoo as Zoo
    from neuronmap.zoo.manifest import Manifest as Manifest
    from neuronmap.zoo.names import Reference as Reference
    from neuronmap.zoo.packing import Package as Package
    from neuronmap.zoo.packing import pack as pack
    from neuronmap.zoo.search.query import CompatibilityQuery as CompatibilityQuery
    from neuronmap.zoo.search.query import Query as Query

_HOMES = {
    "CompatibilityQuery": "neuronmap.zoo.search.query",
    "Manifest": "neuronmap.zoo.manifest",
    "Package": "neuronmap.zoo.packing",
    "Pulled": "neuronmap.zoo.client.pulling",
    "Query": "neuronmap.zoo.search.query",
    "Reference": "neuronmap.zoo.names",
    "Zoo": "neuronmap.zoo.client.zoo",
    "pack": "neuronmap.zoo.packing",
}

__all__ = ["CompatibilityQuery", "Manifest", "Package", "Pulled", "Query", "Reference", "Zoo", "pack"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'neuronmap.zoo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
