"""What an analysis says of each feature, as one short text: the input of a sentence encoder.

A text is the words of the label, the most typical tokens, and of the strongest examples the words around the peak, in this order. A word
of the label that is among the tokens is not said twice. A feature without a firing example has no text. No torch.

Short on purpose: an encoder's time grows with every word, and more words or the output label did not find more
(docs/decisions/0010-search-by-meaning.md).

Shapes: F features, P places (contexts x their length).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore

__all__ = ["MADE_OF", "RECIPE", "FeatureTexts"]

RECIPE = 1
"""Version of how texts are made: to be raised with every change of what follows, since stored vectors are keyed by it."""
MADE_OF = (
    "features.parquet",
    "details.parquet",
    "examples.parquet",
    "hints.parquet",
    "vocabulary.parquet",
    "tokens.npy",
)
"""Files of a store that decide the texts."""

TOKENS = 4
"""Most typical tokens that are named."""
EXAMPLES = 3
"""Strongest examples that are looked at."""
WORDS_BEFORE, WORDS_AFTER = 2, 1
"""Words on either side of the word with the peak."""
_AROUND = 16
"""Tokens on either side of the peak in which those words are looked for."""
_WORD = re.compile(r"\S+")
_MEANS = re.compile(r"\w+")
_OF_RULES = frozenset(("tokens", "token", "then", "promotes"))
"""Words with which labels of rules list tokens; they end in ``+7`` where there are more."""
_MORE = re.compile(r"\+\d+")


class FeatureTexts:
    """The texts of one analysis; its columns are read at the first one.

    Args:
        store: the analysis.

    Example:
        >>> FeatureTexts(FeatureStore.open("analysis")).of([7])              # doctest: +SKIP
        ['months; winter, snow, cold; in the winter the; a cold winter came; snow of last winter was']
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        names = store.tables.names
        empty: list[str] = [""] * store.num_features
        self._label_F = store.tables.read("hints", ["label"])["label"].to_pylist() if "hints" in names else empty
        self._tokens_F = store.tables.read("details", ["tokens"])["tokens"]
        self._place_F = _peaks(store)
        self._token_P = np.asarray(store._tokens).reshape(-1)

    def of(self, features: Iterable[int]) -> list[str]:
        """The texts of some features, in the order given; empty for one that never fired.

        Args:
            features: valid numbers.
        """
        return [self._text(feature) for feature in features]

    def _text(self, feature: int) -> str:
        places = self._place_F.get(feature, ())
        if not len(places):
            return ""
        tokens = self._tokens(feature)
        known = _OF_RULES.union(*map(_MEANS.findall, tokens))
        words = _MEANS.findall(_MORE.sub("", self._label_F[feature] or "").lower())
        label = dict.fromkeys(word for word in words if word not in known)
        parts = [" ".join(label), ", ".join(tokens), *map(self._words, places)]
        return "; ".join(part for part in dict.fromkeys(parts) if part)

    def _tokens(self, feature: int) -> list[str]:
        """Its most typical tokens without case and spaces; those without a letter or digit are left out."""
        found: dict[str, None] = {}
        entries: Sequence[dict[str, Any]] = self._tokens_F[feature].as_py() or ()
        for entry in entries:
            text = self._store.vocabulary.text_of(entry["token"]).strip().lower()
            if _MEANS.search(text):
                found[text] = None
            if len(found) == TOKENS:
                break
        return list(found)

    def _words(self, place: int) -> str:
        """The words around a place, within its context and between special tokens."""
        length, vocabulary = self._store.context_length, self._store.vocabulary
        begin = place // length * length
        before = self._token_P[max(begin, place - _AROUND) : place].tolist()
        after = self._token_P[place : min(begin + length, place + _AROUND + 1)].tolist()
        for at, token in enumerate(reversed(before)):
            if vocabulary.is_special(token):
                before = before[len(before) - at :]
                break
        stop = next((at for at, token in enumerate(after) if at and vocabulary.is_special(token)), len(after))
        left = b"".join(map(vocabulary.bytes_of, before)).decode(errors="ignore")
        text = left + b"".join(map(vocabulary.bytes_of, after[:stop])).decode(errors="ignore")
        words = list(_WORD.finditer(text))
        # a token begins with the space before its word, so that the word of the peak is the first that ends behind it
        at = next((number for number, word in enumerate(words) if word.end() > len(left)), len(words) - 1)
        return " ".join(word[0] for word in words[max(0, at - WORDS_BEFORE) : at + WORDS_AFTER + 1])


def _peaks(store: FeatureStore) -> dict[int, npt.NDArray[np.int64]]:
    """Places of the strongest examples of each feature that has any, the strongest first."""
    columns = ["feature", "kind", "rank", "sequence", "position", "activation"]
    table = store.tables.read("examples", columns)
    kind = table["kind"].combine_chunks()
    of_kind = np.array([name == "top" for name in kind.dictionary.to_pylist()], np.bool_)
    rank = table["rank"].to_numpy()
    kept = of_kind[kind.indices.to_numpy()] & (rank < EXAMPLES) & (table["activation"].to_numpy() > 0)
    feature = table["feature"].to_numpy()[kept]
    place = (
        table["sequence"].to_numpy()[kept].astype(np.int64) * store.context_length + table["position"].to_numpy()[kept]
    )
    order = np.lexsort((rank[kept], feature))
    found, first = np.unique(feature[order], return_index=True)
    return dict(zip(found.tolist(), np.split(place[order], first[1:]), strict=True))
