"""A feature's label with what speaks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from neuronmap.features.export.records import finite

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureRecord

__all__ = ["LabelEvidence", "Score", "label_evidence"]


class Score(BaseModel):
    """A score with its 95 % interval."""

    name: str
    value: float | None
    low: float | None
    high: float | None


class LabelEvidence(BaseModel):
    """A label, the rule behind it, and how well the rule predicts firing on text that it was not made from."""

    label: str = Field(description="Empty if there is none.")
    output_label: str = Field(description="What it promotes; empty if there is none.")
    rule: str = Field(description="The rule in words.")
    scores: list[Score] = Field(description="Precision, recall, F1; empty where the rule was not scored.")
    positives: int | None = Field(description="Held-out firings that it was scored on.")
    predicted: int | None = Field(description="Held-out tokens that the rule calls firing.")
    note: str = Field(description="What a reader should know.")
    hints: bool = Field(description="Whether the analysis has hints at all.")


def label_evidence(record: FeatureRecord) -> LabelEvidence:
    """The label of a feature and its evidence."""
    hint = finite(record.hint or {})
    names = {"precision": "precision", "recall": "recall", "f1": "F1"}
    scored = hint.get("f1") is not None or hint.get("precision") is not None or hint.get("recall") is not None
    return LabelEvidence(
        label=record.label,
        output_label=str(hint.get("output_label") or ""),
        rule=str(hint.get("rule") or ""),
        scores=[
            Score(name=said, value=hint.get(name), low=hint.get(f"{name}_low"), high=hint.get(f"{name}_high"))
            for name, said in names.items()
        ]
        if scored
        else [],
        positives=hint.get("positives"),
        predicted=hint.get("predicted"),
        note=str(hint.get("note") or ""),
        hints=record.hint is not None,
    )
