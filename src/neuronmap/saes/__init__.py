"""Sparse autoencoders: one file an architecture, the contract they share, the registry, and the bundle format.

Names load on first use, so that rooms which only read what is stored (``neuronmap.saes.metadata``) stay free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronmap.saes.base import SparseAutoencoder as SparseAutoencoder
    from neuronmap.saes.base import StepLoss as StepLoss
    from neuronmap.saes.base import StepState as StepState
    from neuronmap.saes.bundle import attach_file as attach_file
    from neuronmap.saes.bundle import load_sae as load_sae
    from neuronmap.saes.bundle import save_bundle as save_bundle
    from neuronmap.saes.bundle import verify_bundle as verify_bundle
    from neuronmap.saes.checks import check_sae as check_sae
    from neuronmap.saes.metadata import BundleInfo as BundleInfo
    from neuronmap.saes.metadata import BundleMetadata as BundleMetadata
    from neuronmap.saes.metadata import read_bundle_info as read_bundle_info
    from neuronmap.saes.meter import ReconstructionMeter as ReconstructionMeter
    from neuronmap.saes.meter import ReconstructionMetrics as ReconstructionMetrics
    from neuronmap.saes.options import ArchitectureOptions as ArchitectureOptions
    from neuronmap.saes.provenance import Provenance as Provenance
    from neuronmap.saes.registry import get_architecture as get_architecture
    from neuronmap.saes.registry import list_architectures as list_architectures
    from neuronmap.saes.workspace import Workspace as Workspace

_HOMES = {
    "ArchitectureOptions": "options",
    "BundleInfo": "metadata",
    "BundleMetadata": "metadata",
    "Provenance": "provenance",
    "ReconstructionMeter": "meter",
    "ReconstructionMetrics": "meter",
    "SparseAutoencoder": "base",
    "StepLoss": "base",
    "StepState": "base",
    "Workspace": "workspace",
    "attach_file": "bundle",
    "check_sae": "checks",
    "get_architecture": "registry",
    "list_architectures": "registry",
    "load_sae": "bundle",
    "read_bundle_info": "metadata",
    "save_bundle": "bundle",
    "verify_bundle": "bundle",
}

__all__ = [
    "ArchitectureOptions",
    "BundleInfo",
    "BundleMetadata",
    "Provenance",
    "ReconstructionMeter",
    "ReconstructionMetrics",
    "SparseAutoencoder",
    "StepLoss",
    "StepState",
    "Workspace",
    "attach_file",
    "check_sae",
    "get_architecture",
    "list_architectures",
    "load_sae",
    "read_bundle_info",
    "save_bundle",
    "verify_bundle",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"neuronmap.saes.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'neuronmap.saes' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
