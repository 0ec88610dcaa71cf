"""Saying the same twice: which labels an author has given already. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, select

from neuronmap.interpretation.labels.acts import Label
from neuronmap.interpretation.labels.held import HeldLabel
from neuronmap.interpretation.labels.tables import current

__all__ = ["said_before", "says_the_same"]

_FEATURES = 500
"""In one question to the database."""


def says_the_same(label: Label, other: Label) -> bool:
    """Whether a label adds nothing to another one.

    It does not if all but the time is the same (SAE, feature, side, author, text, explanation, method, evidence), and it is the new wording
    of none, of the same one, or of that other itself.
    """
    return label.model_dump(exclude={"id", "at", "replaces"}) == other.model_dump(
        exclude={"id", "at", "replaces"}
    ) and label.replaces in (None, other.replaces, other.id)


def said_before(connection: Connection, labels: Sequence[Label]) -> dict[str, Label]:
    """Labels whose author has said the same in one that holds, or in an earlier one of these.

    Args:
        connection: to the book.
        labels: by several authors, of several SAEs.

    Returns:
        By id, the label that says it already.
    """
    found: dict[str, Label] = {}
    held = _held(connection, labels)
    for label in sorted(labels, key=lambda one: (one.at, one.id)):
        place = _place(label)
        first = next((one for one in held[place] if one.id != label.id and says_the_same(label, one)), None)
        if first is None:
            held[place].append(label)
        else:
            found[label.id] = first
    return found


_Place = tuple[str, int, str, str, str]


def _place(label: Label) -> _Place:
    return label.sae, label.feature, label.author.kind, label.author.name, label.side


def _held(connection: Connection, labels: Sequence[Label]) -> defaultdict[_Place, list[Label]]:
    """Labels that hold in the places of some labels, the oldest first."""
    found: defaultdict[_Place, list[Label]] = defaultdict(list)
    wanted: defaultdict[tuple[str, str, str], set[int]] = defaultdict(set)
    for label in labels:
        wanted[label.sae, label.author.kind, label.author.name].add(label.feature)
    for (sae, kind, name), numbers in wanted.items():
        features = sorted(numbers)
        for start in range(0, len(features), _FEATURES):
            query = select(current.c.held).where(
                current.c.sae == sae,
                current.c.author_kind == kind,
                current.c.author == name,
                current.c.feature.in_(features[start : start + _FEATURES]),
            )
            for one in connection.scalars(query.order_by(current.c.at, current.c.id)):
                label = HeldLabel.from_dict(one).label
                found[_place(label)].append(label)
    return found
