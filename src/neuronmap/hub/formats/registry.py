"""Which formats there are, and which of them some files belong to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from neuronmap import plugins
from neuronmap.errors import ConfigError, InputError, PluginError
from neuronmap.hub.formats.circuit_tracer import CircuitTracer
from neuronmap.hub.formats.crosscoders import Crosscoders
from neuronmap.hub.formats.dashboards import SAEDashboard
from neuronmap.hub.formats.delphi import Delphi
from neuronmap.hub.formats.dictionary_learning import DictionaryLearning
from neuronmap.hub.formats.format import Candidate, Format
from neuronmap.hub.formats.gemma_scope import GemmaScope, GemmaScope2
from neuronmap.hub.formats.llama_scope import LlamaScope, Llamascopium
from neuronmap.hub.formats.openai import OpenAI
from neuronmap.hub.formats.saelens import SAELens
from neuronmap.hub.formats.sparsify import Sparsify
from neuronmap.hub.formats.stored import PICKLED, READABLE, read_stored
from neuronmap.progress import Progress

__all__ = ["choose", "detect", "get_format", "list_formats"]

_DEEPEST = 6
_MOST_FOLDERS = 20_000


@cache
def _formats() -> dict[str, Format]:
    found: dict[str, Format] = {}
    built_in: list[Format] = [
        SAELens(), Sparsify(), DictionaryLearning(), GemmaScope(), GemmaScope2(), LlamaScope(), Llamascopium(), CircuitTracer(),
        Crosscoders(), OpenAI(), SAEDashboard(), Delphi(),
    ]  # fmt: skip
    for one in [*built_in, *plugins.collect("neuronmap_formats")]:
        if not isinstance(one, Format):
            raise PluginError(f"{one!r} is not an object of a subclass of neuronmap.hub.formats.Format.")
        if one.name in found:
            raise PluginError(f"Two formats are called '{one.name}': {found[one.name]!r} and {one!r}.")
        found[one.name] = one
    return found


def list_formats() -> list[Format]:
    """All formats, built-in ones first."""
    return list(_formats().values())


def get_format(name: str) -> Format:
    """A format by name.

    Raises:
        ConfigError: there is none; lists them.
    """
    known = _formats()
    if name not in known:
        raise ConfigError(f"There is no format '{name}'. There are: {', '.join(known)}.")
    return known[name]


def detect(path: Path, format: str | None = None, progress: Progress | None = None) -> list[Candidate]:
    """Everything in a folder, or in a file, that some format recognises; names are unique.

    Args:
        path: a folder (searched a few levels deep) or a file.
        format: only this one; None asks all.
        progress: where the warning about pickles goes.

    Raises:
        InputError: nothing is there, or nothing was recognised; says what was found.
        DamagedError: a file of a known kind is damaged.
        ConfigError: an unknown format.
    """
    asked = [get_format(format)] if format is not None else list_formats()
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    if path.is_file():
        found = _claimed(path, asked) or _by_tensors(path, asked, progress)
    else:
        found = [
            _renamed(one, folder.relative_to(path)) for folder in _folders(path) for one in _claimed(folder, asked)
        ]
        if not found:
            files = [
                file
                for file in sorted(path.iterdir())
                if file.suffix.lower() in READABLE and not file.name.startswith(".")
            ]
            if len(files) == 1:
                found = _by_tensors(files[0], asked, progress)
    if not found:
        raise _nothing(path, format)
    return _unique(found)


def choose(found: list[Candidate], select: str | None = None, layer: int | None = None) -> list[Candidate]:
    """The candidates whose name fits a pattern and whose layer is this one.

    Args:
        found: from :func:`detect`.
        select: name, or a pattern with ``*`` and ``?``.
        layer: block, counted from 0.

    Raises:
        InputError: none fits; lists what there is.
    """
    fits = [
        one
        for one in found
        if (select is None or one.name == select or fnmatchcase(one.name, select))
        and (layer is None or one.layer == layer)
    ]
    if not fits:
        said = " and ".join(
            part
            for part in (f"--select {select}" if select else "", f"--layer {layer}" if layer is not None else "")
            if part
        )
        names = ", ".join(one.name for one in found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        raise InputError(f"Nothing fits {said}. There are: {names}.")
    return fits


def _claimed(path: Path, asked: Iterable[Format]) -> list[Candidate]:
    """What the first format finds that finds anything."""
    for one in asked:
        found = one.sniff(path)
        if found:
            return found
    return []


def _folders(top: Path) -> Iterator[Path]:
    """The folder and those below it, parents first, without hidden ones and without what lies in a folder of weights."""
    for seen, (folder, inner, files) in enumerate(os.walk(top)):
        here = Path(folder)
        if seen >= _MOST_FOLDERS:
            raise InputError(
                f"{top} has more than {_MOST_FOLDERS:,} folders.", hint="Give the folder of the SAEs themselves."
            )
        yield here
        depth = len(here.relative_to(top).parts)
        whole = ("sae_weights.safetensors", "sae.safetensors", "params.npz", "params.safetensors", "ae.pt")
        stop = depth >= _DEEPEST or any(name in files for name in whole)
        inner[:] = [] if stop else sorted(name for name in inner if not name.startswith("."))


def _renamed(candidate: Candidate, folder: Path) -> Candidate:
    """Named by the whole way to it."""
    parts = [part for part in folder.parts if part not in (".", "")]
    last = candidate.name if not parts or parts[-1] != candidate.name else ""
    name = "/".join([*parts, *([last] if last else [])]) or candidate.name
    return _with_name(candidate, name)


def _with_name(candidate: Candidate, name: str) -> Candidate:
    return replace(candidate, name=name)


def _unique(found: list[Candidate]) -> list[Candidate]:
    counts: dict[str, int] = {}
    unique = []
    for one in sorted(found, key=lambda one: (one.layer if one.layer is not None else -1, one.name)):
        number = counts[one.name] = counts.get(one.name, 0) + 1
        unique.append(one if number == 1 else _with_name(one, f"{one.name}#{number}"))
    return unique


def _by_tensors(file: Path, asked: Iterable[Format], progress: Progress | None) -> list[Candidate]:
    """A file whose name says nothing: its tensors are read and shown to every format."""
    if file.suffix.lower() not in READABLE:
        return []
    stored = read_stored(file, progress if file.suffix.lower() in PICKLED else None)
    owner = next((one for one in asked if one.owns(stored)), None)
    if owner is None:
        return []
    return [Candidate(owner.name, file.name, file, about="told by its tensors", stored=stored)]


def _nothing(path: Path, format: str | None) -> InputError:
    names = sorted(item.name for item in path.iterdir())[:8] if path.is_dir() else [path.name]
    what = f"as {format}" if format else "by any format"
    hint = "neuronmap sae import --formats lists them."
    if any(name.endswith(tuple(PICKLED)) for name in names):
        hint += (
            " Pickled modules (torch.save(module), as overcomplete writes them) are never opened: they are programs."
        )
    return InputError(f"{path} is not recognised {what}. It holds {', '.join(names) or 'nothing'}.", hint=hint)
