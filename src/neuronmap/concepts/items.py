"""What a concept's data is made of: items, and the data set with its digest.

Offsets are characters of the item's text, as Python counts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from neuronmap.hashing import digest_json

__all__ = ["SPLITS", "ConceptData", "Item", "Split"]

Split = Literal["train", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")


@dataclass(frozen=True, slots=True)
class Item:
    """One text with a label and the place where the model is read.

    Attributes:
        text: what the model reads.
        label: one of the concept's classes.
        span: characters [start, stop) of the word that is read; the model is read at its last token.
        cluster: what is drawn and split as a whole, such as the lemma. No cluster is in two splits.
        pair: items of one pair differ in the contrast, and in nothing else that a pair can share.
        condition: level of the factor that cross-condition scores leave out, such as the construction.
        split: which part of the data it belongs to.
        factors: level of every nuisance factor, by its name.
    """

    text: str
    label: str
    span: tuple[int, int]
    cluster: str
    pair: str
    condition: str
    split: Split
    factors: Mapping[str, str] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """The word that is read."""
        return self.text[self.span[0] : self.span[1]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all fields."""
        return {
            "text": self.text,
            "label": self.label,
            "span": list(self.span),
            "cluster": self.cluster,
            "pair": self.pair,
            "condition": self.condition,
            "split": self.split,
            "factors": dict(self.factors),
        }


@dataclass(frozen=True)
class ConceptData:
    """Items of one concept.

    Attributes:
        name: the concept's name.
        classes: labels in order; with two of them the second is the positive one.
        items: all items, of all splits.
        warnings: what the data cannot carry, in sentences.
    """

    name: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    warnings: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """``sha256:<hex>`` over name, classes and every item."""
        return digest_json([self.name, list(self.classes), [item.to_dict() for item in self.items]])

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """Levels of the factor that is left out, in order of first appearance."""
        return tuple(dict.fromkeys(item.condition for item in self.items))

    def clusters(self, split: Split) -> tuple[str, ...]:
        """Clusters of one split, in order of first appearance."""
        return tuple(dict.fromkeys(item.cluster for item in self.items if item.split == split))

    def counts(self, names: Sequence[str] = ("label", "condition", "split")) -> Counter[tuple[str, ...]]:
        """How many items there are of each combination of some fields (``factors`` by their names)."""
        return Counter(
            tuple(str(getattr(item, name)) if hasattr(item, name) else item.factors[name] for name in names)
            for item in self.items
        )
