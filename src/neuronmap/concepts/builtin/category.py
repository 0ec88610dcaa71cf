"""Semantic category of a noun: read at the noun, and at a later word that is the same for all categories."""

from __future__ import annotations

from neuronmap.concepts.concept import Concept
from neuronmap.concepts.drawing import Draft, Plan, Supply
from neuronmap.concepts.words import category_nouns

__all__ = ["CATEGORY"]

_CATEGORIES = ("animal", "artefact", "food", "place", "person")
_GROUPS = ("a", "b", "c")
_TEMPLATES = (
    "I often think about {noun}",
    "They told us about {noun}",
    "We saw a picture of {noun}",
    "She dreamed about {noun}",
    "He sang about {noun}",
    "You mentioned {noun}",
    "Everyone was talking about {noun}",
    "The film shows {noun}",
)
_DETERMINERS = ("the", "their", "our", "my")
_NUISANCES = ("subtype", "template", "number", "determiner")


def _frame(supply: Supply, condition: str, ending: str) -> list[Draft]:
    template = supply.option("template", _TEMPLATES)
    determiner = supply.option("determiner", _DETERMINERS)
    number = supply.option("number", ("singular", "plural"))
    drafts = []
    for category in _CATEGORIES:
        listed = tuple(noun for noun in category_nouns() if (noun.category, noun.group) == (category, condition))
        noun = supply.lemma(f"{category} {condition}", listed)
        text = template.format(noun=f"{determiner} {noun.form(number)}") + ending
        factors = {"template": template, "number": number, "determiner": determiner}
        drafts.append(Draft(text, category, noun.lemma, factors=factors))
    return drafts


def _noun_frame(supply: Supply, condition: str) -> list[Draft]:
    return _frame(supply, condition, "")


def _later_frame(supply: Supply, condition: str) -> list[Draft]:
    return _frame(supply, condition, f" {supply.word('later_words')}")


CATEGORY = (
    Concept(
        name="semantic_category:noun",
        title="Category of the noun",
        contrast="Is the noun that is read an animal, an artefact, a food, a place or a person?",
        classes=_CATEGORIES,
        nuisances=_NUISANCES,
        crossed="subtype",
        read_rule="at the noun itself; each condition holds one subtype of every category (mammals, tools, fruit; birds, ...)",
        generate=Plan("semantic_category:noun", _CATEGORIES, "subtype", _GROUPS, 5, _noun_frame, "category at noun"),
        surface=True,
    ),
    Concept(
        name="semantic_category:later",
        title="Category of the last noun",
        contrast="Was the last noun an animal, an artefact, a food, a place or a person?",
        classes=_CATEGORIES,
        nuisances=_NUISANCES,
        crossed="subtype",
        read_rule="at a neutral word after the noun, the same for all categories",
        generate=Plan("semantic_category:later", _CATEGORIES, "subtype", _GROUPS, 5, _later_frame, "category later"),
    ),
)
