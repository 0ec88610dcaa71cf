"""One feature as plain JSON: everything that the store knows, texts decoded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from neuronmap.features.storage.store import Example
from neuronmap.paths import public_name

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore

__all__ = ["example_record", "feature_record", "finite", "public_name", "scalar_record"]

_TOKEN_LISTS = ("tokens", "previous_tokens", "next_tokens", "promoted", "suppressed", "input_tokens")


def finite(value: Any) -> Any:
    """The same with NaN and infinities, which JSON has not, as null; also inside lists and dictionaries."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list) else value


def scalar_record(store: FeatureStore, feature: int) -> dict[str, Any]:
    """Numbers and short texts of a feature: its row, and its hint's columns where there is one."""
    record = store.feature(feature)
    hint = {name: value for name, value in (record.hint or {}).items() if name != "feature"}
    found: dict[str, Any] = finite({**record.row, **hint})
    return found


def feature_record(store: FeatureStore, feature: int) -> dict[str, Any]:
    """Everything of a feature; tokens of its lists carry their text."""
    details = {name: value for name, value in store.feature(feature).details.items() if name != "feature"}
    for name in _TOKEN_LISTS:
        details[name] = [{**entry, "text": store.vocabulary.text_of(entry["token"])} for entry in details[name] or []]
    examples = [example_record(example) for example in store.examples(feature)]
    found: dict[str, Any] = finite({**scalar_record(store, feature), **details, "examples": examples})
    return found


def example_record(example: Example) -> dict[str, Any]:
    """An example: where it is, and its window piece by piece (a piece is one token, or several that share a character)."""
    pieces = example.pieces()
    return {
        "kind": example.kind,
        "group": example.group,
        "rank": example.rank,
        "document": example.document,
        "sequence": example.sequence,
        "position": example.position,
        "activation": float(example.activation),
        "peak": next((at for at, piece in enumerate(pieces) if piece.start <= example.peak < piece.stop), 0),
        "pieces": [piece.text for piece in pieces],
        "activations": [
            float(example.activations[piece.start : piece.stop].max()) if piece.stop > piece.start else 0.0
            for piece in pieces
        ],
    }
