"""Labels of features: JSON lines. Read the same way where they are packed and where they are published.

A line is a plain label, ``{"feature": 7, "label": "colours"}``, or an act of a book of labels (:mod:`neuronmap.interpretation.labels`):
a label with its author and history, a score with its judgements, a vote, a comment, ...
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from neuronmap.errors import NeuronMapError
from neuronmap.interpretation.labels.acts import is_act, read_act
from neuronmap.zoo.digests import SafePath
from neuronmap.zoo.faults import Fault

__all__ = ["LABELS_FILE", "LABELS_FORMAT", "label_lines", "lines_of"]

LABELS_FILE = SafePath("labels.jsonl")
LABELS_FORMAT = "neuronmap-labels"
_MOST_LINE = 1 << 20
_MOST_FAULTS = 1000


def lines_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of a file that comes in pieces; of one that is longer than a MiB, its first MiB or so."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
        if len(rest) > _MOST_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest


def label_lines(
    lines: Iterable[bytes], faults: list[Fault], features: int | None = None, sae: str | None = None
) -> Iterator[dict[str, Any]]:
    """Each label, an object with ``feature`` (its number) and ``label`` (a text), and each act, whose id is that of what it says.

    Args:
        lines: of the file.
        faults: those of lines that are neither are added here, 1,000 at most.
        features: how many the SAE has; None where that is not known.
        sae: digest of its weights, which every act must name; None where that is not known: then all must name the same.
    """
    for number, line in enumerate(lines, start=1):
        if len(faults) >= _MOST_FAULTS:
            return
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("it is no object")
        except (ValueError, RecursionError) as error:
            faults.append(Fault(place, f"it is no JSON object ({error})"))
            continue
        feature: Any = value.get("feature")
        label = value.get("label")
        if is_act(value):
            fault = _act_fault(value, sae)
            if fault:
                faults.append(Fault(place, fault))
                continue
            sae, feature = str(value["sae"]), int(value["feature"])
        elif type(feature) is not int or feature < 0 or not isinstance(label, str) or not label.strip():
            faults.append(Fault(place, "a whole number 'feature' and a text 'label' are needed"))
            continue
        if features is not None and feature >= features:
            faults.append(Fault(place, f"feature {feature:,} is none of the SAE: it has {features:,}, counted from 0"))
        else:
            yield value


def _act_fault(value: dict[str, Any], sae: str | None) -> str:
    """What is wrong with an act; empty for nothing."""
    try:
        act = read_act(value)
    except NeuronMapError as error:
        return f"{error.message} {error.hint}".strip()
    if sae is not None and act.sae != sae:
        return f"it is of the SAE with the weights {act.sae[:19]}..., not {sae[:19]}..."
    return ""
