"""Data sets of the Hugging Face hub, and data set folders saved with ``Dataset.save_to_disk``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from neuronmap.corpora.document import CheckedCorpus, CorpusReport, Document
from neuronmap.corpora.reading import Place, RowReading
from neuronmap.corpora.tables import DatasetCorpus, IterableDatasetCorpus
from neuronmap.errors import CorpusFormatError, CorpusNotFoundError
from neuronmap.hashing import digest_json

__all__ = ["HubCorpus", "is_saved_dataset", "load_saved_dataset", "pick_split"]

HUB_TIMEOUT_S = 10.0


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``datasets.load_from_disk`` can read the folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def load_saved_dataset(folder: Path, split: str | None) -> Any:
    """The ``datasets.Dataset`` in a saved folder; ``split`` chooses among several.

    Raises:
        CorpusFormatError: the folder cannot be read, or has no such split.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise CorpusFormatError(f"{folder} looks like a saved data set but cannot be read: {error}.") from error
    return in_split(loaded, split, str(folder))


def in_split(loaded: Any, split: str | None, where: str) -> Any:
    """One split of a DatasetDict or IterableDatasetDict; a plain data set is given back unless a split is asked for."""
    if isinstance(loaded, dict):
        return loaded[pick_split(list(loaded), split, where)]
    own = str(loaded.split) if loaded.split is not None else None
    if split is not None and split != own:
        raise CorpusFormatError(f"{where} is one data set without a split '{split}'.", hint="Leave split out.")
    return loaded


def pick_split(names: Sequence[str], split: str | None, where: str) -> str:
    """The split asked for, else ``train``, else the only one.

    Raises:
        CorpusFormatError: lists the splits.
    """
    if split is not None:
        if split.split("[")[0] in names or not names:
            return split
    elif "train" in names or not names:
        return "train"
    elif len(names) == 1:
        return names[0]
    problem = f"has no split '{split}'" if split is not None else "has several splits and none is called train"
    raise CorpusFormatError(f"{where} {problem}. Splits: {', '.join(names)}.", hint="Choose one with split.")


class HubCorpus(CheckedCorpus):
    """A data set of the hub, pinned to a commit when it is opened; rows are downloaded when first read.

    Without a network the newest copy in the local data set cache is used, if there is one. No code of the
    data set is ever run.

    Args:
        dataset_id: ``owner/name``.
        subset: configuration of the data set, where it has several.
        split: default ``train``, or the only one.
        text_column: default: the usual names, or the only text column.
        streaming: read over the network while tokenising, and only as much as needed.
        revision: branch, tag or commit; the default branch if None.

    Raises:
        CorpusNotFoundError: missing, gated, or the hub cannot be reached and there is no local copy.
        CorpusFormatError: the subset or split must be chosen, or the files cannot be read.
    """

    def __init__(
        self,
        dataset_id: str,
        *,
        subset: str | None = None,
        split: str | None = None,
        text_column: str | None = None,
        streaming: bool = False,
        revision: str | None = None,
        name: str | None = None,
    ) -> None:
        self._text_column = text_column
        self._streaming = streaming
        self._builder, self.commit = _builder(dataset_id, subset, revision)
        self.split = pick_split(_splits(self._builder), split, f"Data set {dataset_id}")
        self._source = {"hub 1": dataset_id, "subset": self._builder.config.name, "commit": self.commit}
        how = "streamed" if streaming else "downloaded"
        description = f"hub data set {dataset_id}, split {self.split}, commit {self.commit[:12]}, {how}"
        super().__init__(name or dataset_id.rsplit("/", 1)[-1], description)

    def rows(self, report: CorpusReport, /) -> Iterator[tuple[str, Any]]:
        with self._failures():
            yield from self._open().rows(report)

    def reading(self, report: CorpusReport, place: Place | None = None) -> _HubReading:
        """Documents from a place on: streamed, whole shards before it are not fetched; downloaded, its rows are not read."""
        with self._failures():
            return _HubReading(self._open().reading(report, place), self._failures)

    def _open(self) -> DatasetCorpus | IterableDatasetCorpus:
        options = {"text_column": self._text_column, "name": self.name}
        if self._streaming:
            return IterableDatasetCorpus(self._builder.as_streaming_dataset(split=self.split), **options)
        self._builder.download_and_prepare()
        return DatasetCorpus(self._builder.as_dataset(split=self.split), **options)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        import datasets

        try:
            yield
        except (OSError, datasets.exceptions.DatasetsError) as error:
            raise CorpusFormatError(
                f"Reading {self.description} failed: {error}.",
                hint="Tokenising goes on where it stopped when it is run again.",
            ) from error

    def digest(self) -> str:
        """Digest of id, subset, commit, split and column; streamed or not is the same text."""
        return digest_json({**self._source, "split": self.split, "column": self._text_column})


