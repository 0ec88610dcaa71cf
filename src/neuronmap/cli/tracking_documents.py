"""The JSON documents about concepts and reports of the tracker."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from neuronmap.abstraction.record import TrackingReport
from neuronmap.cli.document import Document

__all__ = ["ConceptsDocument", "DeleteReportDocument", "ReportDocument", "ReportsDocument"]


class ReportDocument(Document):
    """``neuronmap sae track-abstractions`` and ``neuronmap sae show-report``."""

    schema_name: Literal["neuronmap/sae.track-abstractions/1", "neuronmap/sae.show-report/1"] = Field(alias="schema")
    report: TrackingReport
    """The whole record."""
    path: str | None
    """Folder of the kept report; null with ``--no-keep``."""
    file: str | None
    """File that was written; null with ``--format table``."""


class ReportRecord(Document):
    """One kept report."""

    name: str
    """Its name."""
    path: str
    """Its folder."""
    model: str
    """Language model."""
    created: str
    """ISO 8601, UTC."""
    preset: str
    """quick, full or custom."""
    concepts: list[str]
    """Names of the concepts."""
    prompts: int
    """How many prompts it follows."""
    flow: bool
    """Whether it follows features."""
    verdicts: dict[str, int]
    """How many concepts have each verdict."""
    problem: str
    """Why it cannot be read; empty for sound ones."""


class ReportsDocument(Document):
    """``neuronmap sae list-reports``."""

    schema_name: Literal["neuronmap/sae.list-reports/1"] = Field(alias="schema")
    folder: str
    """Folder of all reports."""
    reports: list[ReportRecord]
    """The newest first."""


class DeleteReportDocument(Document):
    """``neuronmap sae delete-report``."""

    schema_name: Literal["neuronmap/sae.delete-report/1"] = Field(alias="schema")
    deleted: str
    """Name of the report that is gone."""


class ConceptRecord(Document):
    """One concept, with the data that was asked for."""

    name: str
    """``family`` or ``family:variant``."""
    title: str
    """As plots show it."""
    contrast: str
    """The question, in a sentence."""
    classes: list[str]
    """Labels; with two of them the second is the positive one."""
    nuisances: list[str]
    """What varies without the label."""
    crossed: str | None
    """The nuisance whose levels are left out one at a time; null if there is none."""
    read_rule: str
    """Where the model is read."""
    surface: bool
    """Whether the word that is read shows the class."""
    items: int
    """Items that the generator gave."""
    clusters: dict[str, int]
    """Clusters in each split."""
    conditions: list[str]
    """Levels of the crossed nuisance."""
    digest: str
    """SHA-256 of the items."""
    warnings: list[str]
    """What the data cannot carry."""
    examples: list[dict[str, Any]]
    """A few items."""


class ConceptsDocument(Document):
    """``neuronmap sae list-concepts``."""

    schema_name: Literal["neuronmap/sae.list-concepts/1"] = Field(alias="schema")
    concepts: list[ConceptRecord]
    """Those that were asked for."""
