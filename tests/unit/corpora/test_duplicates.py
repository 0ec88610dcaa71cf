"""Repeated documents are left out and counted, in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest

from neuronmap.corpora import CorpusReport, open_corpus, tokenize
from neuronmap.corpora import duplicates as duplicates_module

TEXTS = ["one", "two", "one", "three", "", "two", "one ", "four"]


def test_each_content_comes_once_the_first_time() -> None:
    report = CorpusReport()
    corpus = open_corpus(TEXTS, deduplicate=True)
    assert [(d.id, d.text) for d in corpus.documents(report)] == [
        ("0", "one"), ("1", "two"), ("3", "three"), ("6", "one "), ("7", "four"),
    ]  # fmt: skip
    assert (report.documents, report.duplicates, report.bad) == (5, 2, {"empty text": 1})
    assert len(list(corpus.documents())) == 5, "each reading starts with nothing seen"


def test_token_ids_are_content_too() -> None:
    corpus = open_corpus([[1, 2], [1, 2], [2, 1], "x"], deduplicate=True)
    assert [document.id for document in corpus.documents()] == ["0", "2", "3"]


def test_past_the_bound_the_digests_move_to_disk_and_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text {number % 700}" for number in range(2000)]
    expected = [d.id for d in open_corpus(texts, deduplicate=True).documents()]
    assert len(expected) == 700
    moved = []
    real = duplicates_module._Seen._move
    monkeypatch.setattr(duplicates_module, "MEMORY_DIGESTS", 50)
    monkeypatch.setattr(duplicates_module._Seen, "_move", lambda self: (moved.append(len(self._memory)), real(self)))
    report = CorpusReport()
    assert [d.id for d in open_corpus(texts, deduplicate=True).documents(report)] == expected
    assert moved == [51]
    assert report.duplicates == 1300


def test_the_count_is_in_the_report_and_the_key_is_another(tiny_tokenizer: Any) -> None:
    texts = [f"text number {number % 30}" for number in range(60)]
    with_all = tokenize(texts, tiny_tokenizer, context_length=16, part="all")
    without = tokenize(open_corpus(texts, deduplicate=True), tiny_tokenizer, context_length=16, part="all")
    assert (with_all.report.duplicates, without.report.duplicates) == (0, 30)
    assert without.digest != with_all.digest
    assert without.report.documents_read == 30
    assert "30 repeated documents left out" in without.summary()
    assert "repeated" not in with_all.summary()


def test_in_a_mixture_repeats_are_counted_within_each_source() -> None:
    from neuronmap.corpora import Mixture

    one = open_corpus(["aa", "aa", "ab", "ac"], name="one", deduplicate=True)
    two = open_corpus(["aa", "bb", "bc", "bb"], name="two", deduplicate=True)
    report = CorpusReport()
    apart = [d.text for d in Mixture([(one, 1), (two, 1)], exhausted="go_on").documents(report)]
    assert sorted(apart) == ["aa", "aa", "ab", "ac", "bb", "bc"]
    assert (report.documents, report.duplicates) == (6, 2)
    whole = Mixture([(open_corpus(["aa"], name="x"), 1), (open_corpus(["aa", "bb"], name="y"), 1)], exhausted="go_on")
    assert [d.text for d in open_corpus(whole, deduplicate=True).documents()] == ["aa", "bb"]
