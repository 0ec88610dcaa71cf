"""Bringing a feature store of an older version up to date.

A migration takes a store from version n to n + 1. It works on a copy: the store itself is replaced in one step when every migration
has run, so a killed or failed one leaves the old store as it was. There is one version so far, and so no migration.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import filelock

from neuronmap import paths
from neuronmap.errors import ResourceError, UnwritablePathError
from neuronmap.features.storage.manifest import MANIFEST, check_files, other_version, read_manifest, write_manifest
from neuronmap.features.storage.schema import VERSION

__all__ = ["MIGRATIONS", "Migration", "bring_up_to_date", "check_version"]

Migration = Callable[[Path, dict[str, Any]], dict[str, Any]]
"""Changes the files of a copy of the store, and returns the next version's manifest; version, file facts and seal are set after it."""

MIGRATIONS: dict[int, Migration] = {}
"""Version a store has -> what takes it to the next."""

_LOCK_SECONDS = 600.0


def bring_up_to_date(folder: Path) -> bool:
    """Migrate a store to the version of this NeuronMap.

    Returns:
        Whether there was something to do.

    Raises:
        MismatchError: its version is newer, or there is no way from it to this one.
        DamagedError: it is damaged; then nothing is migrated.
        UnwritablePathError, DiskSpaceError: the new files cannot be written beside it.
    """
    if read_manifest(folder, any_version=True)["version"] == VERSION:
        return False
    steps = check_version(folder, read_manifest(folder, any_version=True)["version"])
    paths.require_writable(folder.parent)
    lock = filelock.FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except filelock.Timeout as error:
        raise ResourceError(f"Another program has been migrating {folder} for {_LOCK_SECONDS:.0f} seconds.") from error
    try:
        manifest = read_manifest(folder, any_version=True)
        if manifest["version"] == VERSION:  # another process was first
            return True
        check_files(folder, manifest, verify=True)  # a new seal must not cover old damage
        _replace(folder, manifest, steps)
    finally:
        lock.release()
    return True


def check_version(folder: Path, number: object) -> list[Migration]:
    """The migrations from a version to the present one; none for the present one.

    Raises:
        MismatchError: there is no way from it to this one.
    """
    if not isinstance(number, int) or number > VERSION or any(old not in MIGRATIONS for old in range(number, VERSION)):
        raise other_version(folder, number)
    return [MIGRATIONS[old] for old in range(number, VERSION)]


def _replace(folder: Path, manifest: dict[str, Any], steps: Iterable[Migration]) -> None:
    names = [MANIFEST, *manifest["files"]]
    needed = sum((folder / name).stat().st_size for name in names)
    paths.check_disk_space(folder.parent, needed, f"The new files of {folder.name}", 1 << 20)
    aside = folder.parent / f".replaced-{uuid.uuid4().hex}"
    work = folder.parent / f".staging-{uuid.uuid4().hex}"
    try:
        paths.new_folder(work)
        for name in names:
            shutil.copyfile(folder / name, work / name)
        for step in steps:
            manifest = {**step(work, manifest), "version": manifest["version"] + 1}
        write_manifest(work, manifest, {*manifest["files"], *(file.name for file in work.iterdir())} - {MANIFEST})
        folder.rename(aside)
        try:
            work.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
    except OSError as error:
        raise UnwritablePathError(f"Cannot migrate {folder}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
