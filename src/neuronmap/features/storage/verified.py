"""Checks a feature store's digests once for each state of its files, not at every opening.

``verified.json`` beside the manifest keeps size, modification time, inode and digest of the files whose digests were found right; the
inode, since a copy may take over the times. It is no part of the store (the manifest does not list it): without it, or where it cannot
be written, the digests are checked at every opening.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuronmap import paths
from neuronmap.errors import DamagedError, DiskSpaceError, UnwritablePathError
from neuronmap.features.storage.manifest import check_files, read_manifest

__all__ = ["VERIFIED", "read_verified"]

VERIFIED = "verified.json"
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
    known = _recorded(folder)
    state = _state(folder, manifest)  # as before the check: a file changed meanwhile is checked again
    unchecked = {name for name in state if verify or known.get(name) != state[name]}
    if unchecked:
        check_files(folder, {"files": {name: manifest["files"][name] for name in sorted(unchecked)}}, verify=True)
    if known != state:
        _write(folder, state)


def _state(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Size, modification time in ns, inode and the digest that was right, by name."""
    found: dict[str, Any] = {}
    for name, facts in manifest["files"].items():
        try:
            status = (folder / name).stat()
        except FileNotFoundError:
            continue  # gone since its size was looked at: what reads it says so
        found[name] = [status.st_size, status.st_mtime_ns, status.st_ino, facts["sha256"]]
    return found


def _recorded(folder: Path) -> dict[str, Any]:
    try:
        found = paths.read_json(folder / VERIFIED)
    except (OSError, DamagedError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(folder: Path, state: dict[str, Any]) -> None:
    try:
        paths.write_json(folder / VERIFIED, state)
    except (UnwritablePathError, DiskSpaceError):
        return  # a store on a read-only or full disk is good all the same; it is checked again next time
