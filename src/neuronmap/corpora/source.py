"""One door for every kind of text source."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from neuronmap.corpora.compressed import plain_suffix
from neuronmap.corpora.document import Corpus
from neuronmap.corpora.duplicates import DeduplicatedCorpus
from neuronmap.corpora.files import ENDINGS, FileCorpus
from neuronmap.corpora.huggingface import HubCorpus, in_split, is_saved_dataset, load_saved_dataset
from neuronmap.corpora.mixture import Mixture
from neuronmap.corpora.samples import NamedCorpus, named_corpora
from neuronmap.corpora.sequences import IteratorCorpus, SequenceCorpus
from neuronmap.corpora.specs import MIX, parse_hub, parse_mixture
from neuronmap.corpora.tables import DatasetCorpus, IterableDatasetCorpus
from neuronmap.errors import CorpusFormatError, CorpusNotFoundError, InputError

__all__ = ["open_corpus"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LONGEST_NAME = 255


def open_corpus(
    source: Any,
    *,
    text_column: str | None = None,
    split: str | None = None,
    subset: str | None = None,
    streaming: bool = False,
    revision: str | None = None,
    name: str | None = None,
    deduplicate: bool = False,
) -> Corpus:
    """Open a text source.

    Args:
        source: a sample's name (``"sotu"``; ``list_corpora()`` has them all); a path to a text file, jsonl, csv,
            tsv or parquet (all but parquet also .gz, .bz2, .xz, .zst), to a folder of such files, or to a saved
            ``datasets`` folder; a hub data set ``"owner/name"`` or ``"hf:owner/name"``, with options behind a question mark
            (``"hf:owner/name?split=train&streaming=true"``); a mixture ``"mix:0.7*sotu,0.3*hf:owner/name"``
            (:class:`neuronmap.corpora.Mixture`); a ``datasets`` object; a list or iterator of texts, of token-id sequences, or
            of row dictionaries; or a corpus, given back as is.
        text_column: the column that holds the text (or token ids). Default: the usual names (text, content, ...),
            else the only text column, else ``input_ids`` or ``tokens``.
        split: which split of a data set; default ``train``, or the only one.
        subset: configuration of a hub data set, where it has several.
        streaming: read a hub data set over the network while tokenising instead of downloading it first.
        revision: branch, tag or commit of a hub data set.
        name: what to call the corpus in reports; default: from the source.
        deduplicate: leave out documents whose content has come before (exactly; see ``neuronmap.corpora.duplicates``).

    Returns:
        The corpus. Files are opened when it is read; a hub data set is looked up, and pinned to a commit, now.

    Raises:
        CorpusNotFoundError: no such sample, path or data set.
        CorpusFormatError: it is there but cannot be read as asked.
        ConfigError: an option behind ``hf:``, or a mixture, is written wrongly.
        InputError: this kind of object cannot be a corpus.

    Example:
        >>> open_corpus(["The cat sat.", "The dog ran."]).name
        'texts'
    """
    hub = {"subset": subset, "streaming": streaming, "revision": revision}
    corpus = _open(source, text_column=text_column, split=split, name=name, hub=hub)
    return DeduplicatedCorpus(corpus) if deduplicate else corpus


def _open(source: Any, *, text_column: str | None, split: str | None, name: str | None, hub: dict[str, Any]) -> Corpus:
    if isinstance(source, NamedCorpus):
        return source.open()
    if isinstance(source, (str, os.PathLike)):
        return _open_text(source, text_column=text_column, split=split, name=name, hub=hub)
    if isinstance(source, Corpus):
        return source
    if _is_datasets_object(source):
        dataset = in_split(source, split, "The data set")
        kind = DatasetCorpus if hasattr(dataset, "num_rows") else IterableDatasetCorpus
        return kind(dataset, text_column=text_column, name=name)
    if isinstance(source, (bytes, bytearray, Mapping, set, frozenset)) or not isinstance(source, Iterable):
        raise InputError(
            f"A {type(source).__name__} cannot be a corpus.",
            hint="Pass a list of texts, a path, a sample's name, a hub data set id or a datasets object.",
        )
    if isinstance(source, Iterator):
        return IteratorCorpus(source, text_column=text_column, name=name)
    return SequenceCorpus(source, text_column=text_column, name=name)


def _is_datasets_object(source: Any) -> bool:
    datasets = sys.modules.get("datasets")  # an object of that library exists only if it is imported
    if datasets is None:
        return False
    kinds = (datasets.Dataset, datasets.IterableDataset, datasets.DatasetDict, datasets.IterableDatasetDict)
    return isinstance(source, kinds)


def _open_text(
    source: str | os.PathLike[str], *, text_column: str | None, split: str | None, name: str | None, hub: dict[str, Any]
) -> Corpus:
    text = os.fspath(source)
    if isinstance(source, str):
        if text.startswith("hf:"):
            dataset_id, own = parse_hub(text[3:])
            return HubCorpus(dataset_id, **{"text_column": text_column, "split": split, "name": name, **hub, **own})
        if text.startswith(MIX):
            spec = parse_mixture(text)
            options: dict[str, Any] = {"text_column": text_column, "split": split, "name": None, "hub": hub}
            opened = [(_open_text(part, **options), weight) for weight, part in spec.sources]
            return Mixture(opened, exhausted=spec.exhausted, name=name)
        if text in (named := named_corpora()):
            return named[text].open()
        if not text.strip() or len(text) > LONGEST_NAME or "\n" in text:
            raise _not_a_source(text)
    path = Path(text).expanduser()
    if path.exists():
        return _open_path(path, text_column, split, name)
    if isinstance(source, str):
        if HUB_ID.fullmatch(text) and plain_suffix(path) not in ENDINGS:
            return HubCorpus(text, text_column=text_column, split=split, name=name, **hub)
        if " " in text.strip() and plain_suffix(path) not in ENDINGS:
            raise _not_a_source(text)
    raise CorpusNotFoundError(f"There is no file, folder, or sample '{text}'.", hint=_near(path))


def _open_path(path: Path, text_column: str | None, split: str | None, name: str | None) -> Corpus:
    if path.is_dir() and is_saved_dataset(path):
        dataset = load_saved_dataset(path, split)
        return DatasetCorpus(dataset, text_column=text_column, name=name or path.resolve().name)
    if split is not None:
        raise CorpusFormatError(f"{path} is not a data set with splits, but split='{split}' was given.")
    return FileCorpus(path, text_column=text_column, name=name)


def _not_a_source(text: str) -> CorpusNotFoundError:
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return CorpusNotFoundError(
        f"{shown!r} is no file, folder, sample or data set; it looks like text itself.",
        hint="To work on texts, pass a list of texts: [text, ...].",
    )


def _near(path: Path) -> str:
    samples = list(named_corpora())
    near = difflib.get_close_matches(str(path), samples, n=1)
    if not near and path.parent.is_dir():
        try:
            names = [entry.name for entry in path.parent.iterdir()]
        except OSError:
            names = []
        near = [str(path.parent / found) for found in difflib.get_close_matches(path.name, names, n=3)]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Samples: {', '.join(samples)}. Hub data sets are given as owner/name."
