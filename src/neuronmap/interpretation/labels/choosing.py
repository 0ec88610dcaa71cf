"""Which labels, and in which order: what a caller asks as SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func

from neuronmap.errors import ConfigError
from neuronmap.interpretation.labels.tables import current

__all__ = ["SORTS", "conditions", "holding", "order_by"]

SORTS = ("feature", "text", "author", "method", "score", "votes", "at")
"""What labels may be ordered by; with - in front from the largest down. Those without a score come last when the largest are first."""
_MOST_WORDS = 20


def conditions(
    sae: str,
    feature: int | None,
    side: str | None,
    author_kind: str | None,
    author: str | None,
    method: str | None,
    text: str,
    conflict: bool | None,
    min_low: float | None,
) -> list[ColumnElement[bool]]:
    equal = {"feature": feature, "side": side, "author_kind": author_kind, "author": author, "method": method}
    asked = [current.c.sae == sae, *(current.c[name] == value for name, value in equal.items() if value is not None)]
    if conflict is not None:
        asked.append(current.c.conflict if conflict else ~current.c.conflict)
    if min_low is not None:
        asked.append(current.c.low >= min_low)
    return [*asked, *holding(text)]


def holding(text: str) -> list[ColumnElement[bool]]:
    words = text.casefold().split()
    if len(words) > _MOST_WORDS:
        raise ConfigError(f"{len(words)} words are searched for; {_MOST_WORDS} are allowed.")
    return [current.c.searched.contains(word.replace("\0", ""), autoescape=True) for word in words]


def order_by(sort: str) -> tuple[ColumnElement[Any], bool]:
    name = sort.removeprefix("-")
    if name not in SORTS:
        raise ConfigError(
            f"Labels cannot be sorted by {name[:40]!r}.",
            hint=f"By {', '.join(SORTS)}; - in front: from the largest down.",
        )
    by: dict[str, ColumnElement[Any]] = {
        "score": func.coalesce(current.c.value, -2.0),
        "votes": current.c.up - current.c.down,
    }
    return by.get(name, current.c.get(name, current.c.feature)), sort.startswith("-")
