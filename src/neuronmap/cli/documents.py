"""The JSON documents that ``--json`` prints, one model a command; ``neuronmap schema`` prints their JSON schemas.

The name in ``schema`` ends in a version; a field is never removed or changed in meaning within a version.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from neuronmap.cli.bucket_documents import HarvestDocument, PullDocument, PushDocument
from neuronmap.cli.cache_documents import CacheCleanDocument, CacheListDocument
from neuronmap.cli.document import Document as _Document
from neuronmap.cli.explain_documents import EXPLAIN_DOCUMENTS
from neuronmap.cli.label_documents import LABEL_DOCUMENTS
from neuronmap.cli.plan_document import PlanDocument
from neuronmap.cli.sweep_documents import SweepDocument
from neuronmap.cli.tracking_documents import (
    ConceptsDocument,
    DeleteReportDocument,
    ReportDocument,
    ReportsDocument,
)
from neuronmap.cli.zoo_documents import ZOO_DOCUMENTS
from neuronmap.hub.leaderboard_record import Leaderboard
from neuronmap.jobs.job import Job

__all__ = ["DOCUMENTS"]


class SAERecord(_Document):
    """One SAE of the library."""

    id: str
    """Name in the library."""
    path: str
    """Folder of the bundle."""
    architecture: str
    """relu, gated, topk, batchtopk, jumprelu, matryoshka, lista, or a plug-in's."""
    d_in: int
    """Width of the activation."""
    d_sae: int
    """Number of features."""
    k: int | None
    """Active features per activation, where the architecture has a k."""
    model: str | None
    """Language model."""
    revision: str | None
    """Its revision, for hub models."""
    layer: int | None
    """Block, counted from 0."""
    component: str | None
    """Component of the block."""
    hook: str | None
    """Exact hook point."""
    tags: list[str]
    """Free words."""
    created: str | None
    """ISO 8601, UTC."""
    size_bytes: int
    """Bytes of all files."""
    metrics: dict[str, float]
    """Figures by name."""
    weights_digest: str | None
    """SHA-256 of the weights."""
    training: dict[str, Any] | None
    """Training configuration."""
    problem: str
    """Why the bundle cannot be used; empty for sound ones."""


class TrainDocument(_Document):
    """``neuronmap sae train``."""

    schema_name: Literal["neuronmap/sae.train/1"] = Field(alias="schema")
    sae: SAERecord
    run: str
    """Folder of the training run."""
    published: str | None = None
    """With ``--publish``: what it is called in the zoo."""


class ShowDocument(_Document):
    """``neuronmap sae show`` and ``neuronmap demo``."""

    schema_name: Literal["neuronmap/sae.show/1", "neuronmap/demo/1"] = Field(alias="schema")
    sae: SAERecord
    core: dict[str, Any] | None
    """The evaluation, as ``neuronmap.evaluation.CoreMetrics`` (its own schema: ``metrics_schema()``); null if there is none."""


class EvaluateDocument(_Document):
    """``neuronmap sae evaluate``."""

    schema_name: Literal["neuronmap/sae.evaluate/1"] = Field(alias="schema")
    sae: SAERecord
    core: dict[str, Any] | None
    """The core evaluation, as ``neuronmap.evaluation.CoreMetrics``; null with ``--suite`` that leaves it out."""
    suites: dict[str, Any] | None = None
    """With ``--suite``: records by suite, each as ``neuronmap.evaluation.suites.SuiteRecord``."""
    saebench: list[str] | None = None
    """With ``--suite``: files written in SAEBench's form."""


class ListDocument(_Document):
    """``neuronmap sae list-models``."""

    schema_name: Literal["neuronmap/sae.list-models/1"] = Field(alias="schema")
    library: str
    """Folder of the library."""
    saes: list[SAERecord]


class LeaderboardDocument(_Document):
    """``neuronmap sae leaderboard``."""

    schema_name: Literal["neuronmap/sae.leaderboard/1"] = Field(alias="schema")
    library: str
    """Folder of the library."""
    leaderboard: Leaderboard
    """What may be compared, and what was refused."""


class DeleteDocument(_Document):
    """``neuronmap sae delete``."""

    schema_name: Literal["neuronmap/sae.delete/1"] = Field(alias="schema")
    deleted: str
    """Name of the SAE that is gone."""


