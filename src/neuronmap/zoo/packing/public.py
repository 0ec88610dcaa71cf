"""Paths of this machine are nobody else's business: of those in what is published only the last part stays.

Configurations, figures, cards, the manifests of analyses and reports are published as copies in which ``<folders>/models/tiny`` is
``tiny``; weights, tables and texts stay byte for byte. The same file gives the same copy, so that publishing again is publishing the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from neuronmap import paths
from neuronmap.paths import public_name
from neuronmap.zoo.digests import Digest, SafePath

__all__ = ["machine_paths", "public_document", "public_files", "public_name", "public_value"]

_REWRITTEN = (".json", ".md")


def machine_paths(value: Any) -> list[str]:
    """Texts in nested values that are absolute paths on a machine, each once.

    A sentence may begin with a path, and a path may have spaces: what goes on after a space behind another of the paths is a sentence.
    """
    found = dict.fromkeys(_absolute(value))
    return [path for path in found if not any(path.startswith(f"{other} ") for other in found)]


def _absolute(value: Any) -> list[str]:
    if isinstance(value, str):
        absolute = PurePosixPath(value).is_absolute() or bool(re.match(r"[A-Za-z]:[\\/]", value))
        return [value] if absolute and public_name(value) != value else []
    if isinstance(value, Mapping):
        return [path for inner in value.values() for path in _absolute(inner)]
    if isinstance(value, list | tuple):
        return [path for inner in value for path in _absolute(inner)]
    return []


def public_value(value: Any) -> Any:
    """Nested values in which no path of this machine stands, neither alone nor within another text."""
    return _replaced(value, machine_paths(value))


def public_files(files: Mapping[SafePath, Path]) -> tuple[dict[SafePath, Path], tuple[str, ...]]:
    """Files to publish: those that name paths of this machine as copies that do not.

    Args:
        files: path within the artefact -> file. JSON files and cards are looked into.

    Returns:
        The files, and what was done, in sentences.
    """
    values = {inside: paths.read_json(path) for inside, path in files.items() if inside.endswith(".json")}
    texts = {
        inside: path.read_bytes().decode("utf-8", "surrogateescape")
        for inside, path in files.items()
        if inside.endswith(_REWRITTEN)
    }
    known = machine_paths(values)
    found, changed = dict(files), list[str]()
    for inside, text in texts.items():
        if inside in values:
            public = _replaced(values[inside], known)
            if public == values[inside]:
                continue
            text = json.dumps(public, indent=2, ensure_ascii=False) + "\n"
        elif (text := _without(text, known)) == texts[inside]:
            continue
        found[inside] = _kept(inside, text.encode("utf-8", "surrogateescape"))
        changed.append(inside)
    return found, _said(changed, known)


def public_document(
    inside: SafePath,
    file: Path,
    value: Mapping[str, Any],
    fields: Iterable[str],
    seal: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
) -> tuple[Path, tuple[str, ...]]:
    """One JSON file to publish: itself, or a copy that names no path of this machine in some of its fields.

    Args:
        inside: path within the artefact.
        file: the file.
        value: what it holds.
        fields: where paths may stand; the others hold texts and tokens, in which what looks like a path is none, and stay as they are.
        seal: makes the copy's digest over itself, where it has one.

    Returns:
        The file, and what was done, in sentences.
    """
    looked = {name: value[name] for name in fields if name in value}
    public = public_value(looked)
    if public == looked:
        return file, ()
    written = json.dumps(seal({**value, **public}), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _kept(inside, written.encode("utf-8", "surrogateescape")), _said([inside], machine_paths(looked))


def _said(changed: list[str], known: list[str]) -> tuple[str, ...]:
    """What was shortened where, in a sentence."""
    if not changed:
        return ()
    said = ", ".join(f"{path} as {public_name(path)}" for path in known[:4]) + (", ..." if len(known) > 4 else "")
    return (f"Paths of this machine are published by their last part in {', '.join(changed)}: {said}.",)


def _replaced(value: Any, known: list[str]) -> Any:
    change: Callable[[Any], Any] = lambda inner: _replaced(inner, known)  # noqa: E731
    if isinstance(value, str):
        return _without(value, known)
    if isinstance(value, Mapping):
        return {name: change(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [change(inner) for inner in value]
    return value


def _without(text: str, known: list[str]) -> str:
    """A text in which the known paths are their last parts. ``/data`` is none within ``hf://org/data`` or ``www.example.org/data``."""
    for path in sorted(set(known), key=len, reverse=True):
        if path in text:
            name = public_name(path).replace("\\", r"\\")
            text = re.sub(rf"(?:(?<![\w.~%@/-])|(?<=file://)){re.escape(path)}", name, text)
    return text


def _kept(inside: SafePath, data: bytes) -> Path:
    """A copy under its digest, in a folder that can be emptied at any time: the next packing writes it again."""
    target = paths.home() / "zoo" / "cache" / "packed" / Digest.of(data).hex / inside.rpartition("/")[2]
    paths.new_folder(target.parent)
    if not target.is_file() or target.read_bytes() != data:
        paths.write_bytes(target, data)
    return target
