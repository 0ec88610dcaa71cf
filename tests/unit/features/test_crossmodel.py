"""Two tokenisations of one text meet where their tokens share characters, multi-byte characters included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from neuronmap.corpora import tokenize
from neuronmap.errors import InputError, MismatchError
from neuronmap.features.comparing.compare import CompareConfig, compare_saes
from neuronmap.features.comparing.crossmodel import CharacterSpans, SharedText, overlaps, spans_of_text
from neuronmap.progress import SilentProgress
from neuronmap.saes.relu import ReLUOptions, ReLUSAE

TEXTS = [
    "Зимой река замёрзла 🧊, и дети переходили её по льду 👩‍👩‍👧 в школу.",
    "The river froze 🥶 in the winter, and the children walked across it to school 🏫🏫.",
    "雪が降った。Снег шёл весь день ❄️ and nobody went out — naïve café, 12 345!",
    "My fellow citizens, the state of our union is strong 💪🏽; Друзья, мир крепок 🌍.",
]


@pytest.fixture(scope="module")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with few merges: an emoji is several tokens with one span."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>")


@pytest.fixture(scope="module")
def piece_tokenizer() -> PreTrainedTokenizerFast:
    """Unigram over whitespace-marked pieces: tokens of whole characters, many of them longer."""
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    unigram.decoder = decoders.Metaspace(prepend_scheme="never")
    trainer = trainers.UnigramTrainer(
        vocab_size=160, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    unigram.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=unigram, eos_token="</s>", unk_token="<unk>")


def spans(pairs: list[tuple[int, int]]) -> CharacterSpans:
    start, stop = np.array(pairs, np.int64).reshape(-1, 2).T
    return CharacterSpans(np.zeros(len(pairs), np.int64), start, stop)


def by_definition(a: CharacterSpans, b: CharacterSpans) -> np.ndarray:
    """Character by character."""
    result = np.zeros((len(a.start), len(b.start)))
    for c in range(int(max(a.stop.max(initial=0), b.stop.max(initial=0)))):
        of_a = [i for i in range(len(a.start)) if a.start[i] <= c < a.stop[i]]
        of_b = [j for j in range(len(b.start)) if b.start[j] <= c < b.stop[j]]
        for i in of_a:
            for j in of_b:
                result[i, j] += 1 / len(of_a) / len(of_b)
    return result


SPANS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 5)).map(lambda t: (t[0], t[0] + t[1])), min_size=1, max_size=9
)


@settings(max_examples=100, deadline=None)
@given(SPANS, SPANS)
def test_overlaps_equal_the_definition(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    a, b = spans(one), spans(other)
    np.testing.assert_allclose(overlaps(a, b).toarray(), by_definition(a, b), atol=1e-12)


def test_a_small_case_by_hand() -> None:
    # "ab🧊": [ab][🧊 in two tokens] against [a][b🧊]
    shared = overlaps(spans([(0, 2), (2, 3), (2, 3)]), spans([(0, 1), (1, 3)])).toarray()
    np.testing.assert_allclose(shared, [[1, 1], [0, 0.5], [0, 0.5]])


@pytest.mark.parametrize("text", TEXTS)
def test_every_character_counts_once(text: str, byte_tokenizer: Any, piece_tokenizer: Any) -> None:
    a, b = spans_of_text(byte_tokenizer, text), spans_of_text(piece_tokenizer, text)
    assert len(a.ids) != len(b.ids)
    assert overlaps(a, b).sum() == pytest.approx(len(text))
    np.testing.assert_allclose(overlaps(a, b).toarray(), by_definition(a, b), atol=1e-12)
    # each token of whole characters covers what it says
    for token, start, stop in zip(b.ids.tolist(), b.start, b.stop, strict=True):
        if token != piece_tokenizer.unk_token_id:
            assert piece_tokenizer.convert_ids_to_tokens(token).replace("▁", " ") == text[start:stop]


def test_a_tokenisation_meets_itself(piece_tokenizer: Any) -> None:
    a = spans_of_text(piece_tokenizer, TEXTS[0])
    np.testing.assert_allclose(overlaps(a, a).toarray(), np.diag((a.stop - a.start).astype(float)))


def test_very_long_texts_keep_their_places(piece_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(TEXTS)
    whole = spans_of_text(piece_tokenizer, text)
    monkeypatch.setattr("neuronmap.corpora.tokenizing.PIECE_CHARS", 60)
    cut = spans_of_text(piece_tokenizer, text)
    assert cut.stop[-1] == whole.stop[-1] == len(text)
    assert (np.diff(cut.start) >= 0).all()
    assert overlaps(cut, whole).sum() == pytest.approx(len(text))


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(InputError, match="does not say which characters"):
        spans_of_text(object(), "text")


@dataclass
class Block:
    index: int
    sequence_B: np.ndarray
    position_B: np.ndarray
    x_BD: torch.Tensor


class TextRows:
    """Rows whose coordinates say how much Cyrillic, emoji, Latin and rest the token covers, through a matrix of their own."""

    hooks = ("hook",)

    def __init__(self, tokenizer: Any, width: int, seed: int) -> None:
        self.tokens = tokenize(
            TEXTS * 12, tokenizer, context_length=16, part="all", cache=False, progress=SilentProgress()
        )
        generator = torch.Generator().manual_seed(seed)
        self.directions_4D = torch.linalg.qr(torch.randn(width, 4, generator=generator)).Q.T
        self._spans = [spans_of_text(tokenizer, text) for text in TEXTS]

    def row(self, document: int, position: int) -> torch.Tensor:
        text, found = TEXTS[document % len(TEXTS)], self._spans[document % len(TEXTS)]
        amount = torch.zeros(4)
        for character in text[found.start[position] : found.stop[position]]:
            kind = (
                0
                if "а" <= character.lower() <= "ё"
                else 1
                if ord(character) > 0x2700
                else 2
                if character.isalpha()
                else 3
            )
            amount[kind] = 1.0
        return amount @ self.directions_4D

    def blocks(self, todo: Any, contexts_per_block: int) -> Iterator[dict[str, Block]]:
        for index in todo:
            first = index * contexts_per_block
            batch = self.tokens.contexts(first, min(first + contexts_per_block, self.tokens.num_contexts))
            sequence, place = np.nonzero(batch.document >= 0)
            documents, positions = batch.document[sequence, place], batch.position[sequence, place]
            x = torch.stack([self.row(*pair) for pair in zip(documents.tolist(), positions.tolist(), strict=True)])
            yield {"hook": Block(index, sequence + first, place, x)}

    def sae(self, order: list[int]) -> ReLUSAE:
        """Features that read the four amounts, in an order."""
        sae = ReLUSAE(self.directions_4D.shape[1], 4, ReLUOptions())
        with torch.no_grad():
            sae.W_dec.copy_(self.directions_4D[order])
            sae.W_enc.copy_(self.directions_4D[order].T)
            sae.b_enc.fill_(-0.5)
        return sae


@pytest.fixture(scope="module")
def both(byte_tokenizer: Any, piece_tokenizer: Any) -> tuple[TextRows, TextRows, SharedText]:
    a, b = TextRows(byte_tokenizer, 12, 0), TextRows(piece_tokenizer, 9, 1)
    return a, b, SharedText(TEXTS * 12, a.tokens, b.tokens, byte_tokenizer, piece_tokenizer)


def compare(a: Any, b: Any, **options: Any) -> Any:
    settings = {"null_draws": 2, "least_firings": 5, **options.pop("config", {})}
    return compare_saes(a, b, progress=SilentProgress(), config=CompareConfig(**settings), **options)


@pytest.mark.parametrize("measure", ["correlation", "cosine", "jaccard"])
def test_features_of_two_models_with_different_tokenizers_are_found(both: Any, measure: str) -> None:
    a, b, text = both
    order = [2, 0, 3, 1]
    config = {"firing_measure": measure}
    result = compare(a.sae([0, 1, 2, 3]), b.sae(order), rows=a, rows_b=b, text=text, config=config)
    assert result.decoder is None
    found = result.matching()
    assert [order[match] for match in found.best_A] == [0, 1, 2, 3]
    assert [order[match] for match in found.pairing.partner_A] == [0, 1, 2, 3]
    assert found.value_A[:3].min() > 0.7, "Cyrillic, emoji and Latin are nearly the same places whatever the tokens"
    assert result.rows["met_by"] == "characters"
    assert result.rows["documents"] <= len(TEXTS) * 12
    assert "characters of" in result.summary()


def test_the_characters_that_both_cover_are_all_counted(both: Any) -> None:
    a, b, text = both
    result = compare(a.sae([0, 1, 2, 3]), b.sae([0, 1, 2, 3]), rows=a, rows_b=b, text=text)
    # what is stored of the last document may be cut off in either; all before is whole
    last = min(
        rows.tokens.contexts(rows.tokens.num_contexts - 1, rows.tokens.num_contexts).document.max() for rows in (a, b)
    )
    whole = sum(len(TEXTS[document % len(TEXTS)]) for document in range(last))
    assert whole <= result.rows["characters"] <= whole + len(TEXTS[last % len(TEXTS)])


def test_a_part_of_the_documents_is_the_same_for_both(both: Any) -> None:
    a, b, text = both
    result = compare(a.sae([0, 1, 2, 3]), b.sae([0, 1, 2, 3]), rows=a, rows_b=b, text=text, config={"max_rows": 1000})
    stride = result.rows["stride"]
    assert stride > 1
    assert 0 < result.rows["documents"] < 48
    assert result.rows["rows_a"] > result.rows["documents"]
    assert list(result.matching().best_A) == [0, 1, 2, 3]
    assert f"one document in {stride}" in result.summary()


def test_rows_of_different_token_sets_need_the_text(both: Any) -> None:
    a, b, text = both
    with pytest.raises(MismatchError, match="different token sets"):
        compare(a.sae([0, 1, 2, 3]), b.sae([0, 1, 2, 3]), rows=a, rows_b=b)
    wrong = SharedText(text.corpus, text.tokens_b, text.tokens_a, text.tokenizer_b, text.tokenizer_a)
    with pytest.raises(MismatchError, match="rows of A are not of the token set in text; the rows of B are not"):
        compare(a.sae([0, 1, 2, 3]), b.sae([0, 1, 2, 3]), rows=a, rows_b=b, text=wrong)


def test_a_tokenizer_that_made_other_tokens_is_refused(both: Any) -> None:
    a, b, text = both
    wrong = SharedText(text.corpus, text.tokens_a, text.tokens_b, text.tokenizer_b, text.tokenizer_b)
    with pytest.raises(MismatchError, match="the tokenizer gives others"):
        compare(a.sae([0, 1, 2, 3]), b.sae([0, 1, 2, 3]), rows=a, rows_b=b, text=wrong)
