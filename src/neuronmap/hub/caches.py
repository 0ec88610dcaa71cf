"""What lies in the caches under the home folder, and making room there.

    <home>/cache/<kind>/<entry>      a file or a folder; all of it can be made again

An entry that a process of this machine has open, has mapped into memory or holds the lock of is in use and stays. Of processes on other
machines that share the home folder nothing can be known: there, name an age that none of their runs reaches.
"""

from __future__ import annotations

import math
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from neuronmap.errors import ConfigError, NeuronMapError, UnwritablePathError
from neuronmap.paths import home, read_json

__all__ = ["CACHES", "CacheEntry", "Cleaned", "clean_caches", "list_caches"]

CACHES = {
    "activations": "stored activations; a training on the same text reads them instead of running the model",
    "tokens": "texts cut into contexts of token ids",
    "models": "models converted from GGUF files",
    "remote": "shards read from buckets",
    "features": "analyses that are not finished, or not in the library yet",
    "concepts": "representations of concepts' items, for reports",
    "endpoint": "answers of language models that label features; to ask again may cost money",
    "examples": "the explorer's index of example texts",
    "semantic": "the explorer's vectors of features, to search by meaning",
    "label-vectors": "the explorer's vectors of labels",
    "zoo-reading": "parts of published files, read for a page",
    "benchmarks": "finished runs of benchmarks/",
}
"""What each kind holds. A kind that is not here is listed too."""
_MANIFEST = "manifest.json"
_GOING = ".going-"
"""Before the name of an entry that is being removed."""


@dataclass(frozen=True)
class CacheEntry:
    """One part of a cache.

    Attributes:
        kind: the cache.
        name: file or folder in it; with a dot in front, the rest of work that was interrupted.
        path: where it lies.
        size_bytes: of its files; what a link leads to does not count.
        last_used: POSIX time at which one of its files was read or written last, as far as the file system keeps it (many note a reading
            once a day).
        what: what it was made of, where its manifest tells.
    """

    kind: str
    name: str
    path: Path
    size_bytes: int
    last_used: float
    what: str


@dataclass(frozen=True)
class Cleaned:
    """What cleaning did, or would do.

    Attributes:
        removed: entries that went, or would go.
        in_use: entries that stayed because a process uses them.
        recent: entries that stayed because they were used lately.
    """

    removed: tuple[CacheEntry, ...]
    in_use: tuple[CacheEntry, ...]
    recent: tuple[CacheEntry, ...]


def list_caches(kinds: Sequence[str] = ()) -> list[CacheEntry]:
    """What lies in the caches, by kind, the largest first.

    Args:
        kinds: these alone; all when left out.

    Raises:
        ConfigError: for a kind that is neither known nor there.
    """
    folder = home() / "cache"
    there = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    known = [*CACHES, *sorted(there - set(CACHES))]
    for kind in kinds:
        if kind not in known:
            raise ConfigError(f"There is no cache '{kind}'.", hint=f"Caches: {', '.join(known)}.")
    wanted = [kind for kind in known if kind in there and (not kinds or kind in kinds)]
    return [entry for kind in wanted for entry in sorted(_entries(folder / kind), key=lambda one: -one.size_bytes)]


def clean_caches(kinds: Sequence[str], *, unused_days: float = 1.0, dry_run: bool = False) -> Cleaned:
    """Remove what was not used for some days and is not in use.

    An entry is renamed and then removed: whoever looks for it meanwhile finds it whole, or not at all.

    Args:
        kinds: caches to clean.
        unused_days: entries used within this many days stay.
        dry_run: only say what would go.

    Raises:
        ConfigError: for a kind that is neither known nor there, or days below 0.
        UnwritablePathError: an entry cannot be removed; those before it are gone.
    """
    if not 0 <= unused_days < math.inf:
        raise ConfigError(f"unused_days = {unused_days} is no number of days from 0.")
    before = time.time() - unused_days * 86_400
    entries = list_caches(kinds)
    old = [entry for entry in entries if entry.last_used <= before]
    opened = _opened({entry.path.parent for entry in old} | {entry.path for entry in old if entry.path.is_symlink()})
    removed, in_use = [], []
    for entry in old:
        with _locked(entry) as free:
            if not free or any(Path(file).is_relative_to(entry.path.resolve()) for file in opened):
                in_use.append(entry)
                continue
            if not dry_run:
                _remove(entry)
        removed.append(entry)
    return Cleaned(tuple(removed), tuple(in_use), tuple(entry for entry in entries if entry.last_used > before))


