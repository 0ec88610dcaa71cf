"""Definiteness of a noun phrase, by another pair of determiners in every condition, read after the phrase."""

from __future__ import annotations

from neuronmap.concepts.concept import Concept
from neuronmap.concepts.drawing import Draft, Plan, Supply
from neuronmap.concepts.words import people

__all__ = ["DEFINITENESS"]

_CLASSES = ("indefinite", "definite")
_DETERMINERS = {
    "article": ("a", "the", "singular"),
    "demonstrative": ("some", "that", "singular"),
    "possessive": ("another", "our", "singular"),
    "plural": ("several", "these", "plural"),
}
_PLACES = {
    "object": ("I met", "She saw", "They heard", "He knew"),
    "prepositional": ("They talked about", "I waited for", "She walked towards", "We argued with"),
    "subject": ("I think", "You said", "Of course", "Perhaps"),
}


def _frame(supply: Supply, condition: str) -> list[Draft]:
    # "an" would make the two phrases differ in one more way
    noun = supply.lemma("noun", tuple(noun for noun in people() if noun.lemma[0] not in "aeiou"))
    place = supply.option(f"place {condition}", tuple(_PLACES))
    before = supply.option(f"before {place}", _PLACES[place])
    word = supply.word("sentence_adverbs" if place == "subject" else "time_adverbs")
    indefinite, definite, number = _DETERMINERS[condition]
    return [
        Draft(
            f"{before} {determiner} {noun.form(number)} {word}",
            label,
            noun.lemma,
            factors={"place": place, "before": before},
        )
        for label, determiner in zip(_CLASSES, (indefinite, definite), strict=True)
    ]


DEFINITENESS = (
    Concept(
        name="definiteness",
        title="Definiteness",
        contrast="Is the noun phrase definite?",
        classes=_CLASSES,
        nuisances=("determiners", "place", "before"),
        crossed="determiners",
        read_rule="at an adverb after the noun phrase, the same for both classes",
        generate=Plan("definiteness", _CLASSES, "determiners", tuple(_DETERMINERS), 2, _frame, "definiteness"),
    ),
)
