"""Concepts that can be tracked by name: what each asks, and some of its texts."""

from __future__ import annotations

from functools import lru_cache

from pydantic import BaseModel, Field

from neuronmap.concepts import Item, list_concepts

__all__ = ["ConceptLine", "ConceptText", "offered_concepts"]

_ITEMS = 16
_TEXTS = 4


class ConceptText(BaseModel):
    """A text, cut at the word where the model is read."""

    before: str
    word: str = Field(description="The word at whose last token the model is read.")
    after: str
    label: str
    condition: str = Field(description="Level of the factor that cross-condition scores leave out.")


class ConceptLine(BaseModel):
    """One concept."""

    name: str
    family: str = Field(description="Asking for it gives all its concepts.")
    title: str
    contrast: str = Field(description="The question, in a sentence.")
    classes: list[str]
    nuisances: list[str] = Field(description="Factors that vary without the label.")
    crossed: str | None = Field(description="The factor whose levels cross-condition scores leave out.")
    read_rule: str = Field(description="Where the model is read.")
    surface: bool = Field(description="Whether the word that is read shows the class.")
    behaviour: str = Field(description="What causal measurements look at; empty if there is nothing.")
    texts: list[ConceptText] = Field(description="Some of its texts.")


def offered_concepts() -> list[ConceptLine]:
    """Built-in concepts and those of plug-ins, in order.

    Raises:
        PluginError: a plug-in gives something else than a concept.
    """
    return [
        ConceptLine(
            name=concept.name,
            family=concept.family,
            title=concept.title,
            contrast=concept.contrast,
            classes=list(concept.classes),
            nuisances=list(concept.nuisances),
            crossed=concept.crossed,
            read_rule=concept.read_rule,
            surface=concept.surface,
            behaviour=concept.outcome.description if concept.outcome is not None else "",
            texts=list(_texts(concept.name)),
        )
        for concept in list_concepts()
    ]


@lru_cache(maxsize=256)
def _texts(name: str) -> tuple[ConceptText, ...]:
    """The first items of each class; drawn once, since a concept gives the same items each time."""
    (concept,) = [one for one in list_concepts() if one.name == name]
    items = concept.generate(_ITEMS, 0).items
    chosen: list[Item] = []
    for label in concept.classes:
        chosen += [item for item in items if item.label == label][: max(1, _TEXTS // len(concept.classes))]
    return tuple(
        ConceptText(
            before=item.text[: item.span[0]],
            word=item.word,
            after=item.text[item.span[1] :],
            label=item.label,
            condition=item.condition,
        )
        for item in chosen
    )
