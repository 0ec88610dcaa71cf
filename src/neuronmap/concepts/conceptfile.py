"""What a concept file holds, and where its texts are read.

Either two lists of texts (``positive`` and ``negative``) or a list of ``items``. The model is read at the last word of a
text, at the last occurrence of a given word, or at ``[[what is marked]]``. Every fault is a sentence with its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from neuronmap.concepts.items import Item
from neuronmap.config import FrozenConfig

__all__ = [
    "MARKED",
    "ConceptFile",
    "ConceptText",
    "clashes",
    "concept_schema",
    "labelled",
    "located_items",
    "sentences",
]

MARKED = re.compile(r"\[\[(.+?)\]\]")


class ConceptText(BaseModel):
    """One labelled text."""

    model_config = FrozenConfig.model_config

    text: str
    """What the model reads; ``[[word]]`` marks where it is read."""
    label: str
    """One of the classes."""
    span: tuple[int, int] | None = None
    """Characters [start, stop) that are read, instead of a mark."""
    cluster: str | None = None
    """What the text shares with others, such as its noun; clusters are never in two splits. Default: the text."""
    pair: str | None = None
    """Texts of one pair differ in the class only."""
    condition: str | None = None
    """Level of the factor that cross-condition scores leave out; for all texts or none."""
    factors: dict[str, str] = Field(default_factory=dict)
    """Levels of other factors that vary without the label; the same names for all texts."""


class ConceptFile(BaseModel):
    """What a concept file holds."""

    model_config = FrozenConfig.model_config

    name: str = Field(pattern=r"^[\w.-]+(:[\w.-]+)?$")
    """``family`` or ``family:variant``; by default the file's name."""
    title: str | None = None
    """What plots show; by default the name."""
    contrast: str | None = None
    """The question, in a sentence."""
    classes: list[str] | None = None
    """Labels in order; of two the second is the positive one."""
    read: str = Field(default="last", min_length=1)
    """Where texts without mark or span are read: ``last`` word, or the last occurrence of this word."""
    positive: list[str] | None = None
    """Texts of the second class."""
    negative: list[str] | None = None
    """Texts of the first class."""
    items: list[ConceptText] | None = None
    """Labelled texts, instead of ``positive`` and ``negative``."""
    outcome: dict[str, list[str]] | None = None
    """Words that come next, by class, with their leading space; for causal measurements."""


def concept_schema() -> dict[str, Any]:
    """JSON schema of concept files."""
    return ConceptFile.model_json_schema()


def sentences(error: ValidationError) -> list[str]:
    """One sentence for each fault, with its place."""
    found = []
    for fault in error.errors():
        *outer, last = fault["loc"] or ("",)
        owner = ConceptText if len(outer) > 1 and outer[0] == "items" else ConceptFile
        place = _place(fault["loc"])
        if fault["type"] == "extra_forbidden":
            found.append(
                f"{_place(outer) or 'the top level'} has an unknown key '{last}'; keys: {', '.join(owner.model_fields)}."
            )
        elif fault["type"] == "missing":
            found.append(f"{place} is missing.")
        else:
            message = fault["msg"][:1].lower() + fault["msg"][1:]
            quoted = (
                " (in YAML, put yes, no, on, off and numbers into quotes)" if fault["type"] == "string_type" else ""
            )
            found.append(f"{place} = {str(fault['input'])[:80]!r}: {message}{quoted}.")
    return found


