"""Labels of features: who said what of which feature, kept as acts that are never changed."""

from __future__ import annotations

from neuronmap.interpretation.labels.acts import (
    BOOKMARKS,
    Act,
    Author,
    Comment,
    Flag,
    Judgement,
    Label,
    Listing,
    Retract,
    Score,
    Verdict,
    Vote,
    is_act,
    read_act,
    stamp,
)

__all__ = [
    "BOOKMARKS",
    "Act",
    "Author",
    "Comment",
    "Flag",
    "Judgement",
    "Label",
    "Listing",
    "Retract",
    "Score",
    "Verdict",
    "Vote",
    "is_act",
    "read_act",
    "stamp",
]
