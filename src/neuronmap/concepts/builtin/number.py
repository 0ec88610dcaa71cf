"""Grammatical number: of the noun itself, of the subject at a later word, and of the noun that could be mistaken for it."""

from __future__ import annotations

from itertools import product

from neuronmap.concepts.concept import Concept, Outcome
from neuronmap.concepts.drawing import Draft, Plan, Supply
from neuronmap.concepts.words import Noun, people, verbs

__all__ = ["NUMBER"]

_NUMBERS = ("singular", "plural")
_AGREEMENT = Outcome(
    {"singular": (" is", " was", " has"), "plural": (" are", " were", " have")},
    "the verb agrees with the subject: is or are, was or were, has or have",
)

_NOUN_PLACES = {
    "object": ("I saw the", "She met the", "We heard the", "They found the", "You need the", "He knew the"),
    "prepositional": (
        "They talked about the",
        "I waited for the",
        "She walked towards the",
        "We argued with the",
        "He ran from the",
        "You looked at the",
    ),
    "adjective": (
        "I saw the old",
        "She met the young",
        "We found the angry",
        "They liked the quiet",
        "He knew the famous",
        "You need the other",
    ),
    "subject": (
        "I think the",
        "You said the",
        "We know that the",
        "Of course the",
        "Perhaps the",
        "She hopes that the",
    ),
}


def _noun_frame(supply: Supply, condition: str) -> list[Draft]:
    noun = supply.lemma("noun", people())
    before = supply.option(f"before {condition}", _NOUN_PLACES[condition])
    return [
        Draft(f"{before} {noun.form(number)}", number, noun.lemma, factors={"template": before}) for number in _NUMBERS
    ]


def _sentences(supply: Supply, condition: str) -> list[tuple[str, str, dict[str, str], Noun, Noun]]:
    """Number of the subject, number of the attractor, factors, and both nouns; the text is under ``text``."""
    subject = supply.lemma("subject", people())
    attractor = supply.lemma("attractor", people(), apart=[subject])
    verb = supply.lemma("verb", verbs())
    opening, adverb = supply.word("openings"), supply.word("sentence_adverbs")
    preposition = supply.word("prepositions") if condition in ("prepositional", "distant") else "none"
    filler = supply.word("fillers")
    made = []
    for first, second in product(_NUMBERS, _NUMBERS):
        other = f"the {attractor.form(second)}"
        between = {
            "prepositional": f"{preposition} {other}",
            "object relative": f"that {other} {verb.past}",
            "subject relative": f"that {verb.past} {other}",
            "distant": f"{filler} {preposition} {other}",
        }[condition]
        factors = {
            "preposition": preposition,
            "opening": opening,
            "distance": str(len(between.split()) + 1),
            "text": f"{opening} the {subject.form(first)} {between} {adverb}",
        }
        made.append((first, second, factors, subject, attractor))
    return made


def _subject_frame(supply: Supply, condition: str) -> list[Draft]:
    drafts = []
    for first, second, factors, subject, _ in _sentences(supply, condition):
        text = factors.pop("text")
        factors |= {"attractor": second, "congruent": "yes" if first == second else "no"}
        drafts.append(Draft(text, first, subject.lemma, pair=second, factors=factors))
    return drafts


def _attractor_frame(supply: Supply, condition: str) -> list[Draft]:
    drafts = []
    for first, second, factors, _, attractor in _sentences(supply, condition):
        text = factors.pop("text")
        factors |= {"subject": first, "congruent": "yes" if first == second else "no"}
        drafts.append(Draft(text, second, attractor.lemma, pair=first, factors=factors))
    return drafts


_CONSTRUCTIONS = ("prepositional", "object relative", "subject relative", "distant")

NUMBER = (
    Concept(
        name="grammatical_number:lexical",
        title="Number of the noun",
        contrast="Is the noun that is read singular or plural?",
        classes=_NUMBERS,
        nuisances=("construction", "template"),
        crossed="construction",
        read_rule="at the noun itself, which shows its number",
        generate=Plan(
            "grammatical_number:lexical", _NUMBERS, "construction", tuple(_NOUN_PLACES), 2, _noun_frame, "noun number"
        ),
        surface=True,
    ),
    Concept(
        name="grammatical_number:subject",
        title="Number of the subject",
        contrast="Is the subject of the coming verb singular or plural, whatever noun stands between?",
        classes=_NUMBERS,
        nuisances=("construction", "attractor", "congruent", "preposition", "distance", "opening"),
        crossed="construction",
        read_rule="at an adverb just before the verb, the same for both numbers",
        generate=Plan(
            "grammatical_number:subject", _NUMBERS, "construction", _CONSTRUCTIONS, 4, _subject_frame, "agreement"
        ),
        outcome=_AGREEMENT,
    ),
    Concept(
        name="grammatical_number:attractor",
        title="Number of the attractor",
        contrast="Is the noun that stands between subject and verb singular or plural?",
        classes=_NUMBERS,
        nuisances=("construction", "subject", "congruent", "preposition", "distance", "opening"),
        crossed="construction",
        read_rule="at an adverb just before the verb, the same for both numbers",
        generate=Plan(
            "grammatical_number:attractor", _NUMBERS, "construction", _CONSTRUCTIONS, 4, _attractor_frame, "agreement"
        ),
    ),
)
