"""What a language model said a feature is, tidied."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["MOST_EXPLANATION", "Told", "label_in", "one_line"]

MOST_EXPLANATION = 1500
"""Signs of an explanation."""


class Told(NamedTuple):
    """What a language model said a feature is.

    Attributes:
        label: short; empty where there is a problem.
        explanation: long.
        repairs: what was done to read it.
        problem: why there is no label.
        whole: the label as it was first said, where it was too long; empty otherwise.
    """

    label: str
    explanation: str
    repairs: tuple[str, ...] = ()
    problem: str = ""
    whole: str = ""


def label_in(value: dict[str, Any]) -> str:
    """The label of an answer, without quotes and full stops around it; any length."""
    return one_line(value["label"]).strip(" .\"'`*<>")


def one_line(text: str) -> str:
    """Without line breaks and signs that cannot be printed."""
    return "".join(sign if sign.isprintable() else " " for sign in " ".join(str(text).split()))
