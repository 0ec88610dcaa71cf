"""A label has six words at most. One that is longer is asked for again, once, in a short question of its own; what is still too long is cut
after a word, and said in full at the head of the explanation."""

from __future__ import annotations

from typing import Any

from neuronmap.interpretation.endpoint import Answer, Question
from neuronmap.interpretation.explaining.templates import PromptTemplate, read_template
from neuronmap.interpretation.explaining.told import MOST_EXPLANATION, Told, label_in

__all__ = ["MOST_SIGNS", "MOST_WORDS", "cut", "longest_question", "shorten_question", "shortened", "too_long"]

MOST_WORDS = 6
"""Of a label."""
MOST_SIGNS = 80
"""Of a label: of scripts that put no spaces between words, and of words that are none."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
_MOST_TOKENS = 60
_SHOWN_LABEL, _SHOWN_EXPLANATION = 200, 300
"""Bytes that the second question repeats, so that its price is bounded."""


def too_long(label: str) -> bool:
    """Whether a label has more than six words, or more than 80 signs."""
    return len(label.split()) > MOST_WORDS or len(label) > MOST_SIGNS


def shorten_question(told: Told) -> Question:
    """What is asked where a label is too long; the examples are not sent again."""
    return _question(_part(told.label, _SHOWN_LABEL), _part(told.explanation, _SHOWN_EXPLANATION) or "nothing")


def longest_question() -> Question:
    """The dearest of these questions, for estimates."""
    return _question("x" * _SHOWN_LABEL, "x" * _SHOWN_EXPLANATION)


def shortened(told: Told, answer: Answer) -> Told:
    """The label that came of the second question; cut where that did not help."""
    again = label_in(answer.value) if answer.value is not None else ""
    if not again or too_long(again):
        return cut(told)
    return told._replace(
        label=again, repairs=(*told.repairs, "label asked for again: it was too long"), whole=told.label
    )


def cut(told: Told) -> Told:
    """The first six words, and all of them before the explanation."""
    words, kept = told.label.split(), ""
    for word in words[:MOST_WORDS]:
        longer = f"{kept} {word}".strip()
        if len(longer) >= MOST_SIGNS:
            break
        kept = longer
    label = f"{(kept or told.label[: MOST_SIGNS - 1]).rstrip(' ,;:.-')}…"
    explanation = f"{told.label}. {told.explanation}" if told.explanation else told.label
    return Told(
        label,
        explanation[:MOST_EXPLANATION],
        (*told.repairs, f"label cut: it had {len(words)} words"),
        whole=told.label,
    )


def _question(label: str, explanation: str) -> Question:
    return Question(_template().messages(label=label, explanation=explanation), _MOST_TOKENS, SCHEMA)


def _template() -> PromptTemplate:
    return read_template("neuronmap.interpretation.explaining.prompts", "shorten", 1)


def _part(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore")
