"""The caches that searching makes, kept small: what belongs to no analysis any more goes, and the least recently used above a size.

    <home>/cache/examples/   texts of examples, to search in        (:mod:`neuronmap.web.views.example_index`)
    <home>/cache/semantic/   vectors of features, to search by meaning   (:mod:`neuronmap.web.views.semantic_index`)

Together they take 12 GiB at most, two thirds of it examples; ``NEURONMAP_SEARCH_CACHE`` says another number of GiB, 0 for what is in use
alone. Everything in them can be made again in seconds to minutes. A file that is dropped while somebody reads it stays readable to them.
When something was used last is its time of modification, which :func:`touch` sets: file systems do not keep the time of reading.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from neuronmap import paths
from neuronmap.errors import ConfigError, NeuronMapError
from neuronmap.features.storage.manifest import read_manifest
from neuronmap.features.storage.store import FeatureStore
from neuronmap.hub import AnalysisEntry, SAEModelHub, list_analyses
from neuronmap.paths import cache_folder
from neuronmap.web.logs import logger

__all__ = ["SWITCH", "bound", "drop_orphans", "most_bytes", "tidy", "touch"]

SWITCH = "NEURONMAP_SEARCH_CACHE"
"""Environment variable: most GiB of both caches together."""
_MOST_GIB = 12.0
_SHARES = {"examples": 2 / 3, "semantic": 1 / 3}
"""Of it, for each. An analysis of 65,536 features over two million tokens has about 150 MB and 50 MB."""
_RECENT_S = 3600.0
"""What was used in the last hour is not dropped for want of an analysis: it may be of a library that another server shows."""


def most_bytes(kind: str) -> int:
    """How large a cache may be.

    Args:
        kind: ``examples`` or ``semantic``.

    Raises:
        ConfigError: the environment variable holds no number from 0.
    """
    said = os.environ.get(SWITCH, "").strip()
    try:
        gib = float(said) if said else _MOST_GIB
    except ValueError:
        gib = math.nan
    if not 0 <= gib < math.inf:
        raise ConfigError(
            f"{SWITCH} = {said!r} is no number of GiB.", hint=f"For example {SWITCH}=20; {_MOST_GIB:g} if left out."
        )
    return int(gib * _SHARES[kind] * 2**30)


def touch(path: Path) -> None:
    """Note that a part of a cache was used now."""
    with suppress(OSError):  # a cache that may only be read
        os.utime(path)


def bound(kind: str, keep: Path | None = None) -> list[Path]:
    """Drop what was not used for longest until a cache is no larger than its :func:`most_bytes`.

    Args:
        kind: ``examples`` or ``semantic``.
        keep: what was made just now and stays, whatever its size.

    Returns:
        What was dropped.
    """
    most, parts = most_bytes(kind), sorted(_parts(kind), key=_used)
    sizes = {part: _size(part) for part in parts}
    total, dropped = sum(sizes.values()), []
    for part in parts:
        if total <= most:
            break
        if part != keep and _drop(part):
            total -= sizes[part]
            dropped.append(part)
    return dropped


def drop_orphans(libraries: Iterable[Path]) -> list[Path]:
    """Drop what belongs to no analysis of these libraries.

    Args:
        libraries: folders; if one is not there, nothing is dropped: it may be on a disk that is not.

    Returns:
        What was dropped.
    """
    from neuronmap.web.views.example_index import index_folder
    from neuronmap.web.views.semantic_index import SemanticIndex, encoder_digest

    folders = list(dict.fromkeys(libraries))
    if not all(folder.is_dir() for folder in folders):
        return []
    analyses = [one for folder in folders for entry in SAEModelHub(folder).list() for one in list_analyses(entry)]
    sound = [one for one in analyses if one.complete and not one.problem]
    known = {index_folder(one.key) for one in sound}
    gone = [part for part in _parts("examples") if part not in known]
    encoder = encoder_digest() if any(_parts("semantic")) else None
    if encoder is not None:  # without the encoder nobody can say whose a file is
        stores = [store for one in sound if (store := _unverified(one)) is not None]
        made = {SemanticIndex.of(store, encoder).path.stem for store in stores}
        gone += [part for part in _parts("semantic") if part.stem not in made]
    before = time.time() - _RECENT_S
    return [part for part in gone if _used(part) < before and _drop(part)]


def tidy(library: Path | None) -> None:
    """Both, for a server that has just started; what cannot be done is logged.

    Args:
        library: the server's; this machine's own counts besides.
    """
    log = logger()
    try:
        own = [folder for folder in (paths.library_folder(),) if folder.is_dir()]
        dropped = drop_orphans([*own, *([library] if library is not None else [])])
        dropped += [part for kind in _SHARES for part in bound(kind)]
    except (OSError, NeuronMapError) as error:
        log.warning("caches", message=str(error))
        return
    if dropped:
        log.info("caches", dropped=[part.name for part in dropped])


def _unverified(analysis: AnalysisEntry) -> FeatureStore | None:
    """The store, without its digests checked: only its manifest is looked at. None for an older version: nothing was made of it yet."""
    try:
        return FeatureStore(analysis.path, read_manifest(analysis.path))
    except NeuronMapError:
        return None


def _parts(kind: str) -> list[Path]:
    """What lies in a cache; what a killed server has left half made is there as well."""
    folder = cache_folder(kind)
    return list(folder.iterdir()) if folder.is_dir() else []


def _used(part: Path) -> float:
    try:
        return part.stat().st_mtime
    except OSError:
        return 0.0  # gone meanwhile


def _size(part: Path) -> int:
    files = [part] if part.is_file() else [file for file in part.rglob("*") if file.is_file()]
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_size
    return total


def _drop(part: Path) -> bool:
    """Remove it; whether that could be done."""
    try:
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    except OSError:
        return False
    return True
