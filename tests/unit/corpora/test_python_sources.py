"""Texts, ids and generators given in Python, ``datasets`` objects, saved data sets, hub ids."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neuronmap.corpora import CorpusReport, Document, open_corpus, tokenize
from neuronmap.corpora.tables import DatasetCorpus
from neuronmap.errors import CorpusFormatError, CorpusNotFoundError, InputError

datasets = pytest.importorskip("datasets", reason="the datasets package is a dependency")


def texts_of(source: Any, **options: Any) -> list[str]:
    return [document.text for document in open_corpus(source, **options).documents()]


def ids_of(source: Any, **options: Any) -> list[list[int]]:
    return [list(document.ids) for document in open_corpus(source, **options).documents() if document.ids is not None]


def test_lists_of_texts_rows_and_ids() -> None:
    assert texts_of(["a", "b"]) == ["a", "b"]
    assert texts_of(({"text": "a", "n": 1}, {"text": "b", "n": 2})) == ["a", "b"]
    assert ids_of([[1, 2], (3,), np.array([4, 5], dtype=np.uint16)]) == [[1, 2], [3], [4, 5]]
    assert ids_of(np.array([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]


def test_bad_items_are_counted() -> None:
    report = CorpusReport()
    items = ["good", None, "", 7, [1.5], [-1], [[1], [2, 3]], b"bytes", [2**40]]
    assert [document.id for document in open_corpus(items).documents(report)] == ["0"]
    assert report.bad == {
        "missing text": 1,
        "empty text": 1,
        "neither text nor token ids": 4,
        "token id out of the vocabulary": 2,
    }


@pytest.mark.parametrize("source", [b"bytes", {"text": "a"}, {"a", "b"}, 7, None])
def test_what_cannot_be_a_corpus(source: Any) -> None:
    with pytest.raises(InputError, match="cannot be a corpus"):
        open_corpus(source)


def test_a_corpus_of_a_strangers_class_is_taken_as_it_is(tiny_tokenizer: Any) -> None:
    class Own:
        name, description, streamed = "own", "a test", False

        def documents(self, report: CorpusReport | None = None) -> Iterator[Document]:
            yield Document("x", "some text")

        def digest(self) -> str:
            return "sha256:0"

        def size_hint(self) -> int | None:
            return None

    own = Own()
    assert open_corpus(own) is own
    assert tokenize(own, tiny_tokenizer, part="all").document_id(0) == "x"


def test_a_generator_can_be_read_twice_and_spills_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronmap.corpora.sequences.SPOOL_MEMORY_BYTES", 100)
    items = ["text ä " + "x" * 60, [1, 2, 3], None, "last"]
    corpus = open_corpus(iter(items))
    first, second = CorpusReport(), CorpusReport()
    one = [(document.id, document.text) for document in corpus.documents(first)]
    two = [(document.id, document.text) for document in corpus.documents(second)]
    assert one == two == [("0", items[0]), ("1", ""), ("3", "last")]
    assert first == second
    assert first.bad == {"missing text": 1}
    assert corpus.digest() == open_corpus(items).digest() == open_corpus(iter(items)).digest()


def test_two_readers_of_one_generator_see_the_same() -> None:
    corpus = open_corpus(str(number) for number in range(5))
    one, two = corpus.documents(), corpus.documents()
    pairs = list(zip(one, two, strict=True))
    assert [(a.text, b.text) for a, b in pairs] == [(str(number),) * 2 for number in range(5)]


def test_an_endless_generator_stops_at_max_tokens_and_is_cached_by_content(tiny_tokenizer: Any, home: Path) -> None:
    def endless() -> Iterator[str]:
        return (f"This is sentence number {number}." for number in itertools.count())

    tokens = tokenize(endless(), tiny_tokenizer, context_length=16, max_tokens=1600, part="train")
    assert (tokens.num_contexts, tokens.num_tokens, tokens.report.stopped_early) == (100, 1600, True)
    again = tokenize(endless(), tiny_tokenizer, context_length=16, max_tokens=1600, part="train")
    assert again.digest == tokens.digest
    assert again.report.reused
    cached = list((home / "cache" / "tokens").iterdir())
    assert len(cached) == 1, "nothing provisional is left"


def test_train_and_heldout_from_one_generator(tiny_tokenizer: Any) -> None:
    corpus = open_corpus(f"Sentence {number}." for number in range(200))
    train = tokenize(corpus, tiny_tokenizer, context_length=8, part="train", heldout_fraction=0.2)
    heldout = tokenize(corpus, tiny_tokenizer, context_length=8, part="heldout", heldout_fraction=0.2)
    assert train.report.documents_read == heldout.report.documents_read == 200
    assert train.digest != heldout.digest


def test_dataset_objects() -> None:
    rows = [{"text": text, "n": number} for number, text in enumerate(["a", "b", "c"])]
    data = datasets.Dataset.from_list(rows)
    assert texts_of(data) == ["a", "b", "c"]
    assert texts_of(data.select([2, 0])) == ["c", "a"]
    assert open_corpus(data).digest() == open_corpus(datasets.Dataset.from_list(rows)).digest()
    assert open_corpus(data).digest() != open_corpus(data.select([2, 0])).digest()
    assert texts_of(data.to_iterable_dataset()) == ["a", "b", "c"]
    splits = datasets.DatasetDict({"test": data.select([0]), "train": data.select([1])})
    assert texts_of(splits) == ["b"]
    assert texts_of(splits, split="test") == ["a"]
    with pytest.raises(CorpusFormatError, match="test, train"):
        open_corpus(splits, split="validation")
    with pytest.raises(CorpusFormatError, match="no column 'body'"):
        open_corpus(data, text_column="body")


def test_token_columns_of_datasets() -> None:
    data = datasets.Dataset.from_dict({"input_ids": [[1, 2], [], [3, 4, 5]], "length": [2, 0, 3]})
    report = CorpusReport()
    found = [list(document.ids) for document in open_corpus(data).documents(report) if document.ids is not None]
    assert found == [[1, 2], [3, 4, 5]]
    assert report.examples == {"empty text": ["1"]}
    assert ids_of(data.select([2, 0])) == [[3, 4, 5], [1, 2]]


def test_an_iterable_dataset_of_unknown_columns() -> None:
    data = datasets.IterableDataset.from_generator(lambda: iter([{"body": "a"}, {"body": "b"}, {"body": 3}]))
    corpus = open_corpus(data)
    report = CorpusReport()
    assert [document.text for document in corpus.documents(report)] == ["a", "b"]
    assert report.num_bad == 1


def test_saved_datasets(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"text": ["a", "b"]})
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"x": data, "y": data}).save_to_disk(str(tmp_path / "many"))
    data.to_parquet(str(tmp_path / "shards" / "0.parquet"))
    assert texts_of(tmp_path / "one") == ["a", "b"]
    assert texts_of(str(tmp_path / "many"), split="y") == ["a", "b"]
    assert texts_of(tmp_path / "shards") == ["a", "b"]
    with pytest.raises(CorpusFormatError, match="several splits"):
        open_corpus(tmp_path / "many")
    with pytest.raises(CorpusFormatError, match="split"):
        open_corpus(tmp_path / "shards", split="test")


# the hub: never reached in tests; what it would answer is put in its place


def local_builder(folder: Path) -> Any:
    from datasets.packaged_modules.parquet.parquet import Parquet

    data = datasets.Dataset.from_dict({"text": ["hub one", "hub two"], "n": [1, 2]})
    data.to_parquet(str(folder / "data.parquet"))
    return Parquet(
        cache_dir=str(folder / "cache"),
        dataset_name="words",
        hash="abc123",
        data_files={"test": [str(folder / "data.parquet")]},
    )


def answer(monkeypatch: pytest.MonkeyPatch, result: Any) -> None:
    def dataset_info(self: Any, repo_id: str, **options: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return SimpleNamespace(sha=result)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_data_set_is_pinned_to_its_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, streaming: bool
) -> None:
    asked = {}

    def load(dataset_id: str, **options: Any) -> Any:
        asked.update(options, id=dataset_id)
        return local_builder(tmp_path)

    answer(monkeypatch, "abc123")
    monkeypatch.setattr("datasets.load_dataset_builder", load)
    corpus = open_corpus("hf:owner/words", streaming=streaming, revision="main")
    assert asked == {"id": "owner/words", "name": None, "revision": "abc123"}
    assert [document.text for document in corpus.documents()] == ["hub one", "hub two"]
    assert corpus.digest() == open_corpus("owner/words", streaming=not streaming).digest()
    assert corpus.digest() != open_corpus("owner/words", text_column="text").digest()
    with pytest.raises(CorpusFormatError, match=r"no split 'train'.*test"):
        open_corpus("owner/words", split="train")


def test_without_the_hub_the_local_copy_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    local_builder(tmp_path).download_and_prepare()
    # moved to where a hub download would lie
    prepared = next((tmp_path / "cache" / "words").glob("default-*")).rename(tmp_path / "cache" / "words" / "default")
    prepared.parent.rename(tmp_path / "cache" / "owner___words")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    answer(monkeypatch, OSError("Name or service not known"))
    corpus = open_corpus("owner/words")
    assert [document.text for document in corpus.documents()] == ["hub one", "hub two"]
    assert "abc123" in corpus.description
    assert texts_of("owner/words", streaming=True) == ["hub one", "hub two"]
    with pytest.raises(CorpusNotFoundError, match="abc123"):
        open_corpus("owner/words", revision="other")


def test_without_the_hub_and_a_copy_it_says_so_quickly() -> None:
    start = time.monotonic()
    with pytest.raises(
        CorpusNotFoundError, match=r"cannot be read from this machine \(.*\), and the hub cannot be reached"
    ):
        open_corpus("hf:owner/nothing", split="test")
    assert time.monotonic() - start < 10


def test_missing_gated_and_wrong_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    errors = import_module("huggingface_hub.errors")
    response = SimpleNamespace(headers={}, request=None, status_code=404)
    for kind, words in (
        (errors.GatedRepoError, "is gated"),
        (errors.RepositoryNotFoundError, "no data set 'owner/words'"),
        (errors.RevisionNotFoundError, "no revision 'v9'"),
    ):
        answer(monkeypatch, kind("refused", response=response))
        with pytest.raises(CorpusNotFoundError, match=words):
            open_corpus("owner/words", revision="v9")


def test_a_dataset_corpus_has_a_name_and_a_description() -> None:
    corpus = open_corpus(datasets.Dataset.from_dict({"text": ["a"]}), name="mine")
    assert isinstance(corpus, DatasetCorpus)
    assert (corpus.name, corpus.description) == ("mine", "data set of 1 rows, column text")
