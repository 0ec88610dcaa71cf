"""Words that texts are drawn from."""

from __future__ import annotations

WORDS = [
    "the",
    "river",
    "froze",
    "in",
    "winter",
    "and",
    "children",
    "walked",
    "across",
    "it",
    "to",
    "school",
    "while",
    "numbers",
    "such",
    "as",
    "12",
    "were",
    "written",
]
