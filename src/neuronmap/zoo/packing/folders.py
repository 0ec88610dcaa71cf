"""Any folder with a record: kinds that NeuronMap does not make itself, and those of plug-ins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from neuronmap.errors import InputError, InvalidManifestError
from neuronmap.zoo.digests import SafePath
from neuronmap.zoo.faults import faults_of
from neuronmap.zoo.manifest import media_type
from neuronmap.zoo.packing.package import Package, utc, visible_files
from neuronmap.zoo.records import get_kind

__all__ = ["pack_folder"]


def pack_folder(source: str | Path, kind: str, record: Mapping[str, Any], *, leave_out: bool = False) -> Package:
    """A folder's visible files (or one file), and a record that says what they are.

    Args:
        source: the folder, or a file.
        kind: CIRCUIT, DATASET, or any other kind of :func:`~neuronmap.zoo.records.list_kinds`.
        record: the fields of the kind's record; ``neuronmap zoo schema KIND`` lists them.
        leave_out: pass over files that the zoo does not take, and say so, in place of refusing them.

    Raises:
        InputError: no such kind.
        InvalidManifestError: lists every fault of the record, and every file that the zoo does not take.
    """
    path = Path(source)
    model = get_kind(kind).record_type
    faults: list[tuple[str, str]] = []
    try:
        model.model_validate(dict(record))
    except ValidationError as error:
        faults += faults_of(error, "record")
    left: list[str] = []
    files: dict[SafePath, Path] = {}
    try:
        if path.is_file():
            inside = SafePath(path.name)
            media_type(inside)
            files = {inside: path}
        elif path.is_dir():
            files, left = visible_files(path, leave_out=leave_out)
        else:
            faults.append(("files", f"there is no folder or file {path}"))
    except InvalidManifestError as error:
        faults += error.faults
    except InputError as error:
        faults.append(("files", error.message))
    if faults:
        raise InvalidManifestError(faults, f"The {kind} in {path}")
    card = SafePath("README.md")
    return Package(
        kind=kind,
        record=dict(record),
        files=files,
        created=utc(None, files.values()),
        card=card if card in files else None,
        notes=(f"Left out, since the zoo does not take such files: {', '.join(left[:10])}.",) if left else (),
    )
