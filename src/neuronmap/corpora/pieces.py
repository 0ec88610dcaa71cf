"""What each token stands for, byte by byte, and how a row of tokens is shown.

A byte-level tokenizer cuts characters into pieces: 'é' may be two tokens of one byte each. Decoding tokens one at a time then gives
wrong characters. Here a token is its exact bytes, and tokens are shown in *pieces*, the smallest runs of tokens that end where
characters end. What is no UTF-8 is shown as U+FFFD.

How things look: newline ↵, tab →, space at either end of a piece ·, other control characters as Unicode's control pictures (␛), invisible
format characters as ⟨U+200B⟩, special tokens in angle brackets of their own (``<|endoftext|>`` -> ⟨|endoftext|⟩, ``[CLS]`` ->
⟨[CLS]⟩), ids that the tokenizer has no token for as ⟨50257⟩.

Shapes: V tokens in the vocabulary.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from neuronmap.errors import InputError

__all__ = ["Piece", "TokenTexts", "visible"]

_MARK = "▁"  # SentencePiece's mark for a space
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_KEPT = {"\u200c", "\u200d"}  # joiners: part of Persian words and of emoji
_NAMED = {"\n": "↵", "\t": "→", "\r": "␍", "\x7f": "␡", "\xa0": "⍽"}


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens ``start`` to ``stop`` (exclusive) of a row, shown as one.

    Attributes:
        text: their text, as it is; U+FFFD for bytes that are no UTF-8.
        start: first token.
        stop: one past the last.
        special: whether it is a special token, or an id without a token.
    """

    text: str
    start: int
    stop: int
    special: bool = False

    @property
    def shown(self) -> str:
        """The text with whitespace made visible and a special token in its brackets."""
        return _bracketed(self.text) if self.special else visible(self.text)


def visible(text: str) -> str:
    """Text in which nothing is invisible: newlines, tabs, spaces at its ends, control and format characters get a sign."""
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" "))
    after = len(text) - before - len(inner)
    return "·" * before + "".join(map(_sign, inner)) + "·" * after


