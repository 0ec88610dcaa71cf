"""``ANALYSIS_RESULT``: a feature store, an evaluation, or a report on abstractions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from neuronmap.zoo.records.parts import CorpusRef, Metrics, ModelRef, Record, SearchFields, Text

__all__ = ["AnalysisResultRecord"]


class AnalysisResultRecord(Record):
    """The record of an ``ANALYSIS_RESULT``. One of features or an evaluation depends on its SAE by digest, under the role ``sae``."""

    analysis: Literal["features", "evaluation", "abstraction", "comparison", "other"]
    """What was done."""
    format: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,60}$")]
    """How its files are to be read: neuronmap-features, neuronmap-metrics, neuronmap-report, saebench, ..."""
    model: ModelRef
    """The language model."""
    layer: Annotated[int | None, Field(ge=-1, lt=1 << 31)] = None
    """Block, where it is about one."""
    component: Annotated[str | None, Field(max_length=60)] = None
    """Component of the block."""
    weights_digest: Annotated[str | None, Field(pattern=r"^sha256:[0-9a-f]{64}$")] = None
    """SHA-256 of the weights of the SAE that was analysed."""
    corpus: CorpusRef | None = None
    """Text that was read."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the analysis, complete."""
    features: Annotated[int | None, Field(ge=0, lt=1 << 53)] = None
    """Features of the dictionary."""
    concepts: Annotated[tuple[Text, ...], Field(max_length=1000)] = ()
    """Names of the concepts, for a report on abstractions."""
    metrics: Metrics = Field(default_factory=dict)
    """Its main figures."""
    software: dict[str, Text] = Field(default_factory=dict)
    """Versions (``neuronmap``, ``torch``, ...)."""

    def search_fields(self) -> SearchFields:
        return SearchFields(
            model=self.model.name,
            layer=self.layer,
            component=self.component,
            width=self.features,
            tokenizer_digest=self.model.tokenizer_digest,
            model_digest=self.model.digest,
            metrics=dict(self.metrics),
        )