def _entries(folder: Path) -> Iterator[CacheEntry]:
    for path in folder.iterdir():
        if path.name.endswith(".lock"):
            continue
        size, times = 0, []
        for file in (path, *_files(path)):
            with suppress(OSError):  # gone meanwhile
                found = file.lstat()
                is_data = stat.S_ISREG(found.st_mode)
                size += found.st_size if is_data else 0
                if file.name.endswith(".lock"):
                    continue
                times.append(found.st_mtime)
                if is_data and file.name != _MANIFEST:  # which is read here too
                    times.append(found.st_atime)
        if times:
            yield CacheEntry(folder.name, path.name, path, size, max(times), _told(path))


def _files(path: Path) -> Iterator[Path]:
    """Under a folder; nothing under a file or a link."""
    if path.is_dir() and not path.is_symlink():
        yield from (Path(where) / name for where, _, names in os.walk(path) for name in names)


def _told(path: Path) -> str:
    """What an entry's manifest says that it was made of."""
    if path.name.startswith("."):
        return "left by something interrupted"
    try:
        manifest: dict[str, Any] = read_json(path / _MANIFEST)
        if manifest.get("format") == "neuronmap-activations":
            of = f"{manifest['hook']['name']} of {manifest['model']['name']}"
            return f"{of}, {manifest['num_rows']:,} rows as {manifest['dtype']}"
        if manifest.get("format") == "neuronmap-tokens":
            report = manifest["report"]
            return f"{report['corpus']}/{report['part']}, {report['tokens']:,} tokens"
    except (NeuronMapError, OSError, ValueError, KeyError, TypeError):
        pass  # a part of a cache may be anything
    return ""


def _opened(folders: Iterable[Path]) -> set[str]:
    """Files under these folders that processes of this machine have open or mapped, as far as this user may see."""
    under = tuple(f"{folder.resolve()}{os.sep}" for folder in folders)
    found: set[str] = set()
    if not under:
        return found
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            found.update(file.path for file in process.open_files())
        if hasattr(process, "memory_maps"):
            with suppress(psutil.Error, OSError):
                found.update(mapped.path for mapped in process.memory_maps())
    return {file for file in found if file.startswith(under)}


@contextmanager
def _locked(entry: CacheEntry) -> Iterator[bool]:
    """Hold the locks there are for an entry while it goes; whether all could be had."""
    name = entry.name.removeprefix(".unfinished-")
    places = [entry.path / ".lock", *(entry.path.with_name(f"{dots}{name}.lock") for dots in (".", ".unfinished-"))]
    with ExitStack() as held:
        try:
            for place in places:
                if place.is_file():
                    held.enter_context(FileLock(place).acquire(timeout=0))
        except (Timeout, OSError):
            yield False
            return
        yield True


def _remove(entry: CacheEntry) -> None:
    going = entry.path.with_name(f"{_GOING}{uuid.uuid4().hex}")
    try:
        os.rename(entry.path, going)
        if going.is_dir() and not going.is_symlink():
            shutil.rmtree(going)
        else:
            going.unlink()
    except FileNotFoundError:
        return  # somebody else removed it
    except OSError as error:
        raise UnwritablePathError(f"Cannot remove {entry.path}: {error.strerror or error}.") from error
