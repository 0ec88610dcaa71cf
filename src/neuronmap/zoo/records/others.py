"""``EXPLANATIONS``, ``CIRCUIT`` and ``DATASET``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from neuronmap.zoo.records.parts import Metrics, ModelRef, Record, SearchFields, Text

__all__ = ["CircuitRecord", "DatasetRecord", "ExplanationsRecord"]

_Format = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,60}$")]


class ExplanationsRecord(Record):
    """The record of ``EXPLANATIONS``: what features mean, by rules, a language model, or people. Depends on its SAE (role ``sae``)."""

    format: _Format = "neuronmap-labels"
    """How its files are to be read."""
    method: Annotated[str, Field(min_length=1, max_length=120)]
    """How the explanations came about."""
    explainer: Text | None = None
    """The language model or the group that wrote them."""
    scorer: Text | None = None
    """How they were scored."""
    model: ModelRef | None = None
    """The language model whose features they explain."""
    count: Annotated[int, Field(ge=0, lt=1 << 53)]
    """Explained features."""
    metrics: Metrics = Field(default_factory=dict)
    """Figures over all (mean score, ...)."""

    def search_fields(self) -> SearchFields:
        return SearchFields(model=self.model.name if self.model else None, width=self.count, metrics=dict(self.metrics))


class CircuitRecord(Record):
    """The record of a ``CIRCUIT``: features or neurons and how they act on each other. Depends on the SAEs it is made of."""

    format: _Format
    """How its files are to be read: circuit-tracer-graph, neuronmap-flow, ..."""
    method: Annotated[str, Field(min_length=1, max_length=120)]
    """How it was found."""
    model: ModelRef
    """The language model."""
    task: Text = ""
    """What the circuit does."""
    nodes: Annotated[int, Field(ge=0, lt=1 << 53)]
    """How many."""
    edges: Annotated[int, Field(ge=0)]
    """How many."""
    metrics: Metrics = Field(default_factory=dict)
    """Faithfulness, completeness, ..."""

    def search_fields(self) -> SearchFields:
        return SearchFields(model=self.model.name, width=self.nodes, metrics=dict(self.metrics))


class DatasetRecord(Record):
    """The record of a ``DATASET``: texts, tokens, activations, or concepts."""

    format: _Format
    """How its files are to be read: jsonl, parquet, neuronmap-activations, neuronmap-concept, ..."""
    description: Annotated[str, Field(max_length=5000)] = ""
    """What it holds."""
    rows: Annotated[int | None, Field(ge=0, lt=1 << 53)] = None
    """Documents, tokens or items."""
    languages: Annotated[tuple[Annotated[str, Field(max_length=35)], ...], Field(max_length=100)] = ()
    """By BCP 47 (``en``, ``de``)."""
    source: Text = ""
    """Where it comes from."""
    model: ModelRef | None = None
    """For activations: the language model."""
    details: dict[str, Any] = Field(default_factory=dict)
    """Anything else, as plain values."""

    def search_fields(self) -> SearchFields:
        return SearchFields(model=self.model.name if self.model else None, width=self.rows)
