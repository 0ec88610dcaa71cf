"""What was pulled, and where it belongs on this machine. The library itself is another room: whoever is above both puts things into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from neuronmap.features.storage.manifest import read_manifest
from neuronmap.features.storage.schema import FORMAT
from neuronmap.hashing import short
from neuronmap.zoo.labels import LABELS_FORMAT
from neuronmap.zoo.manifest import Manifest
from neuronmap.zoo.records import AnalysisResultRecord, ExplanationsRecord, SAEModelRecord

__all__ = ["Unpacked", "bundle_origin", "describe_pulled"]


@dataclass(frozen=True)
class Unpacked:
    """Where something that was pulled belongs.

    Attributes:
        belongs: ``library`` (an SAE), ``analyses`` (of the SAE with these weights), ``reports``, ``labels``, or ``folder`` (nowhere in
            particular).
        weights_digest: of the SAE's weights, for what is attached to an SAE.
        name: for an analysis: the name it has beside its SAE.
    """

    belongs: Literal["library", "analyses", "reports", "labels", "folder"]
    weights_digest: str | None = None
    name: str = ""


def describe_pulled(manifest: Manifest, folder: Path) -> Unpacked:
    """Where a pulled artefact belongs.

    Args:
        manifest: of the version.
        folder: its files.

    Raises:
        DamagedError, MismatchError: an analysis whose own manifest is not sound.
    """
    record = manifest.read_record()
    if isinstance(record, SAEModelRecord) and record.format in ("neuronmap-bundle", "saelens"):
        return Unpacked("library")
    if isinstance(record, AnalysisResultRecord):
        if record.format == FORMAT:
            store = read_manifest(folder)
            return Unpacked("analyses", store["facts"]["sae"]["weights_digest"], short(store["key"]))
        if record.format == "neuronmap-tracking-report":
            return Unpacked("reports")
    if isinstance(record, ExplanationsRecord) and record.format == LABELS_FORMAT:
        return Unpacked("labels")
    return Unpacked("folder")


def bundle_origin(reference: str, digest: str, zoo: str, before: dict[str, Any] | None) -> dict[str, Any]:
    """What a bundle's ``origin`` says once it came from a zoo; where it was before stays in it."""
    found: dict[str, Any] = {"format": "zoo", "reference": reference, "digest": digest, "zoo": zoo}
    return {**found, "before": before} if before else found
