"""Sentiment: praise or blame, by an adjective, and by an adjective under negation.

Without negation the adjective alone tells the class. In the variant ``negated`` every adjective stands once under "not"
and once not, so that neither the adjective nor the negation tells the class: only both together do.
"""

from __future__ import annotations

from itertools import product

from neuronmap.concepts.concept import Concept, Outcome
from neuronmap.concepts.drawing import Draft, Plan, Supply
from neuronmap.concepts.words import Adjective, adjectives, things

__all__ = ["SENTIMENT"]

_CLASSES = ("negative", "positive")
_PLAIN = {
    "predicative": "We thought the {thing} was {intensifier} {adjective} {ending}",
    "attributive": "It was a {intensifier} {adjective} {thing} {ending}",
    "experiencer": "Everyone found the {thing} {intensifier} {adjective} {ending}",
    "embedded": "They told us how {adjective} the {thing} was {ending}",
}
_NEGATED = {
    "predicative": "We thought the {thing} was {polar} {adjective} {ending}",
    "attributive": "It was {polar} a {intensifier} {adjective} {thing} {ending}",
    "experiencer": "Everyone found the {thing} {polar} {adjective} {ending}",
    "auxiliary": "They said the {thing} did {polar} seem {adjective} {ending}",
}
_AFFIRMATIVE = {"predicative": "very", "attributive": "indeed", "experiencer": "very", "auxiliary": "really"}


def _adjective(supply: Supply, value: str) -> Adjective:
    return supply.lemma(value, tuple(adjective for adjective in adjectives() if adjective.value == value))


def _frame(supply: Supply, condition: str) -> list[Draft]:
    chosen = {
        "thing": supply.lemma("thing", things()).singular,
        "intensifier": supply.word("intensifiers"),
        "ending": supply.word("continuers"),
    }
    found = [_adjective(supply, value) for value in _CLASSES]
    return [
        Draft(
            _PLAIN[condition].format(adjective=adjective.word, **chosen),
            adjective.value,
            adjective.lemma,
            factors={"thing": chosen["thing"], "ending": chosen["ending"]},
        )
        for adjective in found
    ]


def _negated_frame(supply: Supply, condition: str) -> list[Draft]:
    chosen = {
        "thing": supply.lemma("thing", things()).singular,
        "intensifier": supply.word("intensifiers"),
        "ending": supply.word("continuers"),
    }
    found = [_adjective(supply, value) for value in _CLASSES]
    drafts = []
    for adjective, polar in product(found, (_AFFIRMATIVE[condition], "not")):
        praised = (adjective.value == "positive") == (polar != "not")
        factors = {
            "adjective": adjective.value,
            "negation": "yes" if polar == "not" else "no",
            "thing": chosen["thing"],
            "ending": chosen["ending"],
        }
        text = _NEGATED[condition].format(adjective=adjective.word, polar=polar, **chosen)
        label = "positive" if praised else "negative"
        drafts.append(Draft(text, label, adjective.lemma, pair=adjective.value, factors=factors))
    return drafts


_READ = "at the subject of a second clause, the same for both classes"
_OUTCOME = Outcome(
    {"negative": (" hated", " hate"), "positive": (" loved", " love")},
    "the second clause goes on as the first: loved or hated",
)

SENTIMENT = (
    Concept(
        name="sentiment:plain",
        title="Sentiment",
        contrast="Is something praised or blamed?",
        classes=_CLASSES,
        nuisances=("construction", "thing", "ending"),
        crossed="construction",
        read_rule=_READ,
        generate=Plan("sentiment:plain", _CLASSES, "construction", tuple(_PLAIN), 2, _frame, "sentiment plain"),
        outcome=_OUTCOME,
    ),
    Concept(
        name="sentiment:negated",
        title="Sentiment under negation",
        contrast="Is something praised or blamed, where half of the adjectives are negated?",
        classes=_CLASSES,
        nuisances=("construction", "adjective", "negation", "thing", "ending"),
        crossed="construction",
        read_rule=_READ,
        generate=Plan(
            "sentiment:negated", _CLASSES, "construction", tuple(_NEGATED), 4, _negated_frame, "sentiment negated"
        ),
        outcome=_OUTCOME,
    ),
)