class _HubReading:
    """A reading whose failures name the data set."""

    def __init__(self, inner: RowReading, failures: Callable[[], AbstractContextManager[None]]) -> None:
        self._inner, self._failures = inner, failures

    def __iter__(self) -> Iterator[Document]:
        return self

    def __next__(self) -> Document:
        with self._failures():
            document = next(self._inner, None)
        if document is None:
            raise StopIteration
        return document

    def place(self) -> Place:
        return self._inner.place()


def _splits(builder: Any) -> list[str]:
    if builder.info.splits:
        return list(builder.info.splits)
    return list(getattr(builder.config, "data_files", None) or {})


def _builder(dataset_id: str, subset: str | None, revision: str | None) -> tuple[Any, str]:
    """The data set's builder and its commit. One short question to the hub comes first, since ``datasets`` itself
    retries for half a minute when there is no network."""
    import datasets

    commit, unreachable = _ask_hub(dataset_id, revision)
    if Path(dataset_id).exists():
        raise CorpusFormatError(
            f"There is a local path '{dataset_id}' with the same name as the hub data set.",
            hint=f"For the local one pass './{dataset_id}'; for the hub, work in another folder.",
        )
    try:
        if commit is not None:
            return datasets.load_dataset_builder(dataset_id, name=subset, revision=commit), commit
        builder = _cached_builder(dataset_id, subset)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if commit is None:
            raise CorpusNotFoundError(
                f"Data set '{dataset_id}' cannot be read from this machine ({_first_line(error)}), and the hub "
                f"cannot be reached ({unreachable}).",
                hint="Check the network or the subset, or use local files or a sample (neuronmap corpora list).",
            ) from error
        raise CorpusFormatError(f"Data set '{dataset_id}' cannot be opened: {error}.") from error
    if revision not in (None, builder.hash):
        raise CorpusNotFoundError(
            f"Revision '{revision}' of data set '{dataset_id}' was asked for; the hub cannot be reached ({unreachable}) "
            f"and the copy on this machine is of commit {builder.hash}.",
            hint=f"Pass revision='{builder.hash}', or check the network.",
        )
    return builder, str(builder.hash)


def _ask_hub(dataset_id: str, revision: str | None) -> tuple[str | None, str]:
    """The commit of a revision, or None and why the hub did not answer."""
    import huggingface_hub

    errors = import_module("huggingface_hub.errors")  # its HTTPError is httpx's or httpx2's, by version

    try:
        found = huggingface_hub.HfApi().dataset_info(dataset_id, revision=revision, timeout=HUB_TIMEOUT_S)
    except errors.GatedRepoError as error:
        raise CorpusNotFoundError(
            f"Data set '{dataset_id}' is gated: the hub wants its terms accepted by a logged-in user.",
            hint=f"Accept them at https://huggingface.co/datasets/{dataset_id} and log in with: hf auth login",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CorpusNotFoundError(f"Data set '{dataset_id}' has no revision '{revision}'.") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise CorpusNotFoundError(
            f"There is no data set '{dataset_id}' on the Hugging Face hub, or it is private.",
            hint="Check the spelling (owner/name), or log in with: hf auth login",
        ) from error
    except (errors.HTTPError, OSError) as error:
        return None, _first_line(error)
    return str(found.sha), ""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _cached_builder(dataset_id: str, subset: str | None) -> Any:
    from datasets.packaged_modules.cache.cache import Cache

    return Cache(
        dataset_name=dataset_id.rsplit("/", 1)[-1],
        repo_id=dataset_id,
        config_name=subset,
        version="auto",
        hash="auto",
    )
