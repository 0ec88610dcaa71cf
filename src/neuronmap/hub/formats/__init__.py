"""Formats in and out: SAEs of other libraries as ours, and ours as theirs. Names load on first use; torch with the first SAE."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronmap.hub.formats.exporting import convert_sae as convert_sae
    from neuronmap.hub.formats.exporting import export_sae as export_sae
    from neuronmap.hub.formats.external import ExternalFeature as ExternalFeature
    from neuronmap.hub.formats.external import read_external as read_external
    from neuronmap.hub.formats.format import Candidate as Candidate
    from neuronmap.hub.formats.format import Exported as Exported
    from neuronmap.hub.formats.format import Format as Format
    from neuronmap.hub.formats.format import Given as Given
    from neuronmap.hub.formats.format import Imported as Imported
    from neuronmap.hub.formats.importing import ImportedSAE as ImportedSAE
    from neuronmap.hub.formats.importing import import_features as import_features
    from neuronmap.hub.formats.importing import import_sae as import_sae
    from neuronmap.hub.formats.importing import import_saes as import_saes
    from neuronmap.hub.formats.proving import Proof as Proof
    from neuronmap.hub.formats.proving import prove as prove
    from neuronmap.hub.formats.registry import detect as detect
    from neuronmap.hub.formats.registry import list_formats as list_formats
    from neuronmap.hub.formats.saebench import to_saebench as to_saebench

_HOMES = {
    "Candidate": "format",
    "Exported": "format",
    "ExternalFeature": "external",
    "Format": "format",
    "Given": "format",
    "Imported": "format",
    "ImportedSAE": "importing",
    "Proof": "proving",
    "convert_sae": "exporting",
    "detect": "registry",
    "export_sae": "exporting",
    "import_features": "importing",
    "import_sae": "importing",
    "import_saes": "importing",
    "list_formats": "registry",
    "prove": "proving",
    "read_external": "external",
    "to_saebench": "saebench",
}

__all__ = [
    "Candidate",
    "Exported",
    "ExternalFeature",
    "Format",
    "Given",
    "Imported",
    "ImportedSAE",
    "Proof",
    "convert_sae",
    "detect",
    "export_sae",
    "import_features",
    "import_sae",
    "import_saes",
    "list_formats",
    "prove",
    "read_external",
    "to_saebench",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"neuronmap.hub.formats.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'neuronmap.hub.formats' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
