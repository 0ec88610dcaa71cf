"""Analyses of an SAE: feature stores beside its weights, several at once.

    <bundle>/analyses/<first 12 digits of the key>/     one finished analysis (neuronmap.features.storage.schema)

The key is over SAE, tokens, mask, settings and code version, so an analysis of other text or settings has a folder of its own, and
the same one made again has the same.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap.errors import DamagedError, InputError, MismatchError, NotInLibraryError, UnwritablePathError
from neuronmap.features.storage.manifest import MANIFEST, check_files, read_manifest
from neuronmap.features.storage.migrations import check_version
from neuronmap.features.storage.schema import FORMAT
from neuronmap.hashing import short
from neuronmap.hub.entry import LibraryEntry
from neuronmap.paths import read_json
from neuronmap.saes.metadata import ANALYSES_FOLDER

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore

__all__ = ["AnalysisEntry", "analysis_folder", "delete_analysis", "list_analyses", "open_analysis", "pick_analysis"]

_NAME = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class AnalysisEntry:
    """One analysis of an SAE.

    Attributes:
        name: its folder's name; the key's first digits unless somebody named it otherwise.
        path: its folder.
        key: digest of all that decides its content; empty where it cannot be read.
        created: ISO 8601, UTC; empty likewise.
        corpus: name of the text.
        tokens: analysed positions.
        features: features of the dictionary.
        size_bytes: of all its files.
        complete: whether it was finished.
        problem: why it cannot be used; empty for sound ones.
    """

    name: str
    path: Path
    key: str = ""
    created: str = ""
    corpus: str = ""
    tokens: int = 0
    features: int = 0
    size_bytes: int = 0
    complete: bool = False
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all fields."""
        return {**asdict(self), "path": str(self.path)}


def analysis_folder(entry: LibraryEntry | Path, key: str) -> Path:
    """Where the analysis of a key lies, or would lie."""
    return _bundle(entry) / ANALYSES_FOLDER / short(key)


def list_analyses(entry: LibraryEntry | Path) -> list[AnalysisEntry]:
    """The analyses of an SAE, the newest first; unfinished and damaged ones last, with their problem.

    Args:
        entry: an entry of the library, or a bundle's folder.
    """
    folder = _bundle(entry) / ANALYSES_FOLDER
    paths = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    found = [_read(path) for path in paths if not path.name.startswith(".")]
    known = sorted((one for one in found if one is not None), key=lambda one: one.name)
    return sorted(known, key=lambda one: (not one.problem, one.created), reverse=True)


def open_analysis(entry: LibraryEntry | Path, name: str | None = None, *, verify: bool = False) -> FeatureStore:
    """Open an analysis of an SAE.

    Args:
        entry: an entry of the library, or a bundle's folder.
        name: its name, or a beginning of its name or key that no other has; None for the newest sound one.
        verify: read every byte and check every digest.

    Raises:
        NotInLibraryError: there is none, none of that name, or several; lists what is there.
        DamagedError: it is unfinished or damaged.
    """
    from neuronmap.features.storage.store import FeatureStore

    return FeatureStore.open(pick_analysis(entry, name).path, verify=verify)


def delete_analysis(entry: LibraryEntry | Path, name: str) -> Path:
    """Remove an analysis, sound or not. Takes the whole name only; asking the user is the caller's part.

    Returns:
        The folder that is gone.

    Raises:
        NotInLibraryError: there is none of that name; lists what is there.
        UnwritablePathError: the folder cannot be removed.
    """
    listed = list_analyses(entry)
    found = next((one for one in listed if one.name == name), None)
    if found is None:
        raise NotInLibraryError(
            f"{_label(entry)} has no analysis {name!r}. {_there(listed)}", hint="Deleting needs the whole name."
        )
    aside = found.path.with_name(f".deleted-{uuid.uuid4().hex}")
    try:
        os.rename(found.path, aside)  # gone at once for readers
        shutil.rmtree(aside)
    except OSError as error:
        raise UnwritablePathError(f"Cannot delete {found.path}: {error.strerror or error}.") from error
    return found.path


def pick_analysis(entry: LibraryEntry | Path, name: str | None) -> AnalysisEntry:
    """The analysis that :func:`open_analysis` opens; same arguments and errors."""
    listed = list_analyses(entry)
    sound = [one for one in listed if not one.problem]
    if not listed:
        raise NotInLibraryError(f"{_label(entry)} has no analysis.", hint="Make one with `neuronmap sae analyze`.")
    if name is None:
        chosen = [*sound, *listed][0]
    else:
        chosen = _named(entry, listed, name)
    if chosen.problem:
        raise DamagedError(
            f"Analysis '{chosen.name}' of {_label(entry)} cannot be used: {chosen.problem}", hint=_there(sound)
        )
    return chosen


def _named(entry: LibraryEntry | Path, listed: list[AnalysisEntry], name: str) -> AnalysisEntry:
    exact = [one for one in listed if one.name == name]
    digits = name.removeprefix("sha256:")
    found = exact or [
        one
        for one in listed
        if name and (one.name.startswith(name) or (digits and short(one.key, 64).startswith(digits)))
    ]
    if len(found) != 1:
        fault = "several analyses that begin with" if found else "no analysis"
        raise NotInLibraryError(f"{_label(entry)} has {fault} {name!r}. {_there(found or listed)}")
    return found[0]


def _there(listed: list[AnalysisEntry]) -> str:
    lines = [f"{one.name} ({one.problem or f'{one.corpus}, {one.tokens:,} tokens, {one.created}'})" for one in listed]
    return f"There are: {'; '.join(lines)}." if lines else "There is no other."


def _read(path: Path) -> AnalysisEntry | None:
    """The entry of a folder; None for one that is no analysis."""
    if not (path / MANIFEST).is_file():
        problem = "It was not finished: it has no manifest."
        return AnalysisEntry(path.name, path, problem=problem) if _NAME.fullmatch(path.name) else None
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    try:
        content: Any = read_json(path / MANIFEST)
        if isinstance(content, dict) and content.get("format") not in (None, FORMAT):
            return None  # something else that was attached
        manifest = read_manifest(path, any_version=True)
        check_files(path, manifest, verify=False)
        check_version(path, manifest["version"])
    except (MismatchError, DamagedError, InputError) as error:
        return AnalysisEntry(path.name, path, size_bytes=size, problem=error.message)
    except OSError as error:
        return AnalysisEntry(path.name, path, size_bytes=size, problem=f"It cannot be read: {error.strerror or error}.")
    facts = manifest.get("facts", {})  # an older version's manifest may say less; opening brings it up to date
    return AnalysisEntry(
        name=path.name,
        path=path,
        key=str(manifest.get("key", "")),
        created=str(manifest.get("created", "")),
        corpus=str((facts.get("corpus") or {}).get("name", "")),
        tokens=int(manifest.get("rows", 0)),
        features=int(manifest.get("features", 0)),
        size_bytes=size,
        complete=True,
    )


def _bundle(entry: LibraryEntry | Path) -> Path:
    return entry.path if isinstance(entry, LibraryEntry) else entry


def _label(entry: LibraryEntry | Path) -> str:
    return f"SAE '{entry.id}'" if isinstance(entry, LibraryEntry) else f"The SAE in {entry}"
