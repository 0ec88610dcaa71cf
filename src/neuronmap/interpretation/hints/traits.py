"""Traits: yes-or-no properties of a token, or of a position and the text before it, that a rule can be made of.

Shapes: B texts of T tokens, V vocabulary, L = 4 lengths of endings.

All traits of a position are one 64-bit mask: bit i is ``TRAITS[i]``. Token traits depend on the token's text alone and are a table over
the vocabulary; position traits also look at the tokens before it in the same context.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "CODE_WINDOW",
    "ENDING_LENGTHS",
    "TRAITS",
    "TokenTexts",
    "TokenTraits",
    "Trait",
    "appeared_before",
    "trait_index",
]

CODE_WINDOW = 32
"""Tokens, the current one included, that decide whether a position is in code."""
CODE_SHARE = 0.2
"""Share of code symbols among them from which it is."""
ENDING_LENGTHS = (1, 2, 3, 4)
ENDING_TOKENS = 8
"""An ending counts as one if at least so many tokens of the vocabulary have it."""


class TokenTexts(Protocol):
    """What is needed of a vocabulary (:class:`neuronmap.features.storage.text.Vocabulary`)."""

    @property
    def size(self) -> int: ...

    def bytes_of(self, token: int, /) -> bytes: ...

    def text_of(self, token: int, /) -> str: ...

    def is_special(self, token: int, /) -> bool: ...


@dataclass(frozen=True)
class Trait:
    """One property: its name in rules, the firing class it belongs to, a short label, and the rule in words."""

    name: str
    firing_class: str
    label: str
    words: str


SCRIPTS = {
    "cyrillic": ("CYRILLIC",),
    "greek": ("GREEK",),
    "han": ("CJK",),
    "kana": ("HIRAGANA", "KATAKANA"),
    "hangul": ("HANGUL",),
    "arabic": ("ARABIC",),
    "hebrew": ("HEBREW",),
    "devanagari": ("DEVANAGARI",),
    "thai": ("THAI",),
}
"""Trait name -> first words of the Unicode names of its letters."""

_TOKEN_TRAITS = (
    Trait("punctuation", "punctuation", "punctuation", "the token is punctuation or symbols only"),
    Trait("sentence_end", "punctuation", "ends of sentences (. ? !)", "the token is one of . ? ! with or without more punctuation"),
    Trait("quote", "punctuation", "quotation marks", "the token is punctuation with a quotation mark"),
    Trait("bracket", "punctuation", "brackets", "the token is punctuation with a bracket"),
    Trait("whitespace", "whitespace", "whitespace", "the token is whitespace only"),
    Trait("line_break", "whitespace", "line breaks", "the token has a line break"),
    Trait("number", "number", "numbers", "the token has digits and no letters"),
    Trait("capitalised", "capitalised", "capitalised words", "the token begins with a capital, small letters follow"),
    Trait("all_capitals", "capitalised", "words in CAPITALS", "the token has at least two letters, all capital"),
    Trait("accented", "language", "Latin letters with accents", "the token has a Latin letter beyond ASCII"),
    *(Trait(name, "language", f"{name.title()} script", f"the token has a letter of {name.title()} script") for name in SCRIPTS),
    Trait("other_script", "language", "letters of other scripts", "the token has a letter of a script not named otherwise"),
    Trait("partial", "language", "parts of characters", "the token is a part of a character's UTF-8 bytes"),
    Trait("code_symbol", "code", "code symbols and identifiers", "the token has operators, camelCase or snake_case"),
    Trait("special", "special", "special tokens", "the token is a special token"),
)  # fmt: skip
_POSITION_TRAITS = (
    Trait("document_start", "first-token", "start of document", "the token is the first of its document"),
    Trait("line_start", "first-token", "start of line", "the token before it ends with a line break"),
    Trait("sentence_start", "first-token", "start of sentence", "the token before it ends a sentence"),
    Trait(
        "word_internal", "subword", "inside words", "the token continues the word that the token before it ends with"
    ),
    Trait("in_code", "code", "in code", f"at least {CODE_SHARE:.0%} of the last {CODE_WINDOW} tokens are code symbols"),
    Trait("repeated", "copy", "repeated tokens", "the token appeared before in the context"),
    Trait(
        "induction",
        "copy",
        "repeated pairs (induction)",
        "the token and the one before it appeared before, side by side, in the context",
    ),
)
TRAITS = _TOKEN_TRAITS + _POSITION_TRAITS
"""Bit i of a mask is the i-th of these."""
_INDEX = {trait.name: index for index, trait in enumerate(TRAITS)}

_CODE = re.compile(
    r"[{}\\|<>=;~^`]|[a-z][A-Z]|\w_\w|\w_$|^_\w|\(\)|\[\]|::|->|//|/\*|\*/|&&|\+\+|\)\)|\(\(|!=|\$\w|\)[.:,;]|\w\($|\.\w+\(",
    re.ASCII,
)
_OPENING = {"\u00ab", "\u2018", "\u2019", "\u201c", "\u201d", '"', "'", "\u00bb", "``", "''"}


def trait_index(name: str) -> int:
    """Bit of a trait's name."""
    return _INDEX[name]


