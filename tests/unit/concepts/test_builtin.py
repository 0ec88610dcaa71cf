"""Every built-in concept: balance, disjoint splits, minimal pairs, and a read word that does not tell the class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronmap.concepts import SPLITS, Concept, ConceptData, Item, get_concepts
from neuronmap.concepts.builtin import BUILT_IN
from neuronmap.concepts.words import adjectives, category_nouns, people, things, verbs
from neuronmap.errors import ConfigError

SIZES = (60, 400, 1200)

every_concept = pytest.mark.parametrize("concept", BUILT_IN, ids=lambda concept: concept.name)


def forms() -> dict[str, str]:
    """Lemma of every inflected content word."""
    found = {
        word: noun.lemma for noun in (*people(), *things(), *category_nouns()) for word in (noun.singular, noun.plural)
    }
    for verb in verbs():
        found |= dict.fromkeys((verb.base, verb.third, verb.past, verb.participle, verb.progressive), verb.lemma)
    return found | {adjective.word: adjective.word for adjective in adjectives()}


FORMS = forms()


def pairs(data: ConceptData) -> Iterable[list[Item]]:
    found: defaultdict[str, list[Item]] = defaultdict(list)
    for item in data.items:
        found[item.pair].append(item)
    return found.values()


def test_all_families_are_there() -> None:
    assert list(dict.fromkeys(concept.family for concept in BUILT_IN)) == [
        "grammatical_number", "semantic_category", "syntactic_role", "tense", "polarity", "sentiment", "definiteness",
        "question",
    ]  # fmt: skip


@every_concept
@pytest.mark.parametrize("items", SIZES)
def test_labels_and_conditions_are_balanced_in_every_split(concept: Concept, items: int) -> None:
    data = concept.generate(items, 0)
    counts = data.counts()
    for split in SPLITS:
        cells = {counts[label, condition, split] for label in data.classes for condition in data.conditions}
        assert len(cells) == 1
        assert cells != {0}
    assert abs(len(data.items) - items) <= max(20, 0.1 * items)


@every_concept
def test_the_crossed_factor_is_the_condition_and_has_levels_to_leave_out(concept: Concept) -> None:
    data = concept.generate(400, 0)
    assert concept.crossed == concept.nuisances[0]
    assert all(item.factors[str(concept.crossed)] == item.condition for item in data.items)
    assert all(set(item.factors) == set(concept.nuisances) for item in data.items)
    assert len(data.conditions) >= (2 if concept.crossed == "voice" else 3)


@every_concept
@pytest.mark.parametrize("items", SIZES)
def test_no_lemma_is_in_two_splits(concept: Concept, items: int) -> None:
    data = concept.generate(items, 0)
    lemmas = {
        split: {
            FORMS[word] for item in data.items if item.split == split for word in item.text.split() if word in FORMS
        }
        for split in SPLITS
    }
    assert not lemmas["train"] & lemmas["test"]
    assert not lemmas["train"] & lemmas["calibration"]
    assert not lemmas["calibration"] & lemmas["test"]


@every_concept
def test_few_items_still_have_many_lemmas(concept: Concept) -> None:
    data = concept.generate(400, 0)
    assert len(data.clusters("train")) >= 40
    assert len(data.clusters("calibration")) >= 10
    assert len(data.clusters("test")) >= 20
    assert {item.cluster for item in data.items} <= set(FORMS.values())


@every_concept
def test_a_pair_holds_every_class_once_and_reads_the_same_word(concept: Concept) -> None:
    data = concept.generate(400, 0)
    for pair in pairs(data):
        assert sorted(item.label for item in pair) == sorted(data.classes)
        assert len({(item.split, item.condition) for item in pair}) == 1
        assert len({len(item.text.split()) for item in pair}) == 1
        assert len({item.word for item in pair}) == (len(pair) if concept.surface else 1)


@every_concept
def test_texts_are_read_at_their_last_word(concept: Concept) -> None:
    for item in concept.generate(200, 1).items:
        assert item.text[: item.span[0]].split()
        assert item.span[1] == len(item.text)
        assert " " not in item.word
        assert "  " not in item.text
        assert "{" not in item.text


@every_concept
def test_every_template_serves_every_class(concept: Concept) -> None:
    """A template is a text without its content words; what remains of nuisances is balanced over the labels."""
    data = concept.generate(400, 0)
    free = {"gap"} if concept.name == "syntactic_role:thematic" else set()
    for name in set(concept.nuisances) - free:
        levels = data.counts((name, "label"))
        for level in {level for level, _ in levels}:
            assert len({levels[level, label] for label in data.classes}) == 1, (name, level)


@every_concept
@pytest.mark.parametrize("items", SIZES)
def test_no_text_comes_twice(concept: Concept, items: int) -> None:
    texts = Counter(item.text for item in concept.generate(items, 0).items)
    assert set(texts.values()) == {1}


@every_concept
def test_equal_arguments_give_equal_data_and_other_seeds_other_splits(concept: Concept) -> None:
    assert concept.generate(200, 3).digest == concept.generate(200, 3).digest
    assert concept.generate(200, 3).clusters("test") != concept.generate(200, 4).clusters("test")


@every_concept
def test_outcomes_name_every_class(concept: Concept) -> None:
    if concept.outcome is not None:
        assert tuple(concept.outcome.continuations) == concept.classes
        assert len({len(words) for words in concept.outcome.continuations.values()}) == 1


@every_concept
def test_unusable_counts_are_refused(concept: Concept) -> None:
    with pytest.raises(ConfigError, match="at least 16"):
        concept.generate(15, 0)
    if concept.name == "grammatical_number:lexical":
        with pytest.raises(ConfigError, match="fewer"):
            concept.generate(100_000, 0)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(BUILT_IN), st.integers(16, 600), st.integers(0, 2**31))
def test_any_count_and_seed_gives_balanced_data(concept: Concept, items: int, seed: int) -> None:
    data = concept.generate(items, seed)
    counts = data.counts(("label", "condition"))
    assert len(set(counts.values())) == 1
    assert len(counts) == len(data.classes) * len(data.conditions)


def differing(first: str, second: str) -> list[tuple[str, str]]:
    return [(a, b) for a, b in zip(first.split(), second.split(), strict=True) if a != b]


@pytest.mark.parametrize("variant", ["lexical", "subject", "attractor"])
def test_number_pairs_differ_in_one_noun_only(variant: str) -> None:
    plurals = {noun.singular: noun.plural for noun in people()}
    for pair in pairs(get_concepts(f"grammatical_number:{variant}")[0].generate(400, 0)):
        singular, plural = sorted(pair, key=lambda item: item.label, reverse=True)
        assert differing(singular.text, plural.text) == [(singular.cluster, plurals[singular.cluster])]


def test_subject_and_attractor_are_asked_about_the_same_sentences() -> None:
    subject, attractor = (
        get_concepts(f"grammatical_number:{name}")[0].generate(400, 0) for name in ("subject", "attractor")
    )
    assert [item.text for item in subject.items] == [item.text for item in attractor.items]
    for one, other in zip(subject.items, attractor.items, strict=True):
        assert (one.label == other.label) == (one.factors["congruent"] == "yes")
        assert one.factors["attractor"] == other.label
        assert other.factors["subject"] == one.label


def test_both_roles_are_asked_about_the_same_sentences_and_part_in_the_passive() -> None:
    thematic, grammatical = get_concepts("syntactic_role")
    for one, other in zip(thematic.generate(400, 0).items, grammatical.generate(400, 0).items, strict=True):
        assert one.text == other.text
        assert one.factors["gap"] == other.label
        assert (one.label == "agent") == ((other.label == "subject gap") == (one.condition == "active"))
        assert ((" by " in one.text) and " was " in one.text.split(one.cluster)[1]) == (one.condition == "passive")


def test_role_pairs_have_the_same_words_in_another_order() -> None:
    for pair in pairs(get_concepts("syntactic_role:thematic")[0].generate(400, 0)):
        assert sorted(pair[0].text.split()) == sorted(pair[1].text.split())


@pytest.mark.parametrize(
    ("name", "words"),
    [("tense", 1), ("polarity", 1), ("definiteness", 1), ("sentiment:plain", 1), ("sentiment:negated", 1)],
)
def test_pairs_differ_in_the_carrier_only(name: str, words: int) -> None:
    for pair in pairs(get_concepts(name)[0].generate(400, 0)):
        assert len(differing(pair[0].text, pair[1].text)) == words


@pytest.mark.parametrize("variant", ["noun", "later"])
def test_category_texts_differ_in_the_noun_only(variant: str) -> None:
    for pair in pairs(get_concepts(f"semantic_category:{variant}")[0].generate(400, 0)):
        assert all(len(differing(pair[0].text, other.text)) == 1 for other in pair[1:])


def test_under_negation_neither_adjective_nor_negation_tells_the_class() -> None:
    data = get_concepts("sentiment:negated")[0].generate(400, 0)
    for factor in ("adjective", "negation"):
        assert len(set(data.counts((factor, "label", "condition", "split")).values())) == len(SPLITS)
    assert not [warning for warning in data.warnings if "bag of words" in warning]


def test_inverted_questions_have_the_words_of_the_statement() -> None:
    for pair in pairs(get_concepts("question")[0].generate(400, 0)):
        if pair[0].condition in ("do", "be"):
            assert sorted(pair[0].text.split()) == sorted(pair[1].text.split())


def test_warnings_tell_which_concepts_a_bag_of_words_passes() -> None:
    passed = {
        concept.name
        for concept in BUILT_IN
        if any("bag of words" in warning for warning in concept.generate(400, 0).warnings)
    }
    assert passed == {"tense", "polarity", "definiteness", "question"}
