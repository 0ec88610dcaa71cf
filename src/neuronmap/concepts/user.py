"""Concepts of the user: a small YAML or JSON file, or texts from Python.

Either two lists of texts (``positive`` and ``negative``) or a list of ``items``. The model is read at the last word of a
text, at the last occurrence of a given word, or at ``[[what is marked]]``. Splits are made by cluster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from neuronmap.concepts.checks import checked, faults
from neuronmap.concepts.concept import Concept, Outcome
from neuronmap.concepts.conceptfile import MARKED, ConceptFile, ConceptText, clashes, labelled, located_items, sentences
from neuronmap.concepts.items import ConceptData
from neuronmap.concepts.splitting import assign_splits
from neuronmap.errors import ConfigError

__all__ = ["concept_from_file", "concept_from_items", "concept_from_texts"]

_MOST_BYTES = 20_000_000
_MOST_SHOWN = 20


def concept_from_file(path: str | Path) -> Concept:
    """The concept of a ``.json``, ``.yaml`` or ``.yml`` file.

    Raises:
        ConfigError: the file cannot be read or used; lists all its faults with their place in the file.
    """
    path = Path(path)
    is_json = path.suffix.lower() == ".json"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"{path} is larger than {_MOST_BYTES:,} bytes; a concept file holds some hundred texts.")
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if is_json else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"The concept file {path} cannot be read: {error.strerror or error}.") from None
    except (UnicodeDecodeError, ValueError, yaml.YAMLError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not {'JSON' if is_json else 'YAML'} in UTF-8: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds {type(values).__name__}; a mapping with 'positive' and 'negative', or 'items', is wanted."
        )
    return _concept({"name": re.sub(r"[^\w.-]", "-", path.stem), **values}, str(path))


def concept_from_texts(
    name: str,
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    classes: tuple[str, str] = ("negative", "positive"),
    read: str = "last",
    title: str | None = None,
    contrast: str | None = None,
    outcome: Mapping[str, Sequence[str]] | None = None,
) -> Concept:
    """A concept of positive and negative texts.

    Args:
        name: ``family`` or ``family:variant``.
        positive, negative: texts; ``[[word]]`` in a text marks where it is read.
        classes: names of the negative and of the positive class.
        read: where texts without a mark are read: ``last`` word, or the last occurrence of this word.
        title, contrast, outcome: as in a concept file.

    Raises:
        ConfigError: the texts cannot carry a concept; lists all faults.

    Example:
        >>> warm = [f"today the {noun} feels warm" for noun in ("sea", "air", "sand", "wind", "rock", "roof", "wall", "tea")]
        >>> concept = concept_from_texts("warmth", warm, [text.replace("warm", "cold") for text in warm])
        >>> len(concept.generate(100, 0).items)
        16
    """
    values = {
        "name": name,
        "positive": list(positive),
        "negative": list(negative),
        "classes": list(classes),
        "read": read,
        "title": title,
        "contrast": contrast,
        "outcome": outcome and {label: list(words) for label, words in outcome.items()},
    }
    return _concept(values, f"Concept '{name}'")


def concept_from_items(
    name: str,
    items: Sequence[Mapping[str, Any]],
    *,
    classes: Sequence[str] | None = None,
    read: str = "last",
    title: str | None = None,
    contrast: str | None = None,
    outcome: Mapping[str, Sequence[str]] | None = None,
) -> Concept:
    """A concept of labelled texts.

    Args:
        name: ``family`` or ``family:variant``.
        items: mappings with the keys of :class:`ConceptText`: text, label, and where wanted span, cluster, pair, condition, factors.
        classes: labels in order; by default in order of first appearance.
        read, title, contrast, outcome: as for :func:`concept_from_texts`.

    Raises:
        ConfigError: the items cannot carry a concept; lists all faults.
    """
    values = {
        "name": name,
        "items": [dict(item) for item in items],
        "classes": None if classes is None else list(classes),
        "read": read,
        "title": title,
        "contrast": contrast,
        "outcome": outcome and {label: list(words) for label, words in outcome.items()},
    }
    return _concept(values, f"Concept '{name}'")


def _concept(values: dict[Any, Any], source: str) -> Concept:
    """A concept of checked values; ``source`` begins the error's message."""
    try:
        file = ConceptFile.model_validate(values)
    except ValidationError as error:
        raise _unusable(source, sentences(error)) from None
    found = clashes(file)
    classes, texts, places = labelled(file)
    made, faulty = located_items(file, texts, places)
    found += faulty
    if found:
        raise _unusable(source, found)

    def generate(items: int, seed: int) -> ConceptData:
        if items < 1:
            raise ConfigError(f"items = {items}: at least 1 is needed.")
        return checked(ConceptData(file.name, classes, tuple(assign_splits(made, items, seed))))

    whole = ConceptData(file.name, classes, tuple(assign_splits(made, len(made), 0)))
    found = faults(whole)
    if found:
        raise _unusable(source, found)
    crossed = len(whole.conditions) > 1
    words = [{item.word.lower() for item in made if item.label == label} for label in classes]
    return Concept(
        name=file.name,
        title=file.title or file.name,
        contrast=file.contrast or f"Is it {' or '.join(classes)}?",
        classes=classes,
        nuisances=tuple(made[0].factors),
        crossed="condition" if crossed else None,
        read_rule=_read_rule(file, texts),
        generate=generate,
        outcome=_outcome(file),
        surface=any(found != words[0] for found in words),
    )


def _unusable(source: str, found: Sequence[str]) -> ConfigError:
    shown = [f"\n  - {fault}" for fault in found[:_MOST_SHOWN]]
    more = f"\n  ... and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    return ConfigError(
        f"{source} cannot be used as a concept:{''.join(shown)}{more}",
        hint="What a concept file holds is in docs/how-to/write-a-concept.md.",
    )


def _read_rule(file: ConceptFile, texts: Sequence[ConceptText]) -> str:
    marked = sum(text.span is not None or bool(MARKED.search(text.text)) for text in texts)
    usual = "at the last word of the text" if file.read == "last" else f"at the last '{file.read}' of the text"
    if marked == len(texts):
        return "at the marked words"
    return f"{usual}, or where it is marked" if marked else usual


def _outcome(file: ConceptFile) -> Outcome | None:
    if file.outcome is None:
        return None
    words = {label: tuple(continuations) for label, continuations in file.outcome.items()}
    return Outcome(words, "; ".join(f"{label}: {', '.join(map(repr, found))}" for label, found in words.items()))
