"""From texts to contexts: split, separators, BOS, limits, reports, views."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from neuronmap.corpora import TokenSet, is_heldout, open_corpus, tokenize, tokenizer_digest_of
from neuronmap.corpora import tokenizing as tokenizing_module
from neuronmap.errors import ConfigError, EmptyCorpusError, InputError

TEXTS = [f"Text number {number} says: the quick brown fox jumps over {number * 7} dogs." for number in range(60)]


def flat(tokens: TokenSet) -> list[int]:
    return [int(index) for index in tokens.contexts(0, tokens.num_contexts).input_ids.reshape(-1)]


def joined(texts: list[str], tokenizer: Any, separator: int | None) -> list[int]:
    stream: list[int] = []
    for number, text in enumerate(texts):
        if number and separator is not None:
            stream.append(separator)
        stream += tokenizer(text, add_special_tokens=False)["input_ids"]
    return stream


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(("separator", "separator_id"), [("auto", 1), (None, None), ("<s>", 0)])
def test_contexts_hold_the_documents_joined_by_the_separator(
    tiny_tokenizer: Any, separator: str | None, separator_id: int | None, cache: bool
) -> None:
    tokens = tokenize(TEXTS, tiny_tokenizer, context_length=16, part="all", separator=separator, cache=cache)
    stream = joined(TEXTS, tiny_tokenizer, separator_id)
    assert flat(tokens) == stream[: len(stream) // 16 * 16]
    assert tokens.report.dropped_tail_tokens == len(stream) % 16
    assert tokens.num_tokens == tokens.num_contexts * 16
    batch = tokens.contexts(0, tokens.num_contexts)
    assert batch.input_ids.dtype == np.int64
    assert batch.document.dtype == batch.position.dtype == np.int32
    assert batch.attention.all()
    assert ((batch.document == -1) == (batch.special)).all()
    for index in range(tokens.num_documents - 1):
        expected = tiny_tokenizer(TEXTS[index], add_special_tokens=False)["input_ids"]
        assert tokens.tokens_of_document(index).tolist() == expected
        assert tokens.document_id(index) == str(index)
        assert batch.position[batch.document == index].tolist() == list(range(len(expected)))


def test_bos_stands_first_in_each_context_when_the_tokenizer_adds_it(tiny_tokenizer: Any, bos_tokenizer: Any) -> None:
    assert tokenize(TEXTS, tiny_tokenizer, part="all").report.bos is None
    tokens = tokenize(TEXTS, bos_tokenizer, context_length=16, part="all")
    assert tokens.report.bos == "<s>"
    batch = tokens.contexts(0, tokens.num_contexts)
    assert (batch.input_ids[:, 0] == 0).all()
    assert batch.special[:, 0].all()
    assert (batch.document[:, 0] == -1).all()
    body = batch.input_ids[:, 1:].reshape(-1).tolist()
    assert body == joined(TEXTS, tiny_tokenizer, 1)[: len(body)]
    without = tokenize(TEXTS, bos_tokenizer, context_length=16, part="all", prepend_bos=False)
    assert flat(without) == flat(tokenize(TEXTS, tiny_tokenizer, context_length=16, part="all"))
    index = tokens.num_documents // 2
    expected = tiny_tokenizer(TEXTS[index], add_special_tokens=False)["input_ids"]
    assert tokens.tokens_of_document(index).tolist() == expected


def test_train_and_heldout_are_disjoint_and_together_all(tiny_tokenizer: Any) -> None:
    texts = [*TEXTS, *TEXTS[:20]]
    sides = {}
    for part in ("train", "heldout", "all"):
        tokens = tokenize(texts, tiny_tokenizer, context_length=4, part=part, heldout_fraction=0.3)  # type: ignore[arg-type]
        sides[part] = {int(tokens.document_id(index)) for index in range(tokens.num_documents)}
        assert tokens.part == part
    assert sides["train"] & sides["heldout"] == set()
    assert sides["train"] | sides["heldout"] == sides["all"] == set(range(80))
    assert 8 <= len(sides["heldout"]) <= 40
    for number in range(20):
        assert (number in sides["heldout"]) == (number + 60 in sides["heldout"]), "equal texts on one side"


def test_the_heldout_side_depends_on_the_text_alone() -> None:
    documents = list(open_corpus(TEXTS).documents())
    turned = {document.text: is_heldout(document, 0.3) for document in open_corpus(TEXTS[::-1]).documents()}
    assert all(turned[document.text] == is_heldout(document, 0.3) for document in documents)
    assert all(is_heldout(document, 0.5) for document in documents if is_heldout(document, 0.2))


def test_an_empty_part_of_a_small_corpus_says_so(tiny_tokenizer: Any) -> None:
    with pytest.raises(EmptyCorpusError, match=r"heldout part of texts is empty: of 1 documents") as error:
        tokenize(["one"], tiny_tokenizer, part="heldout", heldout_fraction=0.0)
    assert "split_contexts" in error.value.hint


@pytest.mark.parametrize("source", [[], ["", "  ", None], iter(())])
def test_nothing_usable_is_an_error_with_the_counts(tiny_tokenizer: Any, source: Any) -> None:
    with pytest.raises(EmptyCorpusError, match=r"no usable text: (it has no rows|2 empty text \(0, 1\), 1 missing)"):
        tokenize(source, tiny_tokenizer)


@pytest.mark.parametrize("cache", [True, False])
def test_a_tiny_corpus_becomes_one_padded_context(tiny_tokenizer: Any, cache: bool) -> None:
    tokens = tokenize(["cat", "dog"], tiny_tokenizer, context_length=32, part="all", cache=cache)
    expected = joined(["cat", "dog"], tiny_tokenizer, 1)
    batch = tokens.contexts(0, 1)
    count = len(expected)
    assert batch.input_ids[0, :count].tolist() == expected
    assert (batch.input_ids[0, count:] == 2).all()
    assert batch.attention[0].tolist() == [True] * count + [False] * (32 - count)
    assert batch.special[0, count:].all()
    assert (tokens.num_tokens, tokens.report.padding_tokens) == (count, 32 - count)
    assert tokens.report.dropped_tail_tokens == 0
    assert tokens.num_documents == 2
    assert tokens.tokens_of_document(1).tolist() == tiny_tokenizer("dog", add_special_tokens=False)["input_ids"]
    assert tokens.subset(0, 1).num_tokens == count


def test_max_tokens_gives_whole_contexts_and_a_prefix(tiny_tokenizer: Any) -> None:
    whole = tokenize(TEXTS, tiny_tokenizer, context_length=16, part="all")
    cut = tokenize(TEXTS, tiny_tokenizer, context_length=16, part="all", max_tokens=100)
    assert (cut.num_contexts, cut.num_tokens) == (6, 96)
    assert flat(cut) == flat(whole)[:96]
    assert cut.num_documents < whole.num_documents
    assert cut.report.stopped_early
    assert cut.digest != whole.digest
    enough = tokenize(TEXTS, tiny_tokenizer, context_length=16, part="all", max_tokens=10**6)
    assert not enough.report.stopped_early
    assert enough.num_contexts == whole.num_contexts


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context_length": 0}, "context_length"),
        ({"heldout_fraction": 1.0}, "heldout_fraction"),
        ({"part": "test"}, "part"),
        ({"max_tokens": 5}, "less than one context"),
        ({"separator": "no such token"}, "not one token"),
    ],
)
def test_options_out_of_range(tiny_tokenizer: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tokenize(TEXTS, tiny_tokenizer, **options)


def test_bos_needs_a_token_and_room(tiny_tokenizer: Any, bos_tokenizer: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    with pytest.raises(ConfigError, match="no BOS"):
        tokenize(TEXTS, bare, prepend_bos=True)
    assert tokenize(TEXTS, bare).report.separator is None
    with pytest.raises(ConfigError, match="context_length = 1"):
        tokenize(TEXTS, bos_tokenizer, context_length=1)


def test_token_ids_are_packed_as_they_come(tiny_tokenizer: Any) -> None:
    tokens = tokenize([[5, 6, 7], [8, 9], [10, 11, 12]], tiny_tokenizer, context_length=4, part="all")
    assert flat(tokens) == [5, 6, 7, 8, 9, 10, 11, 12]
    explicit = tokenize([[5, 6, 7], [8, 9], [10]], tiny_tokenizer, context_length=4, part="all", separator="</s>")
    assert flat(explicit) == [5, 6, 7, 1, 8, 9, 1, 10]


def test_token_ids_out_of_the_vocabulary_are_counted(tiny_tokenizer: Any) -> None:
    tokens = tokenize([[5, 6], [5, 100_000], [7, 8]], tiny_tokenizer, context_length=2, part="all")
    assert flat(tokens) == [5, 6, 7, 8]
    assert tokens.report.bad_rows == {"token id out of the vocabulary": 1}
    assert tokens.report.bad_examples == {"token id out of the vocabulary": ["1"]}
    assert tokens.report.documents_read == 2


def test_ids_need_no_tokenizer_but_text_does() -> None:
    tokens = tokenize([[5, 100_000], [7, 8]], None, context_length=2, part="all")
    assert flat(tokens) == [5, 100_000, 7, 8]
    with pytest.raises(InputError, match="tokenizer is needed"):
        tokenize(["text"], None, part="all")
    with pytest.raises(ConfigError, match="no tokenizer"):
        tokenize([[1]], None, separator="</s>")


def test_special_tokens_written_in_a_text_are_marked(tiny_tokenizer: Any) -> None:
    tokens = tokenize(["cat</s>dog"], tiny_tokenizer, context_length=32, part="all")
    batch = tokens.contexts(0, 1)
    inside = batch.special[0] & (batch.document[0] == 0)
    assert batch.input_ids[0][inside].tolist() == [1]


def test_bad_rows_and_the_summary_are_shown(tiny_tokenizer: Any, notes: Any) -> None:
    tokenize(["good text that is long enough", None, ""], tiny_tokenizer, context_length=4, part="all", progress=notes)
    assert notes.tasks == ["tokenising texts"]
    assert notes.lines[0].startswith("texts/all: 1 document, ")
    assert "2 bad rows, separator </s>" in notes.lines[0]
    assert "tail token" in notes.lines[0]
    assert "More than half" in notes.lines[1]
    assert "1 missing text (1), 1 empty text (2)" in notes.lines[1]


def test_a_very_long_document_is_tokenised_in_pieces(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(TEXTS)
    whole = tokenize([text], tiny_tokenizer, context_length=8, part="all", cache=False)
    monkeypatch.setattr(tokenizing_module, "PIECE_CHARS", 500)
    assert "".join(tokenizing_module.text_pieces(text)) == text
    pieces = tokenize([text], tiny_tokenizer, context_length=8, part="all", cache=False)
    assert whole.report.documents_in_pieces == 0
    assert pieces.report.documents_in_pieces == 1
    assert pieces.num_documents == 1
    assert tiny_tokenizer.decode(pieces.tokens_of_document(0))[:1000] == text[:1000]


def test_batch_borders_do_not_show(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = flat(tokenize(TEXTS, tiny_tokenizer, context_length=16, part="all", cache=False))
    monkeypatch.setattr(tokenizing_module, "FIRST_BATCH_CHARS", 1)
    monkeypatch.setattr(tokenizing_module, "LARGEST_BATCH_CHARS", 1)
    assert flat(tokenize(TEXTS, tiny_tokenizer, context_length=16, part="all", cache=False)) == whole


def test_views(tiny_tokenizer: Any) -> None:
    tokens = tokenize(TEXTS, tiny_tokenizer, context_length=16, part="all")
    train, heldout = tokens.split_contexts(0.25)
    assert train.num_contexts + heldout.num_contexts == tokens.num_contexts
    assert heldout.num_contexts == round(tokens.num_contexts * 0.25)
    assert flat(train) + flat(heldout) == flat(tokens)
    assert len({tokens.digest, train.digest, heldout.digest}) == 3
    assert tokens.split_contexts(0.25)[1].digest == heldout.digest
    middle = heldout.subset(1, 3)
    assert flat(middle) == flat(heldout)[16:48]
    seen = np.unique(middle.contexts(0, 2).document)
    assert middle.num_documents == len(seen[seen >= 0])
    assert len(next(tokens.batches(7))) == 7
    assert sum(len(batch) for batch in tokens.batches(7, start=3)) == tokens.num_contexts - 3
    for wrong in ((-1, 2), (0, tokens.num_contexts + 1), (3, 2)):
        with pytest.raises(InputError):
            tokens.contexts(*wrong)
    with pytest.raises(EmptyCorpusError, match="only 1 context"):
        tokens.subset(0, 1).split_contexts(0.5)
    with pytest.raises(InputError):
        tokens.document_id(tokens.num_documents)


def test_the_tokenizer_digest_ignores_truncation_and_sees_the_vocabulary(
    tiny_tokenizer: Any, bos_tokenizer: Any
) -> None:
    before = tokenizer_digest_of(tiny_tokenizer)
    tiny_tokenizer(["a", "b b b"], truncation=True, max_length=2, padding=True)
    assert tokenizer_digest_of(tiny_tokenizer) == before
    assert tokenizer_digest_of(bos_tokenizer) != before


def test_a_truncating_tokenizer_does_not_cut_documents(tiny_tokenizer: Any) -> None:
    tiny_tokenizer(["a", "b b b"], truncation=True, max_length=2, padding=True)
    tokens = tokenize(TEXTS, tiny_tokenizer, context_length=16, part="all")
    assert flat(tokens) == joined(TEXTS, tiny_tokenizer, 1)[: tokens.num_tokens]


def test_two_thousand_documents_of_a_million_tokens_are_quick(tiny_tokenizer: Any) -> None:
    texts = [f"{number} " + "The quick brown fox jumps over the lazy dog. " * 40 for number in range(2000)]
    start = time.monotonic()
    tokens = tokenize(texts, tiny_tokenizer, part="all")
    assert tokens.num_tokens > 1_000_000
    assert time.monotonic() - start < 60
