"""The shipped word lists: lower-case English words that most tokenizers keep in one piece after a space.

No word has two roles that meet in one concept, so that a word never tells a label by itself. Lists are plain text files
beside this module, one entry a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = [
    "Adjective",
    "CategoryNoun",
    "Noun",
    "Verb",
    "adjectives",
    "category_nouns",
    "closed",
    "people",
    "things",
    "verbs",
]


@dataclass(frozen=True, slots=True)
class Noun:
    """A count noun with a regular plural."""

    singular: str
    plural: str

    @property
    def lemma(self) -> str:
        """The entry's name."""
        return self.singular

    def form(self, number: str) -> str:
        """The form in the ``singular`` or ``plural``."""
        return self.plural if number == "plural" else self.singular


@dataclass(frozen=True, slots=True)
class CategoryNoun(Noun):
    """A noun of a semantic category; each of the groups a, b and c holds one subtype of every category."""

    category: str
    subtype: str
    group: str


@dataclass(frozen=True, slots=True)
class Verb:
    """A regular transitive verb."""

    base: str
    third: str
    past: str
    participle: str
    progressive: str

    @property
    def lemma(self) -> str:
        """The entry's name."""
        return self.base


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective that praises or blames; ``value`` is ``positive`` or ``negative``."""

    word: str
    value: str

    @property
    def lemma(self) -> str:
        """The entry's name."""
        return self.word


def _rows(name: str) -> Iterator[list[str]]:
    text = (files("neuronmap.concepts.words") / name).read_text(encoding="utf-8")
    yield from (line.split() for line in text.splitlines() if line and not line.startswith("#"))


@cache
def people() -> tuple[Noun, ...]:
    """Persons that can be the subject of most verbs."""
    return tuple(Noun(*row) for row in _rows("people.txt"))


@cache
def things() -> tuple[Noun, ...]:
    """What is praised or blamed: films, meals, journeys."""
    return tuple(Noun(*row) for row in _rows("things.txt"))


@cache
def verbs() -> tuple[Verb, ...]:
    """Verbs with persons on both sides, whose past tense is also the participle."""
    return tuple(Verb(*row) for row in _rows("verbs.txt"))


@cache
def category_nouns() -> tuple[CategoryNoun, ...]:
    """Animals, artefacts, foods, places and persons, twelve of each subtype."""
    return tuple(
        CategoryNoun(singular, plural, category, subtype, group)
        for category, subtype, group, singular, plural in _rows("categories.txt")
    )


@cache
def adjectives() -> tuple[Adjective, ...]:
    """Adjectives of praise and blame."""
    return tuple(Adjective(word, value) for value, word in _rows("adjectives.txt"))


@cache
def _closed() -> dict[str, list[str]]:
    text = (files("neuronmap.concepts.words") / "closed.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def closed(name: str) -> tuple[str, ...]:
    """A list of words or short phrases without content of their own, such as ``prepositions``."""
    return tuple(_closed()[name])