def _place(parts: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def clashes(file: ConceptFile) -> list[str]:
    """Faults of fields that do not go together."""
    found = []
    lists = file.positive is not None and file.negative is not None
    if file.items is not None and (file.positive is not None or file.negative is not None):
        found.append("'items' stands beside 'positive' or 'negative'; give one or the other.")
    elif file.items is None and not lists:
        found.append("texts are missing: give 'positive' and 'negative', or 'items'.")
    classes = file.classes
    if classes is not None and (len(classes) < 2 or len(set(classes)) < len(classes)):
        found.append(f"classes = {classes}: at least 2 different ones are needed.")
    elif classes is not None and file.items is None and len(classes) != 2:
        found.append(f"classes = {classes}: 'positive' and 'negative' are two classes; name the negative one first.")
    if file.outcome is not None:
        known = list(labelled(file)[0])
        if sorted(file.outcome) != sorted(known) or not all(file.outcome.values()):
            found.append(f"outcome has words for {list(file.outcome)}; every class needs some: {known}.")
        elif len({len(words) for words in file.outcome.values()}) > 1:
            counts = ", ".join(f"{label} {len(words)}" for label, words in file.outcome.items())
            found.append(
                f"outcome has different numbers of words ({counts}); the first of one class stands against the first of another."
            )
    return found


def labelled(file: ConceptFile) -> tuple[tuple[str, ...], list[ConceptText], list[str]]:
    """Classes, labelled texts, and the place of each in the file."""
    if file.items is not None:
        classes = file.classes or list(dict.fromkeys(item.label for item in file.items))
        return tuple(classes), file.items, [f"items[{index}]" for index in range(len(file.items))]
    pair = file.classes if file.classes and len(file.classes) == 2 else ["negative", "positive"]
    texts, places = [], []
    for field, label in (("negative", pair[0]), ("positive", pair[1])):
        for index, text in enumerate(getattr(file, field) or []):
            texts.append(ConceptText(text=text, label=label))
            places.append(f"{field}[{index}]")
    return tuple(pair), texts, places


def located_items(
    file: ConceptFile, texts: Sequence[ConceptText], places: Sequence[str]
) -> tuple[list[Item], list[str]]:
    """Items (split still to be made) and faults of single texts."""
    made: list[Item] = []
    found: list[str] = []
    with_condition = any(text.condition is not None for text in texts)
    for index, (given, place) in enumerate(zip(texts, places, strict=True)):
        if set(given.factors) != set(texts[0].factors):
            found.append(
                f"{place}.factors has {sorted(given.factors)}, {places[0]}.factors {sorted(texts[0].factors)}."
            )
        if with_condition and given.condition is None:
            found.append(f"{place} has no condition, others have one; give it for all or for none.")
        if file.classes is not None and given.label not in file.classes:
            found.append(f"{place}.label = '{given.label}' is no class; classes: {', '.join(file.classes)}.")
        text, span, fault = _located(given, file.read)
        if fault:
            found.append(f"{place}: {fault}")
        factors = {"condition": given.condition, **given.factors} if given.condition is not None else given.factors
        made.append(
            Item(
                text=text,
                label=given.label,
                span=span,
                cluster=given.cluster if given.cluster is not None else text,
                pair=f"pair {given.pair}" if given.pair is not None else f"item {index}",
                condition=given.condition or "all",
                split="train",
                factors=factors,
            )
        )
    return made, found


def _located(given: ConceptText, read: str) -> tuple[str, tuple[int, int], str]:
    """Text without marks, what is read, and a fault (empty if there is none)."""
    text = given.text
    marks = list(MARKED.finditer(text))
    nowhere = (0, 0)
    if not text.strip():
        return text, nowhere, "the text is empty."
    if len(marks) > 1:
        return text, nowhere, f"{len(marks)} places are marked with [[ ]]; one is wanted."
    if given.span is not None:
        start, stop = given.span
        if marks:
            return text, nowhere, "it has both a span and a mark; give one."
        if not 0 <= start < stop <= len(text):
            return text, nowhere, f"span {list(given.span)} lies outside the text ({len(text)} characters)."
        return text, given.span, "" if text[start:stop].strip() else f"span {list(given.span)} holds only spaces."
    if marks:
        start, word = marks[0].start(), marks[0].group(1)
        stripped = text[:start] + word + text[marks[0].end() :]
        return stripped, (start, start + len(word)), "" if word.strip() else "the mark [[ ]] holds only spaces."
    pattern = r"\S+" if read == "last" else rf"(?<!\w){re.escape(read)}(?!\w)"
    places = list(re.finditer(pattern, text))
    if not places:
        return text, nowhere, f"the word '{read}' that is to be read is not in the text."
    return text, places[-1].span(), ""
