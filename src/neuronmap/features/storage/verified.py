"""Checks a feature store's digests once for each state of its files, not at every opening.

The record (:mod:`neuronmap.verified`) also keeps the digest that was right, since a manifest may be replaced; it is not listed in the
manifest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuronmap.errors import DamagedError
from neuronmap.features.storage.manifest import check_files, read_manifest
from neuronmap.verified import file_states, read_record, write_record

__all__ = ["read_verified"]

_ATTEMPTS = 5


def read_verified(folder: Path, *, verify: bool = False) -> dict[str, Any]:
    """The manifest of a store whose files are as it says.

    Args:
        folder: the store.
        verify: check every digest, not only those of files that differ from what was checked before.

    Raises:
        InputError, MismatchError: see :func:`read_manifest`.
        DamagedError: names the first file that is missing, cut off or changed.
    """
    manifest = read_manifest(folder)
    for _ in range(_ATTEMPTS):
        try:
            _check(folder, manifest, verify)
        except DamagedError:
            latest = read_manifest(folder)
            if latest == manifest:
                raise
            manifest = latest  # a table was attached meanwhile
        else:
            return manifest
    _check(folder, manifest, verify)
    return manifest


def _check(folder: Path, manifest: dict[str, Any], verify: bool) -> None:
    check_files(folder, manifest, verify=False)
    known = read_record(folder)
    state = _state(folder, manifest)
    unchecked = {name for name in state if verify or known.get(name) != state[name]}
    if unchecked:
        check_files(folder, {"files": {name: manifest["files"][name] for name in sorted(unchecked)}}, verify=True)
    if known != state:
        write_record(folder, state)


def _state(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """State of each listed file and the digest that was right, by name."""
    states = file_states(folder / name for name in manifest["files"])
    return {name: [*state, manifest["files"][name]["sha256"]] for name, state in states.items()}
