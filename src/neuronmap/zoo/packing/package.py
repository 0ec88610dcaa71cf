"""A package: files on this machine and what is said of them, before they have a name in the zoo."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neuronmap.errors import InputError, InvalidManifestError
from neuronmap.zoo.digests import SafePath
from neuronmap.zoo.faults import Fault
from neuronmap.zoo.manifest import media_type
from neuronmap.zoo.names import check_tag
from neuronmap.zoo.packing.public import public_name

__all__ = [
    "Package",
    "author",
    "corpus_ref",
    "figures",
    "hook_ref",
    "model_ref",
    "named",
    "tags_of",
    "utc",
    "visible_files",
]

_METRIC = re.compile(r"[A-Za-z0-9_.@/ -]{1,120}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COUNTS = {"rows", "dimensions", "cosine_rows", "norm_ratio_rows"}


@dataclass(frozen=True)
class Package:
    """Something to publish.

    Attributes:
        kind: SAE_MODEL, ANALYSIS_RESULT, ...
        record: what the kind says of itself, complete.
        files: path within the artefact -> file on this machine.
        created: when it was made, ISO 8601 in UTC. Taken from what is packed, so that packing it again gives the same manifest.
        title: one line.
        summary: a paragraph.
        tags: words to search by.
        card: which file is its card.
        software: versions of what made it.
        sae_weights: for what belongs to an SAE: the digest of its weights, by which the dependency is found.
        notes: what whoever publishes should know, in sentences.
    """

    kind: str
    record: dict[str, Any]
    files: Mapping[SafePath, Path]
    created: str
    title: str = ""
    summary: str = ""
    tags: tuple[str, ...] = ()
    card: SafePath | None = None
    software: dict[str, str] = field(default_factory=dict)
    sae_weights: str | None = None
    notes: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        """Its part of a manifest; files, name, licence and dependencies are added when it is published."""
        found: dict[str, Any] = {
            "kind": self.kind,
            "record": self.record,
            "created": self.created,
            "title": self.title,
            "summary": self.summary,
            "tags": list(self.tags),
            "software": self.software,
        }
        if self.card is not None:
            found["card"] = self.card
        return found


def visible_files(folder: Path, *, leave_out: bool = False) -> tuple[dict[SafePath, Path], list[str]]:
    """Every visible file of a folder, by its path within the artefact. A link must lead to a file of the same folder.

    A snapshot in the Hugging Face hub's cache is a folder of links: those into the cache's own ``blobs`` are followed.

    Args:
        folder: the folder.
        leave_out: pass over files that the zoo does not take, in place of refusing them.

    Returns:
        The files, and the paths of those that were left out.

    Raises:
        InvalidManifestError: lists every file that has a name or a format that the zoo does not take, or is a link out of the folder.
        InputError: there is no file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.")
    found: dict[SafePath, Path] = {}
    left: list[str] = []
    faults: list[Fault] = []
    roots = _own_roots(folder)
    for top, inner, names in os.walk(folder, followlinks=False):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        linked = [name for name in inner if Path(top, name).is_symlink()]
        for name in sorted([*names, *linked]):
            if name.startswith("."):
                continue
            path = Path(top, name)
            said = path.relative_to(folder).as_posix()
            try:
                inside = SafePath(said)
                _require_own(path, roots)
                media_type(inside)
            except InputError as error:
                left.append(said)
                faults.append(Fault(f"files.{said}", error.message))
                continue
            found[inside] = path
    if faults and not leave_out:
        raise InvalidManifestError(faults, f"The folder {folder}")
    if not found:
        raise InputError(f"{folder} holds no files that the zoo takes.")
    return found, left


def named(paths: Iterable[Path]) -> dict[SafePath, Path]:
    """Files by their own names, those that are there.

    Raises:
        InvalidManifestError: one is a link out of its folder.
    """
    found = {SafePath(path.name): path for path in paths if path.exists() or path.is_symlink()}
    faults = []
    for inside, path in found.items():
        try:
            _require_own(path, _own_roots(path.parent))
        except InputError as error:
            faults.append(Fault(f"files.{inside}", error.message))
    if faults:
        raise InvalidManifestError(faults, "The folder")
    return found


def _own_roots(folder: Path) -> tuple[Path, ...]:
    """Where the files of a folder may lie: in it; for a snapshot of the hub's cache, in the cache's blobs of the same repository."""
    whole = folder.resolve()
    for snapshots in (whole, *whole.parents):
        repository = snapshots.parent
        if snapshots.name == "snapshots" and repository.name.startswith(("models--", "datasets--", "spaces--")):
            return whole, repository / "blobs"
    return (whole,)


