"""What an analysis says of a feature in one text: label, tokens, the words around its strongest peaks."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from neuronmap.features.storage.feature_texts import FeatureTexts
from neuronmap.features.storage.schema import EXAMPLE_KINDS, arrow_schema
from neuronmap.features.storage.text import Vocabulary

TOKENS = ["<s>", " the", " winter", " was", " co", "ld", ",", " 日本", "é", " snow", "."]
TEXT = [0, 1, 2, 3, 4, 5, 6, 1, 9, 10, 7, 7]  # <s> the winter was cold, the snow. 日本 日本
SPECIAL = [True] + [False] * (len(TOKENS) - 1)


class Store:
    """As much of a store as the texts are made of: contexts of 12 tokens, four features."""

    context_length, num_features = 12, 4

    def __init__(self, examples: list[tuple[Any, ...]], labels: list[str], typical: list[list[int]]) -> None:
        self.vocabulary = Vocabulary([token.encode() for token in TOKENS], SPECIAL)
        self._tokens = np.array([TEXT, [1, 2, 0, *TEXT[1:10]]], np.uint16)
        names = ("feature", "kind", "group", "rank", "sequence", "position", "activation", "offsets", "activations")
        made = {name: [row[at] for row in examples] for at, name in enumerate(names[:7])}
        made |= {"offsets": [[0]] * len(examples), "activations": [[1.0]] * len(examples)}
        kinds = pa.DictionaryArray.from_arrays(
            pa.array([EXAMPLE_KINDS.index(kind) for kind in made["kind"]], pa.int8()), list(EXAMPLE_KINDS)
        )
        columns = {name: kinds if name == "kind" else made[name] for name in names}
        entry = {"count": 1, "share": 1.0, "lift": 1.0, "z": 1.0}
        self._made = {
            "examples": pa.table(columns, schema=arrow_schema("examples")),
            "details": pa.table({"tokens": [[{"token": token, **entry} for token in tokens] for tokens in typical]}),
            "hints": pa.table({"label": labels}),
        }
        self.tables = self

    names = frozenset(("examples", "details", "hints"))

    def read(self, table: str, columns: list[str]) -> pa.Table:
        return self._made[table].select(columns)


def texts(examples: list[tuple[Any, ...]], label: str = "", typical: tuple[int, ...] = ()) -> list[str]:
    store: Any = Store(examples, [label, "a label", "", ""], [list(typical), [2], [], []])
    return FeatureTexts(store).of(range(4))


def top(rank: int, sequence: int, position: int, activation: float = 1.0, feature: int = 0, kind: str = "top") -> Any:
    return (feature, kind, 0, rank, sequence, position, activation)


def test_label_tokens_and_words_around_the_peak() -> None:
    found = texts([top(0, 0, 5)], "tokens ' winter', ' co', +7; weather", (2, 4, 6, 2))
    assert found == ["weather; winter, co; winter was cold, the", "", "", ""]  # a label alone is nothing to compare


@pytest.mark.parametrize(
    ("sequence", "position", "words"),
    [
        (0, 1, "the winter"),  # a special token is no word, and nothing is taken from beyond it
        (0, 4, "winter was cold, the"),  # the first half of a word is the word
        (0, 6, "winter was cold, the"),  # so is the comma that ends it
        (0, 11, "snow. 日本 日本"),
        (1, 1, "the winter"),  # not the next document's
        (1, 3, "the winter"),  # not the one before
    ],
)
def test_words_stay_within_context_and_document(sequence: int, position: int, words: str) -> None:
    assert texts([top(0, sequence, position)])[0] == words


def test_only_the_strongest_that_fire_and_each_words_once() -> None:
    found = texts(
        [
            top(1, 0, 8),
            top(0, 0, 2),
            top(2, 1, 8),
            top(3, 0, 11),  # beyond the third
            top(0, 0, 11, kind="bin"),
            top(0, 0, 11, 0.0, feature=2),  # silent
        ]
    )
    assert found == ["the winter was; cold, the snow. 日本; winter was cold, the", "", "", ""]
    assert texts([top(0, 0, 2), top(1, 0, 2)])[0].count(";") == 0


def test_no_torch() -> None:
    code = "import sys, neuronmap.features.storage.feature_texts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