class AnalysisRecord(_Document):
    """One finished analysis."""

    sae: str
    """Name of the SAE in the library."""
    path: str
    """Folder of the feature store."""
    key: str
    """Digest of all that decides its content."""
    features: int
    rows: int
    """Analysed tokens."""
    bytes: int
    """Of all its files."""
    overview: dict[str, Any]
    """Figures over the whole dictionary; see the page of the feature store."""


class AnalyzeDocument(_Document):
    """``neuronmap sae analyze``."""

    schema_name: Literal["neuronmap/sae.analyze/1"] = Field(alias="schema")
    analyses: list[AnalysisRecord]
    """One for each SAE that was named; empty with ``--shard``."""
    shard: str | None
    """Work folder of a shard; null otherwise."""


class AnalysisListing(_Document):
    """One analysis of an SAE, finished or not."""

    name: str
    path: str
    key: str
    created: str
    """ISO 8601, UTC."""
    corpus: str
    tokens: int
    """Analysed tokens."""
    features: int
    size_bytes: int
    complete: bool
    problem: str
    """Why it cannot be used; empty for sound ones."""


class ListAnalysesDocument(_Document):
    """``neuronmap sae list-analyses``."""

    schema_name: Literal["neuronmap/sae.list-analyses/1"] = Field(alias="schema")
    sae: str
    deleted: str | None
    """Name of the analysis that was deleted; null when none was."""
    analyses: list[AnalysisListing]


class ExportDocument(_Document):
    """``neuronmap sae export-features``."""

    schema_name: Literal["neuronmap/sae.export-features/1"] = Field(alias="schema")
    sae: str
    analysis: str
    """Key of the analysis."""
    format: Literal["json", "jsonl", "csv", "parquet", "html", "neuronpedia"]
    path: str
    features: int
    """How many were written."""
    bytes: int


class FindExamplesDocument(_Document):
    """``neuronmap sae find-examples``."""

    schema_name: Literal["neuronmap/sae.find-examples/1"] = Field(alias="schema")
    sae: str
    analysis: str
    """Key of the analysis."""
    features: list[dict[str, Any]]
    """Columns of features and hints, ``on_text`` (largest activation on the text; null without one), ``examples``, ``negatives``."""
    notes: list[str]


class SteerDocument(_Document):
    """``neuronmap sae steer``."""

    schema_name: Literal["neuronmap/sae.steer/1"] = Field(alias="schema")
    sae: str
    changes: list[str]
    rows: list[dict[str, Any]]
    """One a run (clean, steered, controls) for a prompt; one a token for a text."""
    notes: list[str]


class CompareDocument(_Document):
    """``neuronmap sae compare``."""

    schema_name: Literal["neuronmap/sae.compare/1"] = Field(alias="schema")
    a: str
    b: str
    comparison: dict[str, Any]
    """Counts, thresholds, null and lists by measure."""
    plot: str | None
    """File of the plot, if one was asked for."""


class HookRecord(_Document):
    """One hook point."""

    layer: int | None
    component: str | None
    width: int
    """Length of the activation vector."""
    name: str
    """What ``--component`` takes."""


class HooksDocument(_Document):
    """``neuronmap models hooks``."""

    schema_name: Literal["neuronmap/models.hooks/1"] = Field(alias="schema")
    model: dict[str, Any]
    """Identity of the model: name, digests, widths."""
    hooks: list[HookRecord]


class CorpusRecord(_Document):
    """One named corpus."""

    name: str
    installed: bool
    licence: str
    description: str


class CorporaDocument(_Document):
    """``neuronmap corpora list``."""

    schema_name: Literal["neuronmap/corpora.list/1"] = Field(alias="schema")
    corpora: list[CorpusRecord]


class MeasuredSettings(_Document):
    """What ``neuronmap doctor --tune`` found fastest on one kind of device."""

    machine: str
    """Processor or GPU, usable cores, instruction set and torch that it counts for."""
    model: str
    """Model it was measured with."""
    measured: str
    """ISO date."""
    default_threads: int
    """torch's own choice of CPU threads."""
    threads: int
    """CPU threads."""
    batch_tokens: int
    """Tokens a forward pass."""
    attention: Literal["sdpa", "eager"]
    dtype: Literal["float32", "bfloat16", "float16"]
    """Number format that models run in."""
    tokens_per_second: float
    """With all of these."""
    speedup: float
    """Over the settings without tuning."""
    rounding: float
    """Median over tokens of the squared error that the number format causes, relative to the activation's energy."""


