"""The manifest of a feature store: what it says, how it is sealed, written and read.

    format, version       neuronmap-features, 1
    key                   sha256:<hex> over all that decides the content: SAE, tokens, mask, settings, code version
    created, neuronmap    ISO 8601 in UTC; the version of NeuronMap
    features, contexts, context_length, vocabulary, rows     F, C, T, V, unmasked positions
    unit                  of the pass, a power of two
    edges                 65 edges of the histograms' bins, on the scale of the raw activation
    config                the settings of the pass (AnalysisConfig)
    facts                 what was analysed: identities of SAE, model and corpus, mask, digests
    overview              figures over the whole dictionary
    files                 name -> {"bytes", "sha256"} of every other file
    digest                sha256:<hex> over the rest of the manifest: the seal

A manifest is written last and replaced in one step, so a folder with a sealed manifest is whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from neuronmap import paths
from neuronmap.errors import DamagedError, InputError, MismatchError
from neuronmap.features.storage.schema import FORMAT, VERSION
from neuronmap.hashing import digest_file, sealed

__all__ = [
    "MANIFEST",
    "REDO",
    "check_files",
    "file_facts",
    "new_manifest",
    "read_manifest",
    "seal",
    "write_manifest",
]

MANIFEST = "manifest.json"
REDO = "Restore the file, or delete the folder and analyse again."
_COUNTS = ("features", "contexts", "context_length", "vocabulary", "rows")
_FIELDS = {
    "key": str,
    "unit": (int, float),
    "edges": list,
    "config": dict,
    "facts": dict,
    "overview": dict,
    "files": dict,
}


def new_manifest(
    *,
    key: str,
    features: int,
    contexts: int,
    context_length: int,
    vocabulary: int,
    rows: int,
    unit: float,
    edges: list[float],
    config: dict[str, Any],
    facts: dict[str, Any],
    overview: dict[str, Any],
) -> dict[str, Any]:
    """A manifest without files and seal; :func:`write_manifest` adds both. The fields are those of the module's list."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "key": key,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "neuronmap": package_version("neuronmap"),
        "features": features,
        "contexts": contexts,
        "context_length": context_length,
        "vocabulary": vocabulary,
        "rows": rows,
        "unit": unit,
        "edges": edges,
        "config": config,
        "facts": facts,
        "overview": overview,
        "files": {},
    }


def seal(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with a digest over itself, so that a changed number is noticed."""
    return sealed(manifest, "digest")


def file_facts(path: Path) -> dict[str, Any]:
    """``{"bytes", "sha256"}`` of a file, as the manifest keeps them."""
    return {"bytes": path.stat().st_size, "sha256": digest_file(path)}


def write_manifest(folder: Path, manifest: dict[str, Any], changed: Iterable[str]) -> dict[str, Any]:
    """Seal the manifest over the folder's files and put it in place in one step.

    Args:
        folder: the store.
        manifest: from :func:`new_manifest` or :func:`read_manifest`.
        changed: names of files that were written, replaced or removed since; their facts are taken now.

    Returns:
        What was written.
    """
    files = dict(manifest["files"])
    for name in changed:
        path = folder / name
        if path.is_file():
            files[name] = file_facts(path)
        else:
            files.pop(name, None)
    sealed = seal({**manifest, "files": dict(sorted(files.items()))})
    paths.write_json(folder / MANIFEST, sealed)
    return sealed


def read_manifest(folder: Path, *, any_version: bool = False) -> dict[str, Any]:
    """Read and check a store's manifest; the files it lists are not looked at.

    Args:
        folder: the store.
        any_version: also read manifests of other versions (of which only format, version and seal are checked).

    Raises:
        InputError: the folder holds no manifest.
        MismatchError: it is of another kind of folder, or of another version.
        DamagedError: it is no JSON, its seal is broken, or a field is missing.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"There is no feature store in {folder} ({MANIFEST} is missing).", hint="Analyse the SAE first."
        )
    manifest: Any = paths.read_json(path)
    found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if found != FORMAT:
        raise MismatchError(f"{folder} is not a feature store: its format is {found!r}, not {FORMAT!r}.")
    number = manifest.get("version")
    if not any_version and number != VERSION:
        raise other_version(folder, number)
    if seal(manifest) != manifest:
        raise DamagedError(
            f"The feature store {folder} is damaged: {MANIFEST} was changed (its seal is broken).", hint=REDO
        )
    if number == VERSION:
        _check_fields(folder, manifest)
    return dict(manifest)


def other_version(folder: Path, number: object) -> MismatchError:
    """The error for a store whose version this NeuronMap does not read."""
    return MismatchError(
        f"The feature store {folder} has version {number!r}; this NeuronMap reads version {VERSION}.",
        hint="Analyse the SAE again, or use the NeuronMap that wrote it.",
    )


def check_files(folder: Path, manifest: dict[str, Any], *, verify: bool) -> None:
    """Check that every listed file is there with its size and, with ``verify``, its digest (reads every byte).

    Raises:
        DamagedError: names the first file that is missing, cut off or changed.
    """
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"The feature store {folder} is damaged: {name} is missing.", hint=REDO)
        found = path.stat().st_size
        if found != facts["bytes"]:
            raise DamagedError(
                f"The feature store {folder} is damaged: {name} has {found:,} bytes, not {facts['bytes']:,}.", hint=REDO
            )
        if verify and digest_file(path) != facts["sha256"]:
            raise DamagedError(
                f"The feature store {folder} is damaged: {name} was changed (its digest differs).", hint=REDO
            )


def _check_fields(folder: Path, manifest: dict[str, Any]) -> None:
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(manifest.get(name), kind)]  # type: ignore[arg-type]
    wrong += [name for name in _COUNTS if type(manifest.get(name)) is not int]
    wrong += [
        name
        for name, facts in (manifest["files"].items() if "files" not in wrong else ())
        if Path(name).name != name or set(facts) != {"bytes", "sha256"}
    ]
    if wrong:
        raise DamagedError(f"The feature store {folder} is damaged: {MANIFEST} lacks {', '.join(wrong)}.", hint=REDO)
