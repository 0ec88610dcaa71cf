"""What a concept is: a contrast, the nuisances it must not be mistaken for, where the model is read, and a generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neuronmap.concepts.items import ConceptData

__all__ = ["Concept", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What the model says when it holds the concept: the behaviour that causal measurements look at.

    Attributes:
        continuations: words that come next, by class; the first of one class stands against the first of another, and so on.
        description: one line, such as "is or are after the subject".
    """

    continuations: dict[str, tuple[str, ...]]
    description: str


@dataclass(frozen=True)
class Concept:
    """A contrast that can be looked for in a model.

    Attributes:
        name: ``family`` or ``family:variant``; asking for a family gives all its variants.
        title: what plots and tables show.
        contrast: the question, in a sentence.
        classes: labels in order; with two of them the second is the positive one.
        nuisances: names of the factors that vary without the label.
        crossed: the nuisance whose levels cross-condition scores leave out, one at a time; None if there is none, and then
            the concept can only be found "within".
        read_rule: where the model is read, in a sentence.
        generate: (items wanted, seed) -> data; the same arguments give the same items.
        outcome: the behaviour for causal measurements; None if there is none.
        surface: whether the word that is read shows the class, so that it is expected at the embedding.
    """

    name: str
    title: str
    contrast: str
    classes: tuple[str, ...]
    nuisances: tuple[str, ...]
    crossed: str | None
    read_rule: str
    generate: Callable[[int, int], ConceptData]
    outcome: Outcome | None = None
    surface: bool = False

    @property
    def family(self) -> str:
        """The name without its variant."""
        return self.name.partition(":")[0]

    def to_dict(self) -> dict[str, Any]:
        """What a record keeps of it, in plain JSON types."""
        return {
            "name": self.name,
            "title": self.title,
            "contrast": self.contrast,
            "classes": list(self.classes),
            "nuisances": list(self.nuisances),
            "crossed": self.crossed,
            "read_rule": self.read_rule,
            "surface": self.surface,
        }
