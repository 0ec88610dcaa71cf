"""What a concept's data cannot carry, found without a model.

Faults make the data unusable and are errors. Warnings are sentences in :attr:`ConceptData.warnings`: few clusters, words
that alone tell the classes apart, length or position that do, read words that differ, no condition to leave out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from neuronmap.concepts.items import SPLITS, ConceptData, Item
from neuronmap.errors import ConfigError

__all__ = ["FEWEST_CLUSTERS", "FEWEST_ITEMS", "SUSPICIOUS_AUC", "checked", "faults", "warnings"]

FEWEST_ITEMS = 16
FEWEST_CLUSTERS = 20
SUSPICIOUS_AUC = 0.6

_LENGTHS: dict[str, Callable[[Item], int]] = {
    "the number of words before the read word": lambda item: len(item.text[: item.span[0]].split()),
    "the number of characters before the read word": lambda item: item.span[0],
    "the number of words of the text": lambda item: len(item.text.split()),
    "the number of characters of the text": lambda item: len(item.text),
}


def checked(data: ConceptData) -> ConceptData:
    """The same data with its warnings.

    Raises:
        ConfigError: the data cannot be used; lists all its faults.
    """
    found = faults(data)
    if found:
        raise ConfigError(f"The data of concept '{data.name}' cannot be used: {' '.join(found)}")
    return replace(data, warnings=warnings(data))


def faults(data: ConceptData) -> list[str]:
    """What makes the data unusable, in sentences; empty if nothing does."""
    found = []
    items = data.items
    if len(set(data.classes)) < 2:
        found.append(f"It has {len(set(data.classes))} class ({', '.join(data.classes)}); at least 2 are needed.")
    if len(items) < FEWEST_ITEMS:
        found.append(f"It has {len(items)} items; at least {FEWEST_ITEMS} are needed.")
    strangers = sorted({item.label for item in items} - set(data.classes))
    if strangers:
        found.append(
            f"Items have labels that are no class: {', '.join(strangers)}; classes: {', '.join(data.classes)}."
        )
    present = {(item.label, item.split) for item in items}
    for label in data.classes:
        lacking = [split for split in SPLITS if (label, split) not in present]
        if lacking:
            found.append(
                f"Class '{label}' has no items in {' and '.join(lacking)}; every class needs at least 3 clusters of its own."
            )
    found += _first("{} of its texts are empty, the first is item {}.", items, lambda item: not item.text.strip())
    found += _first("{} spans lie outside their texts, the first is item {}.", items, _misplaced)
    if items and all(item.span[0] == 0 for item in items):
        found.append("Every text is read at its very beginning, where a model knows nothing yet; put words before it.")
    found += _split_apart("clusters", items, lambda item: item.cluster, lambda item: item.split)
    found += _split_apart("pairs", items, lambda item: item.pair, lambda item: item.split)
    found += _split_apart("texts", items, lambda item: (item.text, item.span), lambda item: item.label, "labels")
    return found


def _first(sentence: str, items: Sequence[Item], wrong: Callable[[Item], bool]) -> list[str]:
    where = [index for index, item in enumerate(items) if wrong(item)]
    return [sentence.format(len(where), where[0])] if where else []


def _misplaced(item: Item) -> bool:
    start, stop = item.span
    return not 0 <= start < stop <= len(item.text) or not item.word.strip()


def _split_apart(
    what: str, items: Iterable[Item], key: Callable[[Item], object], value: Callable[[Item], str], of: str = "splits"
) -> list[str]:
    """A sentence if one key has several values."""
    values: dict[object, set[str]] = {}
    for item in items:
        values.setdefault(key(item), set()).add(value(item))
    apart = [name for name, found in values.items() if len(found) > 1]
    if not apart:
        return []
    shown = apart[0][0] if isinstance(apart[0], tuple) else apart[0]
    return [f"{len(apart)} {what} have two {of}, such as '{shown}' ({' and '.join(sorted(values[apart[0]]))})."]


def warnings(data: ConceptData) -> tuple[str, ...]:
    """What the data cannot carry, in sentences."""
    found = []
    clusters = len(data.clusters("test"))
    if clusters < FEWEST_CLUSTERS:
        found.append(
            f"Only {clusters} clusters in the test split (fewer than {FEWEST_CLUSTERS}): intervals will be wide, and small effects "
            "cannot be told from chance."
        )
    bag = _bag_of_words_auc(data)
    if bag > SUSPICIOUS_AUC:
        found.append(f"The words alone tell the classes apart (AUC {bag:.2f}): a bag of words passes too.")
    name, auc = max(((name, _worst_auc(data, count)) for name, count in _LENGTHS.items()), key=lambda pair: pair[1])
    if auc > SUSPICIOUS_AUC:
        found.append(f"Length or position tells the classes apart: {name} does with AUC {auc:.2f}.")
    if _read_words_differ(data):
        found.append("The words that are read differ between the classes: the embedding alone may show the class.")
    at_start = sum(item.span[0] == 0 for item in data.items)
    if at_start:
        found.append(
            f"{at_start} of {len(data.items)} items are read at the first word, which models treat unlike any other."
        )
    gap = _crossing_gap(data)
    if gap:
        found.append(f'A cross-condition score is not available, the concept can only be found "within": {gap}.')
    return tuple(found)


def _read_words_differ(data: ConceptData) -> bool:
    words = [{item.word.lower() for item in data.items if item.label == label} for label in data.classes]
    return any(found != words[0] for found in words)


def _crossing_gap(data: ConceptData) -> str:
    """Why no condition can be left out; empty if one can."""
    if len(data.conditions) < 2:
        return "there is no nuisance factor to leave out"
    present = {(item.condition, item.label, item.split) for item in data.items}
    for condition in data.conditions:
        for split in ("train", "test"):
            for label in data.classes:
                if (condition, label, split) not in present:
                    return f"condition '{condition}' has no items of class '{label}' in {split}"
    return ""


def _worst_auc(data: ConceptData, measure: Callable[[Item], int]) -> float:
    """How well one number tells any class from the others, in either direction."""
    scores = [float(measure(item)) for item in data.items]
    found = [_auc(scores, [item.label == label for item in data.items]) for label in data.classes]
    return max(max(auc, 1 - auc) for auc in found)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+|[^\w\s]", text.lower()))


def _bag_of_words_auc(data: ConceptData) -> float:
    """Naive Bayes on the words of the train split, tested on the test split; mean over classes against the rest."""
    counts = {label: Counter[str]() for label in data.classes}
    totals = Counter[str]()
    for item in data.items:
        if item.split == "train":
            counts[item.label].update(_words(item.text))
            totals[item.label] += 1
    tested = [item for item in data.items if item.split == "test"]
    known = set().union(*counts.values())
    bags = [_words(item.text) & known for item in tested]
    found = []
    for label in data.classes:
        rest = [other for other in data.classes if other != label]
        of_rest = sum((counts[other] for other in rest), Counter[str]())
        n_rest = sum(totals[other] for other in rest)
        weights = {
            word: math.log((counts[label][word] + 1) / (totals[label] + 2))
            - math.log((of_rest[word] + 1) / (n_rest + 2))
            for word in known
        }
        # rounding keeps equal bags equal, whatever the order of their sums
        scores = [round(math.fsum(weights[word] for word in bag), 9) for bag in bags]
        found.append(_auc(scores, [item.label == label for item in tested]))
    return sum(found) / len(found)


def _auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Area under the ROC curve, ties count half; 0.5 where one side is empty."""
    order = sorted(range(len(scores)), key=lambda index: scores[index])
    ranks = [0.0] * len(scores)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and scores[order[stop]] == scores[order[start]]:
            stop += 1
        for place in range(start, stop):
            ranks[order[place]] = (start + stop + 1) / 2
        start = stop
    n_positive = sum(positive)
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return 0.5
    total = sum(rank for rank, is_positive in zip(ranks, positive, strict=True) if is_positive)
    return (total - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
