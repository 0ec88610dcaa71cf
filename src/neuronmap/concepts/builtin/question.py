"""Question or statement, by word order, by a question word, or as a clause that is asked about; read at the clause's end."""

from __future__ import annotations

from neuronmap.concepts.concept import Concept, Outcome
from neuronmap.concepts.drawing import Draft, Plan, Supply
from neuronmap.concepts.words import people, verbs

__all__ = ["QUESTION"]

_CLASSES = ("statement", "question")
_KINDS = ("do", "be", "who", "whether")
_MATRICES = (("They said that", "They asked whether"), ("I know that", "I wonder whether"))


def _frame(supply: Supply, condition: str) -> list[Draft]:
    subject = supply.lemma("subject", people())
    other = supply.lemma("object", people(), apart=[subject])
    verb = supply.lemma("verb", verbs())
    link, word = supply.word("links"), supply.word("time_adverbs")
    said, asked = supply.option("matrix", _MATRICES)
    actor = f"the {subject.singular}"
    clauses = {
        "do": (f"{link} {actor} did {verb.base}", f"{link} did {actor} {verb.base}"),
        "be": (f"{link} {actor} was {verb.progressive}", f"{link} was {actor} {verb.progressive}"),
        "who": (f"{link} someone {verb.past}", f"{link} who {verb.past}"),
        "whether": (f"{said} {actor} {verb.past}", f"{asked} {actor} {verb.past}"),
    }[condition]
    factors = {"opening": said if condition == "whether" else link}
    return [
        Draft(f"{clause} the {other.singular} {word}", label, other.lemma, factors=factors)
        for label, clause in zip(_CLASSES, clauses, strict=True)
    ]


QUESTION = (
    Concept(
        name="question",
        title="Question",
        contrast="Is the clause a question or a statement?",
        classes=_CLASSES,
        nuisances=("form", "opening"),
        crossed="form",
        read_rule="at a time adverb that ends the clause, the same for both",
        generate=Plan("question", _CLASSES, "form", _KINDS, 2, _frame, "question"),
        outcome=Outcome({"statement": (".",), "question": ("?",)}, "a full stop or a question mark ends the clause"),
    ),
)
