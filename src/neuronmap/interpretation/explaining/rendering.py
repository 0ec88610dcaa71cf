"""Examples as text in a prompt: one line each, what fires between ``<<`` and ``>>``."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from neuronmap.interpretation.explaining.example_sets import Shown

__all__ = ["SCALE", "marked", "numbered", "plain", "strengths"]

SCALE = 10
"""Strengths are told from 1 to this, in proportion to the feature's largest activation."""
LEAST_SHARE = 0.3
"""What fires with less than this share of the window's strongest firing is not marked, as in Delphi."""
_MOST_STRENGTHS = 5


def plain(shown: Shown) -> str:
    """The window on one line; line breaks as ``⏎``."""
    return _one_line(shown.text)


def marked(shown: Shown, tokens: Collection[int] | None = None) -> str:
    """The window on one line with marks around tokens; neighbours share one pair.

    Args:
        shown: the example.
        tokens: places in ``shown.tokens``; None for those that fire strongly enough.
    """
    if tokens is None:
        least = LEAST_SHARE * shown.peak
        tokens = {place for place, (_, value) in enumerate(shown.tokens) if value > 0 and value >= least}
    parts: list[str] = []
    inside = False
    for place, (text, _) in enumerate(shown.tokens):
        if (place in tokens) != inside:
            inside = not inside
            mark = "<<" if inside else ">>"
            space = text[: len(text) - len(text.lstrip(" "))] if inside else ""
            parts.append(space + mark)
            text = text[len(space) :]
        parts.append(text)
    return _one_line("".join(parts) + (">>" if inside else ""))


def strengths(shown: Shown, largest: float) -> str:
    """The strongest tokens of a window with their strength, in the order of the text: ``"winter" 10, "snow" 4``."""
    firing = sorted(
        (place for place, (_, value) in enumerate(shown.tokens) if value > 0), key=lambda p: -shown.tokens[p][1]
    )
    told = []
    for place in sorted(firing[:_MOST_STRENGTHS]):
        text, value = shown.tokens[place]
        told.append(f'"{_one_line(text).strip()}" {max(1, math.ceil(SCALE * min(value / max(largest, 1e-12), 1.0)))}')
    return ", ".join(told)


def numbered(lines: Sequence[str]) -> str:
    """Lines with their numbers, from 1."""
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def _one_line(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\n", "⏎").replace("\t", " ")
    return "".join(sign if sign.isprintable() else "�" for sign in text).strip()
