"""Labels of features as ``EXPLANATIONS``: JSON lines, one feature a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuronmap.errors import InputError, InvalidManifestError
from neuronmap.zoo.digests import SafePath
from neuronmap.zoo.faults import Fault
from neuronmap.zoo.packing.package import Package, utc

__all__ = ["LABELS_FILE", "label_faults", "pack_labels"]

LABELS_FILE = SafePath("labels.jsonl")
_MOST_LINE = 1 << 20


def pack_labels(
    file: str | Path,
    *,
    method: str,
    explainer: str | None = None,
    scorer: str | None = None,
    model: dict[str, Any] | None = None,
    sae_weights: str | None = None,
) -> Package:
    """Labels: each line is an object with ``feature`` (its number) and ``label`` (a text), and ``score`` and more if you like.

    Args:
        file: the lines.
        method: how the explanations came about: rules, llm, people, ...
        explainer: the language model or the group that wrote them.
        scorer: how they were scored.
        model: the language model whose features they explain (a record's ``model``).
        sae_weights: digest of the SAE's weights, by which the dependency is found.

    Raises:
        InvalidManifestError: lists every line that is not of that form.
        InputError: there is no file, or nothing in it.
    """
    path = Path(file)
    count, scores = 0, []
    seen: set[int] = set()
    faults: list[Fault] = []
    for number, line in _lines(path, faults):
        feature, label, score = line.get("feature"), line.get("label"), line.get("score")
        if type(feature) is not int or feature < 0 or not isinstance(label, str) or not label.strip():
            faults.append(Fault(f"line {number}", "a whole number 'feature' and a text 'label' are needed"))
            continue
        count += feature not in seen
        seen.add(feature)
        if isinstance(score, int | float) and not isinstance(score, bool):
            scores.append(float(score))
    if faults:
        raise InvalidManifestError(faults, f"The file of labels {path}")
    if not count:
        raise InputError(f"{path} holds no labels.")
    record = {
        "format": "neuronmap-labels",
        "method": method,
        "explainer": explainer,
        "scorer": scorer,
        "model": model,
        "count": count,
        "metrics": {"score": sum(scores) / len(scores)} if scores else {},
    }
    return Package(
        kind="EXPLANATIONS",
        record={name: value for name, value in record.items() if value is not None},
        files={LABELS_FILE: path},
        created=utc(None, [path]),
        title=f"Labels of {count:,} features, by {method}{f' ({explainer})' if explainer else ''}"[:200],
        sae_weights=sae_weights,
    )


def label_faults(file: Path, features: int) -> list[Fault]:
    """Labels of features that the SAE does not have.

    Args:
        file: the lines, which :func:`pack_labels` took.
        features: of the SAE, from 0 to one less.
    """
    return [
        Fault(f"line {number}", f"feature {line['feature']:,} is none of the SAE: it has {features:,}, counted from 0")
        for number, line in _lines(file, [])
        if line["feature"] >= features
    ]


def _lines(path: Path, faults: list[Fault]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line with its number; those that are no objects are added to the faults."""
    try:
        with open(path, "rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_MOST_LINE), b""), start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                    if not isinstance(value, dict):
                        raise ValueError("it is no object")
                except (ValueError, RecursionError) as error:
                    faults.append(Fault(f"line {number}", f"it is no JSON object ({error})"))
                    continue
                yield number, value
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
