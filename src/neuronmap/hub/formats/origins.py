"""What an imported SAE remembers of where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from neuronmap.features.export.records import finite
from neuronmap.hashing import digest_file
from neuronmap.hub.formats.format import Candidate, Given
from neuronmap.hub.formats.places import Place, hub_model
from neuronmap.hub.formats.stored import Stored
from neuronmap.saes.metadata import BundleMetadata

__all__ = ["foreign_metadata"]


def foreign_metadata(
    candidate: Candidate,
    given: Given,
    files: Iterable[Stored | Path],
    *,
    config: Mapping[str, Any],
    model: str | None,
    place: Place | None,
    width: int,
    place_out: Place | None = None,
    width_out: int | None = None,
    names: Mapping[str, Any] | None = None,
) -> BundleMetadata:
    """The metadata of an SAE from elsewhere.

    Args:
        candidate: what was read.
        given: what the user said; a model's name there goes over the file's.
        files: those that were read; their digests are kept.
        config: the foreign configuration, kept as it is.
        model: the language model's name as the files have it.
        place: where the SAE reads.
        width: of its activation.
        place_out, width_out: where a transcoder writes.
        names: further names that SAELens gives such SAEs (``dataset_path``, ...); kept under its ``metadata``.
    """
    digests = {}
    for file in files:
        path, digest = (file.file, file.digest) if isinstance(file, Stored) else (file, digest_file(file))
        digests[path.name] = digest
    lens: dict[str, Any] = {"model_name": model, **(names or {})}
    if place is not None:
        lens["hook_name"] = place.foreign
    if place_out is not None:
        lens["hook_name_out"] = place_out.foreign
    name = given.model or hub_model(model)
    hooks: dict[str, Any] = {}
    if place is not None:
        hooks["hook"] = place.record(width)
    if place_out is not None:
        hooks["hook_out"] = place_out.record(width_out if width_out is not None else width)
    return BundleMetadata(
        model={"name": name} if name else None,
        origin={
            "format": candidate.format,
            "source": given.origin or candidate.name,
            "candidate": candidate.name,
            "revision": given.revision,
            "files": digests,
            "config": finite(dict(config)),
            "metadata": {key: value for key, value in lens.items() if value is not None},
        },
        **hooks,
    )