class TrialRecord(_Document):
    """One setting that was tried."""

    setting: Literal["threads", "batch_tokens", "attention", "dtype"]
    value: str
    tokens_per_second: float
    """Median; 0 if it does not run here."""
    ratio: float
    """To the best settings before it, measured in turn with them."""
    chosen: bool
    note: str
    """Why it was not chosen; empty if it was."""


class TuneDocument(_Document):
    """``neuronmap doctor --tune``."""

    schema_name: Literal["neuronmap/doctor.tune/1"] = Field(alias="schema")
    device: str
    """Kind of device that the settings are for: cpu, cuda or mps."""
    settings: MeasuredSettings
    trials: list[TrialRecord]
    changes: list[str]
    """Settings that are other than before."""
    file: str
    """Where the settings are kept."""


class SettingsState(_Document):
    """Measured settings, and whether they are used."""

    device: str
    """Kind of device that models run on here."""
    state: str
    """In words: measured, not measured, measured elsewhere (then ignored), or cannot be read."""
    settings: MeasuredSettings | None
    """Null when none are in use."""
    file: str
    """Where they are kept."""


class DoctorDocument(_Document):
    """``neuronmap doctor``."""

    schema_name: Literal["neuronmap/doctor/1"] = Field(alias="schema")
    versions: dict[str, str]
    devices: list[dict[str, str]]
    samples: list[dict[str, Any]]
    measured: SettingsState
    """Measured settings for language models."""
    memory: str
    """Whether freed memory is kept for reuse in this process."""
    folders: list[dict[str, str]]
    problems: list[str]
    """What to mend; empty when all is well."""


class CandidateRecord(_Document):
    """One thing that a source holds."""

    format: str
    """Format that recognised it."""
    name: str
    """What ``--select`` takes."""
    path: str
    """File or folder it lies in."""
    layer: int | None
    """Block, counted from 0, where names tell."""
    about: str
    """Hook, width, rule, as far as names and headers tell."""
    kind: Literal["weights", "features"]
    """An SAE, or data about features."""


class FormatRecord(_Document):
    """One format."""

    name: str
    """As it is typed after ``--format``."""
    reads: bool
    writes: bool
    title: str
    """One line about it."""


class ProofRecord(_Document):
    """What an imported SAE does to real activations."""

    hook: str
    """Where; of a transcoder ``in -> out``."""
    model: str
    """Language model."""
    tokens: int
    """Rows that were measured."""
    explained_variance: float
    """1 - squared error / variance, sums over rows and dimensions."""
    residual_variance: float
    """1 - variance of the error / variance: blind to a wrong bias (dictionary_learning's figure)."""
    row_variance: float
    """Mean over rows of 1 - squared error / squared distance from the mean (SAELens' figure before 2025)."""
    l0: float
    """Active features of a row."""
    claims: dict[str, float]
    """Figures that the files give."""
    warnings: list[str]
    """What does not fit."""
    verdict: str
    """One sentence."""


class ImportedRecord(_Document):
    """One SAE that was imported."""

    sae: SAERecord
    candidate: CandidateRecord
    proof: ProofRecord | None
    """Null where it was not tried."""
    unproved: str
    """Why not; empty where it was."""
    notes: list[str]
    """What was folded, what is missing."""


class ImportDocument(_Document):
    """``neuronmap sae import``; with ``--list`` and ``--formats`` only those."""

    schema_name: Literal["neuronmap/sae.import/1"] = Field(alias="schema")
    saes: list[ImportedRecord]
    """In the library now."""
    candidates: list[CandidateRecord]
    """With ``--list``, or where several are there and none was chosen (exit code 2)."""
    formats: list[FormatRecord]
    """With ``--formats``."""
    attached: dict[str, Any] | None
    """With ``--into``: the SAE, the name of the attachment, and its manifest."""


class ExportFormatDocument(_Document):
    """``neuronmap sae export`` and ``neuronmap sae convert``."""

    schema_name: Literal["neuronmap/sae.export/1", "neuronmap/sae.convert/1"] = Field(alias="schema")
    format: str
    """In which format."""
    folder: str
    """Where it lies."""
    saes: list[str]
    """Which SAEs."""
    files: list[str]
    """What was written."""
    notes: list[str]
    """What the format could not keep."""
    pushed: str | None
    """Address of the upload; null without ``--push``."""