class TokenTraits:
    """Token traits of a whole vocabulary as a table.

    Attributes:
        mask_V: uint64, token traits of each token.
        word_V: bool, whether the token holds a word of at least three letters and nothing else but a leading space.
        ending_VL: int32, number of the token's last 1 .. 4 letters among ``endings``; -1 if it has none.
        endings: the texts of the endings.
    """

    def __init__(self, vocabulary: TokenTexts) -> None:
        size = vocabulary.size
        texts = [vocabulary.text_of(token) for token in range(size)]
        self.mask_V = np.zeros(size, np.uint64)
        self.word_V = np.zeros(size, bool)
        inner = np.zeros(
            (4, size), bool
        )  # begins inside a word, ends with a letter, ends a sentence, ends with a line break
        for token, text in enumerate(texts):
            self.mask_V[token] = _token_mask(text, special=vocabulary.is_special(token))
            bare = text.removeprefix(" ")
            self.word_V[token] = len(bare) >= 3 and bare.isalpha()
            end = text.rstrip(" \"'\u201d\u2019)")
            inner[:, token] = text[:1].isalpha(), text[-1:].isalpha(), end[-1:] in (".", "?", "!"), text[-1:] == "\n"
        special_V = (self.mask_V >> np.uint64(_INDEX["special"]) & np.uint64(1)) > 0
        self._special_V = special_V
        self._joins_V, self._open_V, self._ends_sentence_V, self._ends_line_V = inner & ~special_V
        self._code_V = (self.mask_V >> np.uint64(_INDEX["code_symbol"]) & np.uint64(1)) > 0
        self.endings, self.ending_VL = _endings(texts)

    @property
    def size(self) -> int:
        """V."""
        return len(self.mask_V)

    def masks(
        self, ids_BT: npt.NDArray[np.integer], starts_BT: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.uint64]:
        """All traits of all positions of some texts.

        Args:
            ids_BT: token ids [B, T]; each row is one context, seen from its first token on.
            starts_BT: bool [B, T], first tokens of documents; None: the first token of a row and what follows a special token.

        Returns:
            uint64 [B, T], bits as in ``TRAITS``.
        """
        special_BT = self._special_V[ids_BT]
        if starts_BT is None:
            starts_BT = np.ones(ids_BT.shape, bool)
            starts_BT[:, 1:] = special_BT[:, :-1]
            starts_BT &= ~special_BT
        before = np.zeros(ids_BT.shape, bool)
        masks_BT: npt.NDArray[np.uint64] = self.mask_V[ids_BT]

        def put(name: str, holds_BT: npt.NDArray[np.bool_]) -> None:
            np.bitwise_or(masks_BT, holds_BT.astype(np.uint64) << np.uint64(_INDEX[name]), out=masks_BT)

        def previous(table_V: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
            before[:, 1:] = table_V[ids_BT[:, :-1]]
            return before

        put("document_start", starts_BT)
        put("line_start", previous(self._ends_line_V) & ~starts_BT)
        put("sentence_start", previous(self._ends_sentence_V) & ~starts_BT)
        put("word_internal", previous(self._open_V) & self._joins_V[ids_BT] & ~starts_BT)
        put("in_code", _share_before(self._code_V[ids_BT], CODE_WINDOW) >= CODE_SHARE)
        put("repeated", appeared_before(ids_BT) & ~special_BT)
        pairs_BT = np.full(ids_BT.shape, -1, np.int64)
        pairs_BT[:, 1:] = ids_BT[:, :-1].astype(np.int64) * self.size + ids_BT[:, 1:]
        special_pair_BT = special_BT.copy()
        special_pair_BT[:, 0] = True
        special_pair_BT[:, 1:] |= special_BT[:, :-1]
        put("induction", appeared_before(pairs_BT) & ~special_pair_BT)
        return masks_BT


def appeared_before(keys_BT: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """bool [B, T]: whether the same key is at an earlier position of the row."""
    order_BT = np.argsort(keys_BT, axis=1, kind="stable")
    sorted_BT = np.take_along_axis(keys_BT, order_BT, axis=1)
    again_BT = np.zeros(keys_BT.shape, bool)
    again_BT[:, 1:] = sorted_BT[:, 1:] == sorted_BT[:, :-1]
    found_BT = np.empty_like(again_BT)
    np.put_along_axis(found_BT, order_BT, again_BT, axis=1)
    return found_BT


def _share_before(holds_BT: npt.NDArray[np.bool_], window: int) -> npt.NDArray[np.float64]:
    """Share of the last ``window`` positions that hold; at the start of a row of a full window still, so short texts need more."""
    total_BT = np.cumsum(holds_BT, axis=1, dtype=np.int64)
    total_BT[:, window:] -= total_BT[:, :-window].copy()
    return total_BT / window


def _token_mask(text: str, *, special: bool) -> int:
    if special:
        return 1 << _INDEX["special"]
    names = set()
    bare = text.strip()
    if text and not bare:
        names.add("whitespace")
    if "\n" in text:
        names.add("line_break")
    if "\ufffd" in text:
        names.add("partial")
    letters = [character for character in bare if character.isalpha()]
    if bare and "\ufffd" not in bare:
        if not letters and not any(character.isalnum() for character in bare):
            names |= _punctuation(bare)
        if not letters and any(character.isdigit() for character in bare):
            names.add("number")
        if _CODE.search(bare):
            names.add("code_symbol")
    if letters:
        names |= _letters(bare, letters)
    return sum(1 << _INDEX[name] for name in names)


def _punctuation(bare: str) -> set[str]:
    names = {"punctuation"}
    if bare[0] in ".?!":
        names.add("sentence_end")
    if any(character in _OPENING for character in bare):
        names.add("quote")
    if any(character in "()[]{}" for character in bare):
        names.add("bracket")
    return names


def _letters(bare: str, letters: list[str]) -> set[str]:
    names = set()
    if bare[0].isupper() and len(bare) > 1 and bare[1:].islower() and bare[1].isalpha():
        names.add("capitalised")
    if len(letters) > 1 and all(letter.isupper() for letter in letters):
        names.add("all_capitals")
    for letter in letters:
        if letter.isascii():
            continue
        name = unicodedata.name(letter, "")
        script = next((script for script, starts in SCRIPTS.items() if name.startswith(starts)), None)
        names.add(script or ("accented" if name.startswith("LATIN") else "other_script"))
    return names


def _endings(texts: list[str]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Endings that enough tokens share, and each token's. A token that is nothing but the ending does not have it."""
    stems = [text.strip().lower() for text in texts]
    counts = Counter(
        stem[-length:] for stem in set(stems) if stem.isalpha() for length in ENDING_LENGTHS if len(stem) > length
    )
    endings = sorted(ending for ending, count in counts.items() if count >= ENDING_TOKENS)
    number = {ending: index for index, ending in enumerate(endings)}
    ending_VL = np.full((len(texts), len(ENDING_LENGTHS)), -1, np.int32)
    for token, stem in enumerate(stems):
        if stem.isalpha():
            for place, length in enumerate(ENDING_LENGTHS):
                if len(stem) > length:
                    ending_VL[token, place] = number.get(stem[-length:], -1)
    return endings, ending_VL
