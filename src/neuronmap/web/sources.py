"""Which models and texts may be named over the web: never a path.

A name is a sample, a hub id, what an SAE of the library was trained with, or a file or folder of the ones that the person who started
the server opened for this (``--text-folder``, ``--model-folder``).
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from pydantic import BaseModel, Field

from neuronmap.errors import ConfigError
from neuronmap.paths import public_name
from neuronmap.web.explorer import Explorer

__all__ = ["Source", "model_sources", "named_concept", "named_model", "named_text", "text_sources"]

_HUB = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_LISTED = 200


class Source(BaseModel):
    """Something that may be chosen by its name."""

    name: str
    about: str = Field(default="", description="What it is, in a few words.")


def model_sources(explorer: Explorer) -> list[Source]:
    """Models that can be chosen here; any hub id besides."""
    from neuronmap.models.samples import list_samples

    found = {one.name: f"sample, {one.description}" for one in list_samples() if one.path() is not None}
    for entry in explorer.entries():
        if entry.model is not None:
            found.setdefault(public_name(entry.model), f"used by {entry.id}")
    for path in _inside(explorer.settings.model_folder):
        if (path / "config.json").is_file() or path.suffix == ".gguf":
            found.setdefault(path.name, "folder of models of this server")
    return [Source(name=name, about=about) for name, about in found.items()]


def text_sources(explorer: Explorer) -> list[Source]:
    """Texts that can be chosen here; any ``hf:owner/name`` besides."""
    from neuronmap.corpora import list_corpora

    found = {one.name: one.description for one in list_corpora() if one.installed}
    for entry in explorer.entries():
        corpus = (entry.training or {}).get("corpus")
        if corpus:
            found.setdefault(public_name(corpus), f"text of {entry.id}")
    for path in _inside(explorer.settings.text_folder):
        found.setdefault(path.name, "folder of texts of this server")
    return [Source(name=name, about=about) for name, about in found.items()]


def named_model(explorer: Explorer, name: str) -> str:
    """What a model's name over the web stands for.

    Raises:
        ConfigError: it is a path, or nothing of that name may be used; lists what may.
    """
    from neuronmap.models.samples import get_sample

    if get_sample(name) is not None:
        return name
    used = {public_name(entry.model): entry.model for entry in explorer.entries() if entry.model is not None}
    return _resolved(name, used, explorer.settings.model_folder, "model", model_sources(explorer))


def named_text(explorer: Explorer, name: str) -> str:
    """What a text's name over the web stands for.

    Raises:
        ConfigError: as :func:`named_model`.
    """
    from neuronmap.corpora import list_corpora

    if name in {one.name for one in list_corpora()}:
        return name
    corpora = [(entry.training or {}).get("corpus") for entry in explorer.entries()]
    used = {public_name(corpus): str(corpus) for corpus in corpora if corpus}
    if name.startswith("hf:") and _HUB.fullmatch(name.removeprefix("hf:")):
        return name
    return _resolved(name, used, explorer.settings.text_folder, "text", text_sources(explorer))


def named_concept(name: str) -> str:
    """The name of a concept, or of a family of them.

    Raises:
        ConfigError: there is none of that name; concepts from files are not taken over the web.
    """
    from neuronmap.concepts import list_concepts

    names = list(dict.fromkeys(part for one in list_concepts() for part in (one.family, one.name)))
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    raise ConfigError(
        f"There is no concept named {name!r}.",
        hint=f"Did you mean {' or '.join(near)}?"
        if near
        else f"Concepts: {', '.join(names)}. Files of concepts are not taken over the web; the command line takes them.",
    )


def _resolved(name: str, used: dict[str, str], folder: Path | None, what: str, listed: list[Source]) -> str:
    if name in used:
        return used[name]
    for path in _inside(folder):
        if path.name == name:
            return str(path.resolve())
    if _HUB.fullmatch(name) and not Path(name).exists():
        return name
    raise ConfigError(
        f"{name!r} is no {what} that this server may use.",
        hint=f"Choose one of: {', '.join(source.name for source in listed[:12]) or 'none'}; or a hub id such as owner/name. "
        f"Paths are not taken over the web; --{what}-folder opens a folder.",
    )


def _inside(folder: Path | None) -> list[Path]:
    """What lies right in a folder, by name; links that lead out of it are left out."""
    if folder is None or not folder.is_dir():
        return []
    root = folder.resolve()
    found = [path for path in sorted(root.iterdir()) if not path.name.startswith(".")]
    return [path for path in found if path.resolve().is_relative_to(root)][:_LISTED]
