"""The JSON documents of ``neuronmap sae labels``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from neuronmap.cli.document import Document

__all__ = ["LABEL_DOCUMENTS"]


class LabelRecord(Document):
    """A label that holds, with what was said of it."""

    label: dict[str, Any]
    """The act: author, time, side, text, explanation, method, evidence, the wording that it replaces, id."""
    scores: list[dict[str, Any]]
    """Newest scores of each author and protocol: value, interval, figures; without judgements."""
    votes: list[dict[str, Any]]
    """Votes for (1) and against it (-1), with their authors."""
    flags: list[dict[str, Any]]
    """Flags on it, with reasons and authors."""
    comments: int
    """Comments on it."""
    wordings: int
    """Wordings that it had, this one included."""
    others: list[str]
    """Labels of the same feature and side, by other authors, that say something else."""
    up: int
    """Votes for it, without the author's own."""
    down: int
    """Votes against it, without the author's own."""
    conflict: bool
    """Whether somebody disagrees with it."""


class LabelsDocument(Document):
    """``neuronmap sae labels list``."""

    schema_name: Literal["neuronmap/sae.labels.list/1"] = Field(alias="schema")
    sae: str
    """Name in the library."""
    weights: str
    """Digest of its weights, by which labels know it."""
    total: int
    """How many fit."""
    labels: list[LabelRecord]
    """Those that are shown."""


class LabelAddDocument(Document):
    """``neuronmap sae labels add``."""

    schema_name: Literal["neuronmap/sae.labels.add/1"] = Field(alias="schema")
    sae: str
    """Name in the library."""
    label: dict[str, Any]
    """The act."""


class LabelHistoryDocument(Document):
    """``neuronmap sae labels history``."""

    schema_name: Literal["neuronmap/sae.labels.history/1"] = Field(alias="schema")
    sae: str
    """Name in the library."""
    feature: int
    """Number of the feature."""
    acts: list[dict[str, Any]]
    """All acts, the oldest first."""
    holding: list[str]
    """Ids of those that were neither replaced nor taken back."""


class LabelConflict(Document):
    """Labels of one feature and side that somebody disagrees about."""

    feature: int
    """Number of the feature."""
    side: str
    """input or output."""
    labels: list[LabelRecord]
    """All labels of that side, the one that is shown in tables first."""


class LabelConflictsDocument(Document):
    """``neuronmap sae labels conflicts``."""

    schema_name: Literal["neuronmap/sae.labels.conflicts/1"] = Field(alias="schema")
    sae: str
    """Name in the library."""
    conflicts: list[LabelConflict]
    """By number of the feature."""


class LabelExportDocument(Document):
    """``neuronmap sae labels export``."""

    schema_name: Literal["neuronmap/sae.labels.export/1"] = Field(alias="schema")
    sae: str
    """Name in the library."""
    path: str
    """The file."""
    acts: int
    """Lines in it."""


class LabelMergeDocument(Document):
    """``neuronmap sae labels import`` and ``merge-report``."""

    schema_name: Literal["neuronmap/sae.labels.import/1", "neuronmap/sae.labels.merge-report/1"] = Field(alias="schema")
    sae: str
    """Name in the library."""
    source: str
    """File, or reference in the zoo."""
    read: int
    """Acts in it."""
    new: int
    """Of them, not in the book before."""
    by_kind: dict[str, int]
    """New ones of each kind."""
    features: int
    """Features that something new is said of."""
    authors: list[str]
    """Whose acts are new: kind and name."""
    pending: int
    """New ones about labels that are not in the book; they count when those come."""
    conflicts: list[int]
    """Features that somebody disagrees about now and nobody did before."""
    settled: list[int]
    """Features that nobody disagrees about any more."""
    rehearsal: bool
    """Whether nothing was written."""


LABEL_DOCUMENTS: dict[str, type[Document]] = {
    "sae labels list": LabelsDocument,
    "sae labels add": LabelAddDocument,
    "sae labels history": LabelHistoryDocument,
    "sae labels conflicts": LabelConflictsDocument,
    "sae labels export": LabelExportDocument,
    "sae labels import": LabelMergeDocument,
    "sae labels merge-report": LabelMergeDocument,
}
"""By command."""
