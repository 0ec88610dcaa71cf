"""Examples of a feature as they are shown: in tabs, with more or less of the text around."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, Field

from neuronmap.web.tokens import ShownPiece

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuronmap.features.storage.store import Example, FeatureStore

__all__ = ["Around", "Kind", "ShownExample", "shown", "shown_examples"]

Around = Literal["snippet", "window", "full"]
"""How much of the text is shown: a few tokens, the stored window, the whole context."""
Kind = Literal["top", "quantile", "bin", "random", "hard"]

_SNIPPET = (10, 5)


class ShownExample(BaseModel):
    """One example."""

    kind: Kind = Field(description="top, quantile, bin, random or hard.")
    group: int = Field(description="Quantile group or bin; 0 otherwise.")
    rank: int
    activation: float = Field(description="At the peak; 0 for random and hard.")
    document: str = Field(description="Where the text comes from.")
    sequence: int = Field(description="The context.")
    position: int = Field(description="Place of the peak in the context.")
    start: int = Field(description="Place of the first token that is shown.")
    known: tuple[int, int] = Field(description="Places in the context between which activations are stored.")
    peak: int = Field(description="The piece with the peak.")
    pieces: list[ShownPiece]


def shown_examples(store: FeatureStore, feature: int, kind: Kind, around: Around, most: int) -> list[ShownExample]:
    """The first examples of a kind."""
    return [shown(example, around) for example in store.examples(feature, kind)[:most]]


def shown(example: Example, around: Around) -> ShownExample:
    """An example with so much text around its peak. Activations are known in the stored window only; outside they count as 0."""
    known = (example.start, example.start + len(example.token_ids))
    if around != "window":
        example = _cut(example, around)
    pieces = example.pieces()
    masked = ~example.store.kept(example.sequence)[example.start : example.start + len(example.token_ids)]
    return ShownExample(
        kind=example.kind,
        group=example.group,
        rank=example.rank,
        activation=float(example.activation),
        document=example.document,
        sequence=example.sequence,
        position=example.position,
        start=example.start,
        known=known,
        peak=next((at for at, piece in enumerate(pieces) if piece.start <= example.peak < piece.stop), 0),
        pieces=[
            ShownPiece(
                text=piece.text,
                shown=piece.shown,
                value=_most(example.activations[piece.start : piece.stop].tolist()),
                special=piece.special,
                masked=bool(masked[piece.start : piece.stop].any()),
            )
            for piece in pieces
        ],
    )


def _most(values: Sequence[float]) -> float:
    return float(f"{max(values, default=0.0):.5g}")


def _cut(example: Example, around: Around) -> Example:
    ids_T = example.store.context(example.sequence)
    before, after = _SNIPPET if around == "snippet" else (len(ids_T), len(ids_T))
    start, stop = max(0, example.position - before), min(len(ids_T), example.position + after + 1)
    activation_T = np.zeros(len(ids_T), np.float32)
    activation_T[example.start : example.start + len(example.activations)] = example.activations
    return replace(example, start=start, token_ids=ids_T[start:stop], activations=activation_T[start:stop])
