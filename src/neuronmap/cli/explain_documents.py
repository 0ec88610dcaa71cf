"""The JSON documents of ``neuronmap sae explain`` and ``score``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from neuronmap.cli.document import Document

__all__ = ["EXPLAIN_DOCUMENTS"]


class EstimateRecord(Document):
    """What asking would take."""

    calls: int
    """Questions."""
    prompt: int
    """Prompt tokens, estimated."""
    completion: int
    """Completion tokens, estimated."""
    most: int
    """Tokens at most, as a budget puts them aside."""
    money: float | None
    """Of the estimate; null without prices."""
    known: int
    """What is there already."""
    impossible: int
    """What cannot be made for want of examples."""


class SpendingRecord(Document):
    """What a run has cost."""

    calls: int
    """Answers of the endpoint."""
    cached: int
    """Answers that were on this machine."""
    prompt_tokens: int
    """Of those answers."""
    completion_tokens: int
    """Likewise."""
    estimated: bool
    """Whether the endpoint left counts out, and they are estimated."""
    uncertain_tokens: int
    """Counted, at their bound, for attempts that ended without an answer."""
    retries: int
    """Requests that were sent again."""
    money: float | None
    """Of all; null without prices."""


class FailureRecord(Document):
    """What could not be made."""

    feature: int
    """Number of the feature."""
    method: str
    """How it was tried."""
    problem: str
    """Why it failed."""
    raw: str
    """What the language model had said."""


class ExplainDocument(Document):
    """``neuronmap sae explain``."""

    schema_name: Literal["neuronmap/sae.explain/1"] = Field(alias="schema")
    sae: str
    """Name in the library."""
    analysis: str
    """Key of the analysis."""
    features: int
    """Features that were asked for."""
    estimate: EstimateRecord | None
    """With --dry-run; null otherwise."""
    labels: list[dict[str, Any]]
    """Acts of the labels made now: text, explanation, side, method, author, evidence, id."""
    known: int
    """Labels that were there already."""
    impossible: list[FailureRecord]
    """Features with too few examples."""
    failures: list[FailureRecord]
    """Answers that held no label."""
    stopped: str
    """Why it ended early, where that is the budget; empty otherwise."""
    spent: SpendingRecord | None
    """Null with --dry-run."""


class ScoreDocument(Document):
    """``neuronmap sae score``."""

    schema_name: Literal["neuronmap/sae.score/1"] = Field(alias="schema")
    sae: str
    """Name in the library."""
    analysis: str
    """Key of the analysis."""
    labels: int
    """Labels that were to be scored."""
    estimate: EstimateRecord | None
    """With --dry-run; null otherwise."""
    scores: list[dict[str, Any]]
    """Acts of the scores made now, with the number of judgements instead of these: protocol, value, interval, figures, baselines."""
    known: int
    """Scores that were there already."""
    impossible: list[FailureRecord]
    """Labels that cannot be scored."""
    refused: dict[str, str]
    """Scorers that cannot work with this endpoint, and why."""
    agreements: list[dict[str, Any]]
    """Spearman's correlation of every two scorers over labels, with an interval."""
    stopped: str
    """Why it ended early, where that is the budget; empty otherwise."""
    spent: SpendingRecord | None
    """Null with --dry-run."""
    baseline_tokens: int
    """Tokens, of those spent, for baselines."""


EXPLAIN_DOCUMENTS: dict[str, type[Document]] = {"sae explain": ExplainDocument, "sae score": ScoreDocument}
