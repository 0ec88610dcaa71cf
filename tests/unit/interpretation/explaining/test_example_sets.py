"""Labels are scored on documents they were not made from, and every example is what its group says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_stores import small_store
from planted_store import (
    CONTEXTS,
    DENSE_F,
    FEATURES,
    FEW_F,
    ID,
    LENGTH,
    NEVER_F,
    NUMBER_F,
    OF_THE_F,
    SUMMER_F,
    WINTER_F,
    Planted,
)

from neuronmap.errors import InputError
from neuronmap.features.storage.store import FeatureStore
from neuronmap.interpretation.explaining.example_sets import ExplainSet, ScoreSet, Shown, explain_set, score_sets
from neuronmap.interpretation.explaining.halves import _BLOCKS, _LEAST_SHARE, Halves
from neuronmap.interpretation.explaining.rendering import marked, numbered, plain, strengths
from neuronmap.interpretation.hints import reading


@pytest.fixture(scope="module")
def halves(planted: Planted) -> Halves:
    return Halves(planted.store)


def sets_of(planted: Planted, halves: Halves, feature: int) -> tuple[ExplainSet, ScoreSet]:
    return explain_set(planted.store, feature, halves), score_sets(planted.store, [feature], halves, planted)[0]


def shown_documents(planted: Planted, shown: tuple[Shown, ...]) -> set[int]:
    """Documents of every token that is shown."""
    found = set()
    for one in shown:
        at = one.example
        found.update(planted.document_CT[at.sequence, at.start : at.start + len(at.token_ids)].tolist())
    return found - {-1}


@pytest.mark.parametrize("feature", [WINTER_F, SUMMER_F, NUMBER_F, OF_THE_F, DENSE_F])
def test_no_document_is_in_both_sets(planted: Planted, halves: Halves, feature: int) -> None:
    explain, score = sets_of(planted, halves, feature)
    seen = shown_documents(planted, (*explain.top, *explain.quantiles, *explain.negatives))
    asked = shown_documents(planted, (*score.positives, *score.negatives, *score.spare))
    assert seen
    assert asked
    assert not seen & asked
    for documents, half in ((seen, False), (asked, True)):
        assert all(reading.in_score_half(f"text.jsonl:{number}") == half for number in documents)


@pytest.mark.parametrize("feature", range(FEATURES))
def test_every_example_is_what_its_group_says(planted: Planted, halves: Halves, feature: int) -> None:
    explain, score = sets_of(planted, halves, feature)
    value_CT = planted.value_CTF[:, :, feature]
    fifths = np.quantile(value_CT[value_CT > 0], [0.2, 0.4, 0.6, 0.8]) if value_CT.any() else []
    for one in (*explain.top, *explain.quantiles, *explain.negatives, *score.positives, *score.negatives, *score.spare):
        at = one.example
        window = value_CT[at.sequence, at.start : at.start + len(at.token_ids)]
        assert one.active == bool(window.any()) == (one.group[:3] in ("top", "qua"))
        if one.group.startswith("quantile"):  # the edges come from a histogram: a factor of 2 ** 0.25 wide
            fifth = int(one.group[-1])
            assert fifth == 0 or window.max() >= fifths[fifth - 1] / 1.2
            assert fifth == 4 or window.max() <= fifths[fifth] * 1.2
        elif one.group == "hard-token":
            token = planted.ids_CT[at.sequence, at.position]
            assert token in np.unique(planted.ids_CT[value_CT > 0])
        elif one.group == "hard-neighbour":
            assert planted.value_CTF[at.sequence, at.position, [WINTER_F, SUMMER_F, NUMBER_F]].any()
            assert one.text == "".join(text for text, _ in one.tokens)
    places = [one.place[0] for one in (*score.positives, *score.negatives, *score.spare)]
    assert len(places) == len(set(places)), "no context twice"


def test_the_protocol_is_filled_where_there_is_enough(planted: Planted, halves: Halves) -> None:
    explain, score = sets_of(planted, halves, WINTER_F)
    assert (len(explain.top), len(explain.quantiles)) == (10, 10)
    groups = [one.group for one in (*score.positives, *score.negatives)]
    counts = {group: groups.count(group) for group in dict.fromkeys(groups)}
    assert 8 <= counts["random"] <= 10
    assert counts["hard-neighbour"] >= 5
    assert sum(number for group, number in counts.items() if group.startswith("quantile")) >= 15
    said = " ".join(score.missing)
    assert ("random places" in said) == (counts["random"] < 10)
    assert ("windows where it fires" in said) == (len(score.positives) < 25)
    assert "hard negatives" not in said


def test_what_is_missing_is_said(planted: Planted, halves: Halves) -> None:
    without = score_sets(planted.store, [WINTER_F], halves)[0]
    assert "no negatives where neighbours fire: the language model was not read" in without.missing
    explain, score = sets_of(planted, halves, FEW_F)
    assert "fires in" in explain.problem
    assert "fires in" in score.problem
    explain, score = sets_of(planted, halves, NEVER_F)
    assert explain.problem.startswith("it fires in 0 windows")
    with pytest.raises(InputError, match="no feature 99"):
        explain_set(planted.store, 99, halves)


def test_the_model_is_read_once_for_many_features(planted: Planted, halves: Halves) -> None:
    calls = []

    class Counting:
        def read(self, wanted: list[tuple[int, int]]) -> list[np.ndarray]:
            calls.append(len(wanted))
            return planted.read(wanted)

    made = score_sets(planted.store, [WINTER_F, SUMMER_F, NUMBER_F], halves, Counting())
    assert len(calls) == 1
    alone = score_sets(planted.store, [SUMMER_F], halves, planted)[0]
    assert [one.place for one in made[1].negatives] == [one.place for one in alone.negatives]


def test_halves_are_those_of_the_hints(planted: Planted, halves: Halves) -> None:
    assert (_LEAST_SHARE, _BLOCKS) == (reading._LEAST_SHARE, reading._BLOCKS)
    assert halves.split == "documents"
    for sequence in range(0, CONTEXTS, 7):
        for position in range(0, LENGTH, 3):
            document = int(planted.document_CT[sequence, position])
            if document >= 0:
                expected = "score" if reading.in_score_half(f"text.jsonl:{document}") else "explain"
                assert halves.half(sequence, position) == expected
                begin, after = halves.document_span(sequence, position)
                inside = np.flatnonzero(planted.document_CT[sequence] == document)
                assert (begin, inside.max()) == (inside.min(), max(p for p in inside if p < after))


def test_one_long_document_is_split_by_blocks(planted: Planted) -> None:
    class One:
        context_length, num_contexts = LENGTH, 128

        class tables:  # noqa: N801
            @staticmethod
            def read(name: str, columns: list[str]) -> object:
                full = planted.store.tables.read(name, columns)
                return full.slice(0, 1)

    halves = Halves(One())  # type: ignore[arg-type]
    assert halves.split == "blocks of contexts"
    assert [halves.half(sequence, 0) for sequence in range(6)] == [
        "explain",
        "explain",
        "score",
        "score",
        "explain",
        "explain",
    ]


def test_a_store_whose_documents_begin_late(tmp_path: object) -> None:
    store = FeatureStore.open(small_store(tmp_path / "s"))  # type: ignore[operator]
    halves = Halves(store)
    assert halves.document_span(0, 0)[0] == 0
    assert halves.document_span(1, 2) == (0, 4)
    assert halves.document_span(1, 5) == (4, 10)


# --- as text ----------------------------------------------------------------------------------------------------------------


def made(planted: Planted, tokens: list[tuple[str, float]]) -> Shown:
    example = planted.store.examples(WINTER_F, "top")[0]
    values = np.array([value for _, value in tokens], np.float32)
    return Shown(replace(example, activations=values), "top", tuple(tokens))


def test_marks(planted: Planted) -> None:
    shown = made(planted, [(" the", 0.0), (" old", 4.0), (" snow", 10.0), (" and", 1.0), ("\n", 0.0), (" ice", 5.0)])
    assert marked(shown) == "the <<old snow>> and⏎ <<ice>>"
    assert marked(shown, {0}) == "<<the>> old snow and⏎ ice"
    assert marked(shown, set()) == plain(shown) == "the old snow and⏎ ice"
    assert strengths(shown, 10.0) == '"old" 4, "snow" 10, "and" 1, "ice" 5'
    assert numbered(["a", "b"]) == "1. a\n2. b"
    assert ID[" snow"] > 0
