"""Syntactic role of the first noun: who acted (thematic), and what the gap stands for (grammatical).

Both concepts use the same sentences and differ in the label. In the active voice the two coincide, in the passive they
are opposite, so conditions are the voices: a probe that learned where the gap is, and is taken for one of agents, inverts
when the voice changes. Both members of a pair have the same words in another order. Main clauses are left out: there
the voice itself would tell the role of the first noun.
"""

from __future__ import annotations

from neuronmap.concepts.concept import Concept
from neuronmap.concepts.drawing import Draft, Plan, Supply
from neuronmap.concepts.words import people, verbs

__all__ = ["ROLE"]

_VOICES = ("active", "passive")
_THEMATIC = ("patient", "agent")
_GRAMMATICAL = ("object gap", "subject gap")
_HEADS = {
    "relative": ("meetings", "the {noun} that"),
    "cleft": ("clefts", "the {noun} that"),
    "question": ("wonderings", "which {noun}"),
}


def _sentences(supply: Supply, voice: str) -> list[tuple[str, str, str, dict[str, str]]]:
    """Gap, text, the first noun's lemma and factors, for both gaps."""
    construction = supply.option(f"construction {voice}", tuple(_HEADS))
    opening_list, head = _HEADS[construction]
    first = supply.lemma("first", people())
    second = supply.lemma("second", people(), apart=[first])
    verb = supply.lemma("verb", verbs())
    opening, word = supply.word(opening_list), supply.word("time_adverbs")
    other = f"{supply.word('second_determiners')} {second.singular}"
    bodies = {
        "active": (f"{other} {verb.past}", f"{verb.past} {other}"),
        "passive": (f"{other} was {verb.participle} by", f"was {verb.participle} by {other}"),
    }[voice]
    start = f"{opening} {head.format(noun=first.singular)}"
    factors = {"construction": construction, "opening": opening}
    return [
        (gap, f"{start} {body} {word}", first.lemma, factors) for gap, body in zip(_GRAMMATICAL, bodies, strict=True)
    ]


def _grammatical_frame(supply: Supply, voice: str) -> list[Draft]:
    return [Draft(text, gap, lemma, factors=factors) for gap, text, lemma, factors in _sentences(supply, voice)]


def _thematic_frame(supply: Supply, voice: str) -> list[Draft]:
    drafts = []
    for gap, text, lemma, factors in _sentences(supply, voice):
        agent = (gap == "subject gap") == (voice == "active")
        drafts.append(Draft(text, "agent" if agent else "patient", lemma, factors={**factors, "gap": gap}))
    return drafts


_READ = "at a time adverb after verb and both nouns, the same for both classes"

ROLE = (
    Concept(
        name="syntactic_role:thematic",
        title="Thematic role of the first noun",
        contrast="Is the first noun the one who acted, or the one it was done to?",
        classes=_THEMATIC,
        nuisances=("voice", "construction", "gap", "opening"),
        crossed="voice",
        read_rule=_READ,
        generate=Plan("syntactic_role:thematic", _THEMATIC, "voice", _VOICES, 2, _thematic_frame, "role"),
    ),
    Concept(
        name="syntactic_role:grammatical",
        title="Grammatical role of the first noun",
        contrast="Is the first noun the subject of the clause that follows it, or the object?",
        classes=_GRAMMATICAL,
        nuisances=("voice", "construction", "opening"),
        crossed="voice",
        read_rule=_READ,
        generate=Plan("syntactic_role:grammatical", _GRAMMATICAL, "voice", _VOICES, 2, _grammatical_frame, "role"),
    ),
)