def _require_own(path: Path, roots: tuple[Path, ...]) -> None:
    """Refuse what is no file, and what lies elsewhere: publishing a folder must not publish what a link in it leads to.

    Raises:
        InputError: says where it leads.
    """
    real = path.resolve()
    if not any(real.is_relative_to(root) for root in roots):
        raise InputError(
            f"it is a link to {real}, which is outside the folder: copy the file there if it is to be published"
        )
    if not real.is_file():
        raise InputError(
            "it is no regular file" if not path.is_symlink() else f"it is a link to {real}, which is no file"
        )


def utc(moment: str | None, files: Iterable[Path] = ()) -> str:
    """A time as manifests hold it: what the thing says of itself, else the latest time of its files."""
    if moment:
        try:
            read = datetime.fromisoformat(moment)
        except ValueError:
            pass
        else:
            aware = read if read.tzinfo is not None else read.replace(tzinfo=UTC)
            return _text(aware.astimezone(UTC))
    return _text(datetime.fromtimestamp(max((int(path.stat().st_mtime) for path in files), default=0), UTC))


def _text(moment: datetime) -> str:
    return moment.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def author(text: str) -> dict[str, str]:
    """Read ``Ada Lovelace``, ``Ada Lovelace <0000-0002-1825-0097>`` or ``... <orcid> (affiliation)``.

    Raises:
        InputError: it has no name.
    """
    match = re.fullmatch(r"\s*([^<>()]+?)\s*(?:<\s*([^<>]+?)\s*>)?\s*(?:\(\s*(.+?)\s*\))?\s*", text)
    if match is None:
        raise InputError(f"{text[:100]!r} names no author: 'Name', 'Name <orcid>' or 'Name <orcid> (affiliation)' do.")
    found = {"name": match[1]}
    if match[2]:
        found["orcid"] = match[2]
    if match[3]:
        found["affiliation"] = match[3]
    return found


def model_ref(identity: Mapping[str, Any] | None, fallback: str = "unknown") -> dict[str, Any]:
    """A model's identity as bundles and analyses keep it, as a record keeps it."""
    known = identity or {}
    digests = {"digest": known.get("model_digest"), "tokenizer_digest": known.get("tokenizer_digest")}
    found = {
        "name": public_name(known.get("name")) or fallback,
        "revision": known.get("revision"),
        "architecture": known.get("architecture"),
        "hidden_size": known.get("hidden_size"),
        "num_layers": known.get("num_layers"),
        **{name: value for name, value in digests.items() if _DIGEST.fullmatch(str(value))},
    }
    return {name: value for name, value in found.items() if value is not None}


def hook_ref(hook: Mapping[str, Any], width: int | None = None) -> dict[str, Any]:
    """A hook's record, as a manifest keeps it."""
    layer, component = hook.get("layer"), hook.get("component")
    place = f"layers.{layer}.{component}" if layer is not None and component else None
    found = {
        "name": hook.get("name") or place or hook.get("module_path") or "unknown",
        "layer": layer,
        "component": component,
        "module_path": hook.get("module_path"),
        "side": hook.get("side"),
        "width": hook.get("width") or width,
    }
    return {name: value for name, value in found.items() if value is not None}


def corpus_ref(corpus: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A text, as a manifest keeps it."""
    if not corpus or not corpus.get("name"):
        return None
    found = {
        "name": public_name(corpus["name"]),
        "digest": corpus.get("digest") or corpus.get("train"),
        "tokens": corpus.get("tokens"),
        "context_length": corpus.get("context_length"),
    }
    return {name: value for name, value in found.items() if value is not None}


def figures(values: Mapping[str, float]) -> dict[str, float]:
    """Figures whose names a manifest takes, without mere counts of what was measured."""
    return {name: float(value) for name, value in values.items() if name not in _COUNTS and _METRIC.fullmatch(name)}


def tags_of(words: Iterable[str]) -> tuple[str, ...]:
    """Tags as the zoo takes them, lower case; those that cannot be one are left out."""

    def fitting() -> Iterator[str]:
        for word in words:
            try:
                yield check_tag(word.strip().lower())
            except InputError:
                continue

    return tuple(dict.fromkeys(fitting()))[:50]
