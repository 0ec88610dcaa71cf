"""Polarity: whether the clause is negated, by another word in every condition; an affirmative word takes its place."""

from __future__ import annotations

from neuronmap.concepts.concept import Concept, Outcome
from neuronmap.concepts.drawing import Draft, Plan, Supply
from neuronmap.concepts.words import people, verbs

__all__ = ["POLARITY"]

_CLASSES = ("affirmative", "negative")
_AFFIRMATIVE = {
    "not": ("indeed", "really"),
    "never": ("often", "always"),
    "nobody": ("somebody", "everybody"),
    "no": ("some", "every"),
}


def _frame(supply: Supply, condition: str) -> list[Draft]:
    subject = supply.lemma("subject", people())
    other = supply.lemma("object", people(), apart=[subject])
    verb = supply.lemma("verb", verbs())
    opening, word = supply.word("openings"), supply.word("time_adverbs")
    counterpart = supply.option(f"counterpart {condition}", _AFFIRMATIVE[condition])
    clause = {
        "not": f"the {subject.singular} did {{polar}} {verb.base}",
        "never": f"the {subject.singular} {{polar}} {verb.past}",
        "nobody": f"{{polar}} {verb.past}",
        "no": f"{{polar}} {subject.singular} {verb.past}",
    }[condition]
    factors = {"counterpart": counterpart, "opening": opening}
    return [
        Draft(
            f"{opening} {clause.format(polar=polar)} the {other.singular} {word}", label, other.lemma, factors=factors
        )
        for label, polar in zip(_CLASSES, (counterpart, condition), strict=True)
    ]


POLARITY = (
    Concept(
        name="polarity",
        title="Polarity",
        contrast="Is the clause negated?",
        classes=_CLASSES,
        nuisances=("negator", "counterpart", "opening"),
        crossed="negator",
        read_rule="at a time adverb that ends the clause, the same for both; every condition negates by another word",
        generate=Plan("polarity", _CLASSES, "negator", tuple(_AFFIRMATIVE), 2, _frame, "polarity"),
        outcome=Outcome(
            {"affirmative": (" too",), "negative": (" either",)},
            "too follows an affirmative clause, either a negated one",
        ),
    ),
)
