"""Mixtures: shares of the text, the order, what happens when a source ends, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neuronmap.corpora import CorpusReport, Mixture, open_corpus, tokenize
from neuronmap.corpora.specs import absolute_spec, parse_hub, parse_mixture
from neuronmap.errors import ConfigError, EmptyCorpusError
from neuronmap.paths import public_name


def source(letter: str, count: int, size: int = 10) -> Any:
    return open_corpus([letter * size + str(number) for number in range(count)], name=letter)


def letters(mixture: Mixture) -> str:
    return "".join(document.text[0] for document in mixture.documents())


def test_shares_are_of_the_text_not_of_the_documents() -> None:
    """Documents of 1,000 letters beside documents of 10: with equal weights about a hundred short ones to each long one."""
    mixture = Mixture([(source("a", 30, size=1000), 1), (source("b", 3000), 1)])
    sizes = {"a": 0, "b": 0}
    for number, document in enumerate(mixture.documents()):
        sizes[document.text[0]] += len(document.text)
        if number > 200:
            assert abs(sizes["a"] - sizes["b"]) <= 1003, "never further apart than one document"
    assert 2200 < number < 2300


@pytest.mark.parametrize("weights", [(3.0, 1.0), (0.75, 0.25), (6, 2)])
def test_only_the_ratio_of_weights_counts_and_the_order_is_always_the_same(weights: tuple[float, float]) -> None:
    made = [Mixture([(source("a", 90), weights[0]), (source("b", 90), weights[1])]) for _ in range(2)]
    first = letters(made[0])
    assert first.startswith("abaa")
    assert letters(made[1]) == first
    assert first.count("a") / first.count("b") == pytest.approx(3, rel=0.05)
    assert made[0].digest() == made[1].digest() == Mixture([(source("a", 90), 3), (source("b", 90), 1)]).digest()
    assert made[0].digest() != Mixture([(source("a", 90), 2), (source("b", 90), 1)]).digest()


def test_stop_ends_with_the_first_source_that_is_due_and_empty() -> None:
    order = letters(Mixture([(source("a", 3), 1), (source("b", 50), 1)]))
    assert order == "abababb"[:6]


def test_go_on_reads_every_document_once() -> None:
    order = letters(Mixture([(source("a", 3), 1), (source("b", 9), 1)], exhausted="go_on"))
    assert (order.count("a"), order.count("b")) == (3, 9)
    assert order.endswith("bbbbbb")


def test_repeat_keeps_the_shares_until_every_source_was_read_once() -> None:
    mixture = Mixture([(source("a", 3), 1), (source("b", 9), 1)], exhausted="repeat")
    ids = [document.id for document in mixture.documents()]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if name.startswith("a")][:7] == [
        "a/0",
        "a/1",
        "a/2",
        "a/0#2",
        "a/1#2",
        "a/2#2",
        "a/0#3",
    ]
    assert sum(name.startswith("b") for name in ids) == 9
    assert sum(name.startswith("a") for name in ids) in (9, 10)


def test_bad_rows_are_counted_with_the_source_before_the_place() -> None:
    one, two = open_corpus(["x" * 10, "", "y" * 10], name="one"), open_corpus(["z" * 10, None, 3, "w" * 10], name="two")
    report = CorpusReport()
    texts = [document.text[0] for document in Mixture([(one, 1), (two, 1)], exhausted="go_on").documents(report)]
    assert sorted(texts) == ["w", "x", "y", "z"]
    assert report.documents == 4
    assert report.bad == {"empty text": 1, "missing text": 1, "neither text nor token ids": 1}
    assert report.examples["missing text"] == ["two/1"]


@pytest.mark.parametrize("rule", ["stop", "go_on", "repeat"])
def test_a_source_without_text_is_an_error_under_every_rule(rule: Any) -> None:
    empty = open_corpus(["", " "], name="nothing")
    with pytest.raises(EmptyCorpusError, match="nothing, a source of the mixture"):
        list(Mixture([(source("a", 3), 1), (empty, 1)], exhausted=rule).documents())


def test_sources_of_one_name_are_told_apart_and_streams_are_known_by_content() -> None:
    mixture = Mixture([(open_corpus(["one"]), 1), (open_corpus(iter(["two"])), 1)], exhausted="go_on")
    assert [document.id for document in mixture.documents()] == ["texts/0", "texts-2/0"]
    assert mixture.streamed
    assert mixture.digest() == mixture.digest()


@pytest.mark.parametrize(
    ("sources", "rule", "words"),
    [
        ([("a", 1.0)], "stop", "two sources or more"),
        ([("a", 1.0), ("b", 0.0)], "stop", "The weight of b is 0"),
        ([("a", 1.0), ("b", float("inf"))], "stop", "a number above 0"),
        ([("a", 1.0), ("b", 1.0)], "never", "allowed are stop, go_on, repeat"),
    ],
)
def test_what_is_no_mixture(sources: list[tuple[str, float]], rule: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Mixture([(source(name, 2), weight) for name, weight in sources], exhausted=rule)


def test_a_mixture_is_written_as_one_string_and_tokenised(tmp_path: Path, tiny_tokenizer: Any) -> None:
    for name in ("red", "blue"):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "{name} {n} word"}}\n' for n in range(60)))
    spec = f"mix:3*{tmp_path / 'red.jsonl'}, 1*{tmp_path / 'blue.jsonl'};go_on"
    tokens = tokenize(spec, tiny_tokenizer, context_length=16, part="all", max_tokens=640)
    ids = [tokens.document_id(index) for index in range(tokens.num_documents)]
    assert sum(name.startswith("red/red.jsonl:") for name in ids) == pytest.approx(0.75 * len(ids), abs=2)
    assert "0.75 red, 0.25 blue" in tokens.report.source
    assert tokenize(spec, tiny_tokenizer, context_length=16, part="all", max_tokens=640).report.reused
    assert public_name(spec) == "mix:3*red.jsonl, 1*blue.jsonl;go_on"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mix:", "not a weight above 0"),
        ("mix:sotu,pydoc", "not a weight above 0"),
        ("mix:0*sotu,1*pydoc", "not a weight above 0"),
        ("mix:1*sotu,1*", "not a weight above 0"),
        ("mix:1*sotu,1*mix:1*pydoc", "cannot be a source"),
        ("mix:1*sotu,1*pydoc;often", "no rule"),
        ("mix:1*sotu", "two sources or more"),
        ("hf:owner/name?colum=text", "Did you mean column"),
        ("hf:owner/name?streaming=perhaps", "neither true nor false"),
        ("hf:owner/name?split=", "has no value"),
    ],
)
def test_what_is_written_wrongly_is_explained(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_corpus(text)
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_options_of_a_hub_data_set() -> None:
    found = parse_hub("owner/name?subset=en&split=train[:10]&column=body&revision=v1&streaming=true")
    assert found == (
        "owner/name",
        {"subset": "en", "split": "train[:10]", "text_column": "body", "revision": "v1", "streaming": True},
    )
    assert parse_hub("owner/name") == ("owner/name", {})


def test_paths_in_a_mixture_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("words")
    assert absolute_spec("mix:2*mine.txt,1*sotu;repeat") == f"mix:2*{tmp_path / 'mine.txt'},1*sotu;repeat"
    assert absolute_spec("mine.txt") == str(tmp_path / "mine.txt")
    assert absolute_spec("sotu") == "sotu"
    assert str(parse_mixture("mix:0.25*a,1*b")) == "mix:0.25*a,1*b"