class SiteDocument(_Document):
    """``neuronmap sae site``."""

    schema_name: Literal["neuronmap/sae.site/1"] = Field(alias="schema")
    sae: str
    """Name in the library."""
    analysis: str
    """The analysis whose numbers are shown."""
    folder: str
    """Where the site lies."""
    features: int
    """Features in it."""
    bytes: int
    """Size of all its files."""


class JobDocument(_Document):
    """``neuronmap jobs show``, ``neuronmap jobs cancel`` and ``neuronmap jobs resume``."""

    schema_name: Literal["neuronmap/jobs.show/1", "neuronmap/jobs.cancel/1", "neuronmap/jobs.resume/1"] = Field(
        alias="schema"
    )
    job: Job
    """The job as it is now."""


class JobsDocument(_Document):
    """``neuronmap jobs list``."""

    schema_name: Literal["neuronmap/jobs.list/1"] = Field(alias="schema")
    jobs: list[Job]
    """The newest first; ``--before`` with the last one's number gives the next page."""


class JobLogDocument(_Document):
    """``neuronmap jobs log``."""

    schema_name: Literal["neuronmap/jobs.log/1"] = Field(alias="schema")
    job: str
    """Id of the job."""
    lines: list[str]
    """What its processes have said, oldest first."""


class JobsWorkDocument(_Document):
    """``neuronmap jobs work``, when it ends."""

    schema_name: Literal["neuronmap/jobs.work/1"] = Field(alias="schema")
    counts: dict[str, dict[str, int]]
    """All jobs, by kind and state."""


class JobsPruneDocument(_Document):
    """``neuronmap jobs prune``."""

    schema_name: Literal["neuronmap/jobs.prune/1"] = Field(alias="schema")
    deleted: int
    """How many jobs went."""


class ErrorDocument(_Document):
    """Any command that fails after its options were understood."""

    schema_name: Literal["neuronmap/error/1"] = Field(alias="schema")
    error: str
    """Stable code; see the page of errors in the docs."""
    message: str
    """What happened, the value, what is allowed."""
    hint: str
    """The next step; may be empty."""


DOCUMENTS: dict[str, type[_Document]] = {
    "sae train": TrainDocument,
    "sae sweep": SweepDocument,
    "sae show": ShowDocument,
    "sae evaluate": EvaluateDocument,
    "demo": ShowDocument,
    "sae list-models": ListDocument,
    "sae leaderboard": LeaderboardDocument,
    "sae delete": DeleteDocument,
    "sae analyze": AnalyzeDocument,
    "sae list-analyses": ListAnalysesDocument,
    "sae export-features": ExportDocument,
    "sae find-examples": FindExamplesDocument,
    "sae site": SiteDocument,
    "sae import": ImportDocument,
    "sae export": ExportFormatDocument,
    "sae convert": ExportFormatDocument,
    "sae harvest": HarvestDocument,
    "sae push": PushDocument,
    "sae pull": PullDocument,
    "sae steer": SteerDocument,
    "sae compare": CompareDocument,
    "sae track-abstractions": ReportDocument,
    "sae show-report": ReportDocument,
    "sae list-reports": ReportsDocument,
    "sae delete-report": DeleteReportDocument,
    "sae list-concepts": ConceptsDocument,
    "models hooks": HooksDocument,
    "corpora list": CorporaDocument,
    "cache list": CacheListDocument,
    "cache clean": CacheCleanDocument,
    "plan": PlanDocument,
    "doctor": DoctorDocument,
    "doctor --tune": TuneDocument,
    "jobs list": JobsDocument,
    "jobs show": JobDocument,
    "jobs cancel": JobDocument,
    "jobs resume": JobDocument,
    "jobs log": JobLogDocument,
    "jobs work": JobsWorkDocument,
    "jobs prune": JobsPruneDocument,
    **EXPLAIN_DOCUMENTS,
    **LABEL_DOCUMENTS,
    **ZOO_DOCUMENTS,
    "error": ErrorDocument,
}
"""By command, without the leading ``neuronmap``."""
