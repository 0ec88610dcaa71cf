"""Labels of features as ``EXPLANATIONS``: JSON lines, one feature a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuronmap.errors import InputError, InvalidManifestError
from neuronmap.zoo.faults import Fault
from neuronmap.zoo.labels import LABELS_FILE, LABELS_FORMAT, label_lines, lines_of
from neuronmap.zoo.packing.package import Package, utc

__all__ = ["label_faults", "pack_labels"]


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
    for line in label_lines(_lines(path), faults):
        score = line.get("score")
        count += line["feature"] not in seen
        seen.add(line["feature"])
        if isinstance(score, int | float) and not isinstance(score, bool):
            scores.append(float(score))
    if faults:
        raise InvalidManifestError(faults, f"The file of labels {path}")
    if not count:
        raise InputError(f"{path} holds no labels.")
    record = {
        "format": LABELS_FORMAT,
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
    """Lines that are no labels of features of the SAE.

    Args:
        file: the lines.
        features: of the SAE, from 0 to one less.
    """
    faults: list[Fault] = []
    for _ in label_lines(_lines(file), faults, features):
        pass
    return faults


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            yield from lines_of(iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
