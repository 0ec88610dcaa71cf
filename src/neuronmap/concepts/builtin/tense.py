"""Tense: past or present, said by another word in every condition, read after the clause."""

from __future__ import annotations

from neuronmap.concepts.concept import Concept, Outcome
from neuronmap.concepts.drawing import Draft, Plan, Supply
from neuronmap.concepts.words import people, verbs

__all__ = ["TENSE"]

_CLASSES = ("present", "past")
_CARRIERS = ("verb", "progressive", "perfect", "auxiliary")


def _frame(supply: Supply, condition: str) -> list[Draft]:
    subject = supply.lemma("subject", people())
    other = supply.lemma("object", people(), apart=[subject])
    verb = supply.lemma("verb", verbs())
    opening, ending = supply.word("neutral_openings"), supply.word("because")
    middle = supply.option("middle", ("not", "indeed", "really")) if condition == "auxiliary" else ""
    present, past = {
        "verb": (verb.third, verb.past),
        "progressive": (f"is {verb.progressive}", f"was {verb.progressive}"),
        "perfect": (f"has {verb.participle}", f"had {verb.participle}"),
        "auxiliary": (f"does {middle} {verb.base}", f"did {middle} {verb.base}"),
    }[condition]
    factors = {"opening": opening, "ending": ending}
    return [
        Draft(
            f"{opening} the {subject.singular} {said} the {other.singular} {ending}",
            label,
            subject.lemma,
            factors=factors,
        )
        for label, said in zip(_CLASSES, (present, past), strict=True)
    ]


TENSE = (
    Concept(
        name="tense",
        title="Tense",
        contrast="Is the clause in the past or in the present?",
        classes=_CLASSES,
        nuisances=("carrier", "opening", "ending"),
        crossed="carrier",
        read_rule="at 'it', the subject of a second clause, the same for both tenses; no adverb tells the time",
        generate=Plan("tense", _CLASSES, "carrier", _CARRIERS, 2, _frame, "tense"),
        outcome=Outcome(
            {"present": (" is", " has", " does"), "past": (" was", " had", " did")},
            "the second clause keeps the tense: is or was, has or had, does or did",
        ),
    ),
)
