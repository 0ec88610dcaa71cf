"""What somebody points at, packed: a bundle, an analysis, a report, labels, or a folder with a record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuronmap.errors import DamagedError, InputError
from neuronmap.features.storage.manifest import MANIFEST
from neuronmap.features.storage.schema import FORMAT
from neuronmap.paths import read_json
from neuronmap.saes.metadata import CONFIG_FILE, WEIGHTS_FILE
from neuronmap.zoo.packing.analyses import pack_analysis, pack_report
from neuronmap.zoo.packing.folders import pack_folder
from neuronmap.zoo.packing.package import Package
from neuronmap.zoo.packing.saes import pack_sae

__all__ = ["pack"]


def pack(source: str | Path, kind: str | None = None, record: Mapping[str, Any] | None = None) -> Package:
    """Pack a folder or file.

    Args:
        source: a bundle, a feature store, a report of the tracker; or anything, with ``kind`` and ``record``.
        kind: of a folder with a record; what the folder is decides when it is left out.
        record: the kind's record.

    Raises:
        InputError: it is none of these, and no kind or record is given.
    """
    path = Path(source).expanduser()
    if record is not None:
        if kind is None:
            raise InputError(
                "A record needs a kind.", hint="SAE_MODEL, ANALYSIS_RESULT, EXPLANATIONS, CIRCUIT, DATASET, ..."
            )
        return pack_folder(path, kind, record)
    if not path.exists():
        raise InputError(f"There is no folder or file {path}.")
    found: Package | None = None
    if (path / CONFIG_FILE).is_file() and (path / WEIGHTS_FILE).is_file():
        found = pack_sae(path)
    elif _format(path / MANIFEST) == FORMAT:
        found = pack_analysis(path)
    elif _format(path / "report.json") == "neuronmap-tracking-report":
        found = pack_report(path)
    if found is None:
        raise InputError(
            f"{path} is no SAE, no analysis and no report.",
            hint="Give --kind and --record for anything else; neuronmap zoo schema KIND lists the record's fields.",
        )
    if kind is not None and kind != found.kind:
        raise InputError(f"{path} is a {found.kind}, not a {kind}.")
    return found


def _format(file: Path) -> object:
    if not file.is_file():
        return None
    try:
        found = read_json(file)
    except DamagedError:
        return None
    return found.get("format") if isinstance(found, dict) else None
