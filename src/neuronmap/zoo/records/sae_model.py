"""``SAE_MODEL``: a sparse autoencoder, or a transcoder or crosscoder that is stored as one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from neuronmap.zoo.document import Document
from neuronmap.zoo.records.parts import CorpusRef, HookRef, Metrics, ModelRef, Record, SearchFields, Text

__all__ = ["Compatibility", "SAEModelRecord", "Training"]


class Compatibility(Document):
    """Where it can be used."""

    models: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """Names of models on which its figures hold; the one it was trained on always belongs to them."""
    layers: Annotated[tuple[int, ...], Field(max_length=1000)] = ()
    """Blocks; the one it was trained on when empty."""
    dtypes: Annotated[
        tuple[Annotated[str, Field(pattern=r"^(float32|float16|bfloat16|float64)$")], ...], Field(max_length=8)
    ] = ()
    """Precisions of the model that were tried."""
    tokenizer_digest: Annotated[str | None, Field(pattern=r"^sha256:[0-9a-f]{64}$")] = None
    """Tokenizer that its token statistics rest on."""
    notes: Text = ""
    """What else one has to know."""


class Training(Document):
    """How it came about."""

    config: dict[str, Any] = Field(default_factory=dict)
    """The training configuration, complete (``SAEConfig``); empty where it is not known."""
    corpus: CorpusRef | None = None
    """Text it was trained on."""
    tokens_seen: Annotated[int | None, Field(ge=0)] = None
    """Activation rows, repeats counted."""
    steps: Annotated[int | None, Field(ge=0)] = None
    """Optimiser steps."""
    seed: int | None = None
    """Of the run."""
    software: dict[str, Text] = Field(default_factory=dict)
    """Versions (``neuronmap``, ``torch``, ...)."""
    origin: dict[str, Any] | None = None
    """For SAEs from elsewhere: format, source and digests of what they were read from."""


class SAEModelRecord(Record):
    """The record of an ``SAE_MODEL``."""

    format: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,60}$")] = "neuronmap-bundle"
    """How its files are to be read; a bundle's folder opens in SAELens as well."""
    model: ModelRef
    """The language model that it reads."""
    hook: HookRef
    """Where it reads."""
    hook_out: HookRef | None = None
    """Where it writes, for a transcoder."""
    architecture: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,60}$")]
    """relu, gated, topk, batchtopk, jumprelu, matryoshka, transcoder, ..."""
    d_in: Annotated[int, Field(ge=1, lt=1 << 31)]
    """Width of the activation."""
    d_sae: Annotated[int, Field(ge=1, lt=1 << 53)]
    """Number of features."""
    k: Annotated[int | None, Field(ge=1)] = None
    """Active features of a row, where the architecture has a k."""
    dtype: Annotated[str, Field(pattern=r"^(float32|float16|bfloat16|float64)$")] = "float32"
    """Of its weights."""
    training: Training = Training()
    """Configuration and course of the training."""
    metrics: Metrics = Field(default_factory=dict)
    """Final evaluation: explained_variance, l0, ce_recovered, dead_share, ..."""
    compatibility: Compatibility = Compatibility()
    """Where it can be used."""

    def search_fields(self) -> SearchFields:
        return SearchFields(
            model=self.model.name,
            hook=self.hook.name,
            layer=self.hook.layer,
            component=self.hook.component,
            architecture=self.architecture,
            d_in=self.d_in,
            width=self.d_sae,
            tokenizer_digest=self.model.tokenizer_digest,
            model_digest=self.model.digest,
            metrics=dict(self.metrics),
            fits_models=self.compatibility.models,
            fits_layers=self.compatibility.layers,
        )

    def inconsistencies(self) -> list[str]:
        found = []
        if self.hook.width is not None and self.hook.width != self.d_in:
            found.append(f"hook.width is {self.hook.width}, but d_in is {self.d_in}")
        if self.k is not None and self.k > self.d_sae:
            found.append(f"k is {self.k}, more than the {self.d_sae} features")
        layer, blocks = self.hook.layer, self.model.num_layers
        if layer is not None and blocks is not None and layer >= blocks:
            found.append(f"hook.layer is {layer}, but the model has {blocks} blocks, counted from 0")
        return found
