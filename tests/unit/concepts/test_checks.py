"""What is said about data before a model is asked."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronmap.concepts import SPLITS, ConceptData, Item, checked
from neuronmap.concepts.checks import _auc, faults, warnings
from neuronmap.errors import ConfigError

NOUNS = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "lmnr"]


def item(index: int, label: str, *, before: str = "the", condition: str = "x", word: str = "now") -> Item:
    """One text with a noun of its own; nouns go 3 : 1 : 2 over the splits."""
    start = f"{before} {NOUNS[index]}"
    split = SPLITS[(0, 0, 0, 1, 2, 2)[index % 6]]
    return Item(
        f"{start} {word}",
        label,
        (len(start) + 1, len(start) + 1 + len(word)),
        NOUNS[index],
        f"p{index}",
        condition,
        split,
    )


def plain(**changes: object) -> ConceptData:
    """Two classes, two conditions, nothing that tells the classes apart."""
    items = [
        item(index, label, condition=condition, before=f"{opening} {condition}")
        for index in range(72)
        for label, opening in (("a", "see"), ("b", "eye"))
        for condition in ("x", "y")
    ]
    # the opening is what the classes differ in; it is made useless by giving each to both classes
    items = [replace(made, label="ab"[(made.label == "b") ^ (index // 4 % 2)]) for index, made in enumerate(items)]
    return replace(ConceptData("made", ("a", "b"), tuple(items)), **changes)  # type: ignore[arg-type]


def found(data: ConceptData, words: str) -> bool:
    return any(words in warning for warning in warnings(data))


def test_data_without_faults_is_given_back_with_no_warning() -> None:
    assert checked(plain()) == plain()
    assert checked(plain()).warnings == ()


def test_few_clusters() -> None:
    data = plain()
    kept = set(data.clusters("test")[:19])
    few = replace(data, items=tuple(made for made in data.items if made.split != "test" or made.cluster in kept))
    assert found(few, "Only 19 clusters")
    assert not found(data, "clusters")


def test_words_that_tell_the_classes() -> None:
    items = [item(index, label, before=word) for index in range(72) for label, word in (("a", "cold"), ("b", "warm"))]
    assert found(ConceptData("made", ("a", "b"), tuple(items)), "The words alone tell the classes apart (AUC 1.00)")


def test_words_of_the_training_split_only_do_not_count() -> None:
    items = [item(index, "ab"[index // 6 % 2]) for index in range(72)]
    assert not found(ConceptData("made", ("a", "b"), tuple(items)), "bag of words")


def test_position_and_length() -> None:
    items = [
        item(index, label, before=words) for index in range(72) for label, words in (("a", "the"), ("b", "the the"))
    ]
    data = ConceptData("made", ("a", "b"), tuple(items))
    assert found(data, "the number of words before the read word does with AUC 1.00")
    later = tuple(replace(made, text=made.text + " end" * (made.label == "b")) for made in plain().items)
    assert found(replace(data, items=later), "the number of words of the text")


def test_read_words_that_differ() -> None:
    items = [item(index, label, word=word) for index in range(72) for label, word in (("a", "now"), ("b", "yes"))]
    assert found(ConceptData("made", ("a", "b"), tuple(items)), "words that are read differ")


def test_no_condition_to_leave_out() -> None:
    assert not found(plain(), "cross-condition")
    alone = tuple(made for made in plain().items if made.condition == "x")
    assert found(plain(items=alone), "there is no nuisance factor")
    lacking = tuple(made for made in plain().items if (made.condition, made.label) != ("y", "b"))
    assert found(plain(items=lacking), "condition 'y' has no items of class 'b'")


def test_items_read_at_their_first_word() -> None:
    moved = tuple(replace(made, span=(0, 3)) if index < 5 else made for index, made in enumerate(plain().items))
    assert found(plain(items=moved), "5 of 288 items are read at the first word")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (plain(classes=("a",)), "1 class"),
        (plain(classes=("a", "b", "c")), "Class 'c' has no items in train and calibration and test"),
        (plain(items=plain().items[:15]), "15 items; at least 16"),
        (plain(items=()), "0 items"),
        (plain(items=tuple(replace(made, text=" ") for made in plain().items)), "288 of its texts are empty"),
        (plain(items=tuple(replace(made, span=(2, 900)) for made in plain().items)), "288 spans lie outside"),
        (plain(items=tuple(replace(made, span=(3, 3)) for made in plain().items)), "288 spans lie outside"),
        (plain(items=tuple(replace(made, span=(0, 3)) for made in plain().items)), "at its very beginning"),
        (plain(items=tuple(made for made in plain().items if made.split != "test")), "Class 'a' has no items in test"),
        (plain(items=tuple(replace(made, cluster="one") for made in plain().items)), "1 clusters have two splits"),
        (plain(items=tuple(replace(made, pair="one") for made in plain().items)), "1 pairs have two splits"),
        (plain(items=(*plain().items, replace(plain().items[0], label="b"), replace(plain().items[0], label="a"))), "two labels"),
    ],
)  # fmt: skip
def test_faults_are_errors(data: ConceptData, words: str) -> None:
    with pytest.raises(ConfigError, match="made") as error:
        checked(data)
    assert words in str(error.value)


def test_all_faults_are_named_at_once() -> None:
    data = plain(classes=("a",), items=tuple(replace(made, text="") for made in plain().items[:10]))
    assert len(faults(data)) >= 4


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_is_the_share_of_ordered_pairs(scored: list[tuple[int, bool]]) -> None:
    high = [score for score, positive in scored if positive]
    low = [score for score, positive in scored if not positive]
    expected = 0.5
    if high and low:
        expected = sum((a > b) + 0.5 * (a == b) for a in high for b in low) / (len(high) * len(low))
    random.Random(0).shuffle(scored)
    assert _auc([score for score, _ in scored], [positive for _, positive in scored]) == pytest.approx(expected)