def _sign(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if character < " ":
        return chr(0x2400 + ord(character))
    if character not in _KEPT and unicodedata.category(character) in ("Cf", "Cc", "Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return character


def _bracketed(content: str) -> str:
    inner = content[1:-1] if len(content) > 2 and content.startswith("<") and content.endswith(">") else content
    return f"⟨{visible(inner)}⟩"


class TokenTexts:
    """The bytes of every token of a vocabulary.

    Args:
        bytes_V: what each token stands for; empty for ids without a token.
        special_V: whether it is a special token.
    """

    def __init__(self, bytes_V: Sequence[bytes], special_V: Sequence[bool]) -> None:
        self._bytes, self._special = list(bytes_V), list(special_V)
        self._ids: dict[bytes, list[int]] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.size:,} tokens>"

    # --- making ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, size: int) -> Self:
        """Read the tokens of a tokenizer.

        Args:
            tokenizer: a transformers tokenizer, or one of the ``tokenizers`` library.
            size: V, entries of the model's embedding; may be more than the tokenizer has, or fewer.
        """
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer if hasattr(tokenizer, "to_str") else None)
        tokens: dict[int, str] = {index: token for token, index in tokenizer.get_vocab().items()}
        if backend is not None:
            definition = json.loads(backend.to_str())
            read = _reader_of(definition)
            model = definition["model"].get("vocab") or ()
            own = {entry if isinstance(entry, str) else entry[0] for entry in model}
            added = {entry["id"]: (entry["content"], entry["special"]) for entry in definition["added_tokens"]}
        else:
            read, own = _slow_reader_of(tokenizer, tokens.values()), set()
            table = getattr(tokenizer, "added_tokens_decoder", {})
            added = {index: (str(token), bool(token.special)) for index, token in table.items()}
        bytes_V, special_V = [b""] * size, [False] * size
        for index, token in tokens.items():
            if index < size:
                bytes_V[index] = read(token)
        for index, (content, special) in added.items():
            # an added token that the model has too (Gemma's runs of spaces) is written in the model's way
            if index < size and (special or content not in own):
                bytes_V[index], special_V[index] = content.encode(), special
        for index in getattr(tokenizer, "all_special_ids", ()):
            if index is not None and index < size and index in tokens:
                bytes_V[index], special_V[index] = tokens[index].encode(), True
        return cls(bytes_V, special_V)

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """V."""
        return len(self._bytes)

    def bytes_of(self, token: int) -> bytes:
        """The UTF-8 bytes that a token stands for; may be part of a character."""
        return self._bytes[self._checked(token)]

    def text_of(self, token: int) -> str:
        """The same as text, U+FFFD for incomplete characters."""
        return self._bytes[self._checked(token)].decode("utf-8", errors="replace")

    def shown(self, token: int) -> str:
        """A token alone, as it is shown: whitespace visible, special tokens in brackets."""
        return self.pieces([token])[0].shown

    def is_special(self, token: int) -> bool:
        """Whether it is one of the tokenizer's special tokens."""
        return self._special[self._checked(token)]

    def find(self, text: str) -> list[int]:
        """Ids of the tokens that are exactly this text."""
        if self._ids is None:
            ids: dict[bytes, list[int]] = {}
            for token, data in enumerate(self._bytes):
                ids.setdefault(data, []).append(token)
            self._ids = ids
        return list(self._ids.get(text.encode(), ())) if text else []

    def starting_with(self, text: str, limit: int) -> list[str]:
        """Up to ``limit`` tokens' texts that begin with a text, or with a space and it; the shortest first."""
        begins = (text.encode(), f" {text}".encode())
        found = {data for data in self._bytes if data.startswith(begins)}
        return [
            data.decode("utf-8", errors="replace") for data in sorted(found, key=lambda data: (len(data), data))[:limit]
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some tokens, special ones included; U+FFFD for what is no UTF-8. Nothing is stripped or tidied."""
        return b"".join(self._bytes[self._checked(int(token))] for token in ids).decode("utf-8", errors="replace")

    def pieces(self, ids: Iterable[int]) -> list[Piece]:
        """The tokens as they are shown, in order and without gaps: tokens that share a character are in one piece.

        Joined, the texts between special tokens are the text of their bytes.
        """
        tokens = [self._checked(int(token)) for token in ids]
        found: list[Piece] = []
        first = 0
        for place, token in enumerate([*tokens, -1]):
            alone = token < 0 or self._special[token] or not self._bytes[token]
            if not alone:
                continue
            found += _split([self._bytes[inner] for inner in tokens[first:place]], first)
            if token >= 0:
                text = self.text_of(token) or str(token)
                found.append(Piece(text, place, place + 1, special=True))
            first = place + 1
        return found

    def _checked(self, token: int) -> int:
        if not 0 <= token < len(self._bytes):
            raise InputError(f"Token {token} is not in the vocabulary: ids are 0 to {len(self._bytes) - 1}.")
        return token


def _split(parts: list[bytes], first: int) -> list[Piece]:
    """Pieces of a run of ordinary tokens; ``first`` is the number of its first token."""
    if not parts:
        return []
    data = b"".join(parts)
    inside = _inside_characters(data)
    pieces, begin, start, place = [], 0, first, 0
    for number, part in enumerate(parts, first + 1):
        place += len(part)
        if place in inside:
            continue
        pieces.append(Piece(data[begin:place].decode("utf-8", errors="replace"), start, number))
        begin, start = place, number
    return pieces


def _inside_characters(data: bytes) -> set[int]:
    """Places in the bytes that are not between two characters, a broken character counting as one."""
    try:
        data.decode()
        return {place for place, byte in enumerate(data) if byte & 0xC0 == 0x80}
    except UnicodeDecodeError:
        pass
    inside: set[int] = set()
    begin = 0
    while begin < len(data):
        try:
            data[begin:].decode()
            stop, resume = len(data), len(data)
        except UnicodeDecodeError as error:  # the longest broken part, which errors="replace" makes one U+FFFD
            stop, resume = begin + error.start, begin + error.end
        inside.update(place for place in range(begin, stop) if data[place] & 0xC0 == 0x80)
        inside.update(range(stop + 1, resume))
        begin = resume
    return inside


# --- tokens to bytes -------------------------------------------------------------------------------------------------

_Reader = Callable[[str], bytes]


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others are counted up from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(rest)}


_LETTERS = _byte_letters()


def _byte_level(token: str) -> bytes:
    try:
        return bytes(_LETTERS[letter] for letter in token)
    except KeyError:  # not written in the letters: it stands for itself
        return token.encode()


def _steps(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """The parts of a pre-tokenizer or decoder, sequences opened."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [step for entry in part[inner] for step in _steps(entry, inner)]
    return [part]


def _reader_of(definition: dict[str, Any]) -> _Reader:
    """What turns a token's spelling into bytes, from the definition of a ``tokenizers`` tokenizer."""
    decoders = _steps(definition["decoder"], "decoders")
    cutters = _steps(definition["pre_tokenizer"], "pretokenizers")
    kinds = {step["type"] for step in (decoders or cutters)}
    model = definition["model"]
    if "ByteLevel" in kinds:
        return _byte_level
    suffix = next((step["suffix"] for step in decoders if step["type"] == "BPEDecoder"), None) or model.get(
        "end_of_word_suffix"
    )
    if suffix:
        return lambda token: (f"{token.removesuffix(suffix)} " if token.endswith(suffix) else token).encode()
    prefix = next((step["prefix"] for step in decoders if step["type"] == "WordPiece"), None) or model.get(
        "continuing_subword_prefix"
    )
    tidy = any(step["type"] == "WordPiece" and step["cleanup"] for step in decoders)
    if prefix:
        return lambda token: _word_piece(token, prefix, tidy).encode()
    if not decoders and kinds & {"Whitespace", "WhitespaceSplit", "BertPreTokenizer"}:
        return lambda token: f" {token}".encode()  # the cutter threw the spaces away
    fallback = bool(model.get("byte_fallback")) or "ByteFallback" in kinds
    return _replacing([step for step in (decoders or cutters) if step["type"] in ("Metaspace", "Replace")], fallback)


def _word_piece(token: str, prefix: str, tidy: bool) -> str:
    if token.startswith(prefix):
        return token[len(prefix) :]
    word = f" {token}"
    # what the decoder of the tokenizers library does to each word
    return word[1:] if tidy and word in (" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're") else word


def _replacing(steps: list[dict[str, Any]], fallback: bool) -> _Reader:
    """SentencePiece's spellings: a mark for a space, ``<0xNN>`` for a byte."""
    pairs = []
    for step in steps:
        if step["type"] == "Metaspace":
            pairs.append((step["replacement"], " "))
        elif "String" in step["pattern"]:
            pairs.append((step["pattern"]["String"], step["content"]))

    def read(token: str) -> bytes:
        byte = _BYTE.fullmatch(token) if fallback else None
        if byte is not None:
            return bytes([int(byte[1], 16)])
        for old, new in pairs:
            token = token.replace(old, new)
        return token.encode()

    return read


def _slow_reader_of(tokenizer: Any, tokens: Iterable[str]) -> _Reader:
    """The same for a tokenizer written in Python."""
    letters = getattr(tokenizer, "byte_decoder", None)
    if letters:
        return _byte_level
    if any(token.startswith(_MARK) for token in tokens):
        return _replacing([{"type": "Metaspace", "replacement": _MARK}], fallback=True)

    def read(token: str) -> bytes:
        text: str = tokenizer.convert_tokens_to_string([token])
        if not text and len(token) == 1 and ord(token) < 256:  # ByT5: a letter for each byte
            return bytes([ord(token)])
        return text.encode()

    return read
