"""What lies on this machine as something to publish, and back: bundles, analyses, reports, labels, any folder. Nothing here loads torch."""

from __future__ import annotations

from neuronmap.zoo.packing.analyses import name_beside, pack_analysis, pack_evaluation, pack_report
from neuronmap.zoo.packing.folders import pack_folder
from neuronmap.zoo.packing.labels import pack_labels, unpack_labels
from neuronmap.zoo.packing.package import Package
from neuronmap.zoo.packing.recognising import pack
from neuronmap.zoo.packing.saes import pack_sae
from neuronmap.zoo.packing.unpacking import Unpacked, bundle_origin, describe_pulled

__all__ = [
    "Package",
    "Unpacked",
    "bundle_origin",
    "describe_pulled",
    "name_beside",
    "pack",
    "pack_analysis",
    "pack_evaluation",
    "pack_folder",
    "pack_labels",
    "pack_report",
    "pack_sae",
    "unpack_labels",
]
