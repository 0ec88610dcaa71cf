"""The shipped word lists."""

from __future__ import annotations

import re
from collections import Counter

from neuronmap.concepts.words import adjectives, category_nouns, closed, people, things, verbs


def test_lists_are_long_enough_for_disjoint_splits() -> None:
    assert len(people()) >= 90
    assert len(verbs()) >= 60
    assert len(things()) >= 30
    assert Counter(adjective.value for adjective in adjectives()) == {"positive": 44, "negative": 44}


def test_every_category_has_one_subtype_in_each_group() -> None:
    counts = Counter((noun.category, noun.group) for noun in category_nouns())
    assert set(counts) == {(kind, g) for kind in ("animal", "artefact", "food", "place", "person") for g in "abc"}
    assert set(counts.values()) == {12}
    subtypes = {(noun.category, noun.group): noun.subtype for noun in category_nouns()}
    assert len(set(subtypes.values())) == 15


def test_words_are_lower_case_and_in_one_role_each() -> None:
    persons = {form for noun in people() for form in (noun.singular, noun.plural)}
    actions = {form for verb in verbs() for form in (verb.base, verb.third, verb.past, verb.progressive)}
    objects = {form for noun in things() for form in (noun.singular, noun.plural)}
    judged = {adjective.word for adjective in adjectives()}
    for words in (persons, actions, objects, judged):
        assert all(re.fullmatch("[a-z]+", word) for word in words)
    assert not persons & actions
    assert not objects & judged
    assert len(judged) == len(adjectives())
    assert len(persons) == 2 * len(people())
    assert len({noun.singular for noun in category_nouns()}) == len(category_nouns())
    names = ("prepositions", "fillers", "sentence_adverbs", "time_adverbs", "meetings", "openings")
    small = {word for name in names for phrase in closed(name) for word in phrase.split()}
    assert not small & (persons | actions)


def test_past_and_participle_are_one_form() -> None:
    """So that active and passive sentences of a pair have the same words."""
    assert all(verb.past == verb.participle for verb in verbs())
