"""The record of one evaluation: every figure with its error, how it was counted, and under which protocol.

No figure is ever NaN, infinite or a placeholder: what cannot be computed is ``null``, and ``reason`` says why.
This module does not import torch: the library and its pages read stored records with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import Field

from neuronmap.config import FrozenConfig

__all__ = [
    "Behaviour",
    "CoreMetrics",
    "DensityHistogram",
    "Estimate",
    "MetricRow",
    "Protocol",
    "Reconstruction",
    "Sparsity",
    "Spread",
    "Weights",
    "metrics_schema",
]


class Estimate(FrozenConfig):
    """One figure with its sampling error."""

    value: float | None = Field(allow_inf_nan=False)
    """The figure over all scored tokens; null when it is not defined."""
    error: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Standard error, from resampling whole contexts."""
    low: float | None = Field(default=None, allow_inf_nan=False)
    """Lower end of the 95 % interval (2.5th percentile of the resamples)."""
    high: float | None = Field(default=None, allow_inf_nan=False)
    """Upper end of the 95 % interval (97.5th percentile of the resamples)."""
    count: int = Field(ge=0)
    """How many tokens the figure is taken over."""
    reason: str | None = None
    """Why value or error is null."""


class Spread(FrozenConfig):
    """How a quantity is spread over the features."""

    mean: float = Field(allow_inf_nan=False)
    """Mean over features."""
    low: float = Field(allow_inf_nan=False)
    """5th percentile over features."""
    median: float = Field(allow_inf_nan=False)
    """Median over features."""
    high: float = Field(allow_inf_nan=False)
    """95th percentile over features."""


class Reconstruction(FrozenConfig):
    """How close the reconstruction is to the activation, in the activation's own units."""

    explained_variance: Estimate
    """Explained variance: 1 - E|x-x̂|² / (E|x|² - |E x|²)."""
    explained_variance_median: Estimate
    """Median over dimensions of each one's explained variance; near-constant dimensions are left out."""
    dimensions: int = Field(ge=0)
    """Dimensions in that median."""
    mse: Estimate
    """Mean squared error: mean over tokens of |x-x̂|², summed over dimensions."""
    cosine: Estimate
    """Mean cosine of x and x̂; tokens where either is zero are left out."""
    norm_ratio: Estimate
    """Mean of |x̂| / |x|; below 1 the reconstruction is too short."""
    bias: Estimate
    """Relative reconstruction bias: E|x̂|² / E[x·x̂]; below 1 is shrinkage (arXiv 2404.16014)."""


class DensityHistogram(FrozenConfig):
    """How often features are active: counts of features in bins of log10 density."""

    edges: tuple[float, ...]
    """Edges of the bins, as log10 of the share of tokens on which a feature is active; the last is 0 (always)."""
    counts: tuple[int, ...]
    """Features in each bin; a bin holds its upper edge."""
    never: int = Field(ge=0)
    """Features that were not active on any scored token."""
    tokens: int = Field(ge=0)
    """Scored tokens; densities below 1 / tokens cannot be seen."""


class Sparsity(FrozenConfig):
    """How many features are active, and how they share the work."""

    l0: Estimate
    """Active features a token."""
    l1: Estimate
    """Sum of feature activations a token, each weighted by the norm of its decoder row."""
    dead_at_n: int = Field(ge=0)
    """Features that were active on none of the N scored tokens."""
    dead_density_bound: float = Field(ge=0, le=1, allow_inf_nan=False)
    """What never firing on N tokens proves (95 %): such a feature's density is below 3 / N."""
    fraction_alive: float = Field(ge=0, le=1, allow_inf_nan=False)
    """Share of the features that were active at least once."""
    fraction_above_1_percent: float = Field(ge=0, le=1, allow_inf_nan=False)
    """Share of the features that are active on more than 1 % of the tokens."""
    fraction_above_10_percent: float = Field(ge=0, le=1, allow_inf_nan=False)
    """Share of the features that are active on more than 10 % of the tokens."""
    firings_above_10_percent: float | None = Field(ge=0, le=1, allow_inf_nan=False)
    """Share of all firings that belong to those; null when nothing fires."""
    histogram: DensityHistogram
    """Density histogram."""


class Behaviour(FrozenConfig):
    """What the language model does when the reconstruction takes the activation's place.

    Loss is next-token cross-entropy in nats a token; KL is KL(clean || changed) of the next-token distribution, in
    nats a token. The activation is replaced at the scored positions only, by the reconstruction, by zero or by the
    mean, and loss and KL are taken at those positions whose next token is real (same context, not padding).
    """

    ce_clean: Estimate
    """Loss of the untouched model."""
    ce_sae: Estimate
    """Loss with the reconstruction in place."""
    ce_zero: Estimate | None = None
    """Loss with zero in place."""
    ce_mean: Estimate | None = None
    """Loss with the mean activation in place."""
    delta_ce: Estimate
    """Loss added by the reconstruction: with SAE minus clean."""
    ce_score_zero: Estimate | None = None
    """CE score: share of the loss that zero adds which the reconstruction saves; 1 is as good as untouched."""
    ce_score_mean: Estimate | None = None
    """CE score against the mean: the stricter baseline."""
    kl_sae: Estimate
    """KL with the reconstruction in place."""
    kl_zero: Estimate | None = None
    """KL with zero in place."""
    kl_mean: Estimate | None = None
    """KL with the mean activation in place."""
    kl_score_zero: Estimate | None = None
    """KL score: 1 - KL with SAE / KL with zero."""
    kl_score_mean: Estimate | None = None
    """KL score against the mean."""
    mean_of: str | None = None
    """Which rows the mean activation was taken over."""


class Weights(FrozenConfig):
    """Facts that need no data."""

    decoder_norm: Spread | None = None
    """Norms of the decoder rows; null for an SAE without W_dec."""
    encoder_norm: Spread | None = None
    """Norms of the encoder columns; null for an SAE without W_enc."""
    encoder_decoder_cosine: Spread | None = None
    """Cosine of each feature's encoder column and decoder row; null when one is missing or zero, and for a transcoder."""


class Protocol(FrozenConfig):
    """What was measured on what, so that two records can be compared or found not to be comparable."""

    architecture: str
    """The SAE's architecture."""
    d_in: int
    """Width of the activation."""
    d_sae: int
    """Number of features."""
    sae_dtype: str
    """Number format of the SAE."""
    source: str
    """Where the activations came from: stored rows, or a model run over tokens."""
    source_digest: str | None
    """Digest of those rows or tokens."""
    tokens: int = Field(ge=0)
    """Scored tokens (rows) for reconstruction and sparsity."""
    contexts: int = Field(default=0, ge=0)
    """Contexts they come from; 0 for rows that do not know theirs."""
    behaviour_tokens: int = Field(default=0, ge=0)
    """Positions over which loss and KL are taken."""
    behaviour_contexts: int = Field(default=0, ge=0)
    """Contexts run through the whole model for them."""
    context_length: int | None = None
    """Tokens in a context, when known."""
    mask: dict[str, Any] | None = None
    """Which positions are not scored; null when the rows came without that record."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Positions dropped by the mask, by reason (of the whole store, for stored rows)."""
    outlier_threshold: float | None = None
    """Norm above which a row is dropped; null drops none."""
    outlier_threshold_from: str | None = None
    """Where that threshold comes from."""
    model: str | None = None
    """Language model."""
    model_dtype: str | None = None
    """Number format the language model ran in."""
    rows_dtype: str | None = None
    """Number format of the rows, when they were given."""
    hook: str | None = None
    """Hook point; of a transcoder ``read -> reconstructed``."""
    resamples: int = Field(ge=0)
    """Bootstrap resamples."""
    resampled: str
    """What is resampled as a whole."""
    units: int = Field(ge=0)
    """How many of those there are for reconstruction and sparsity."""
    seed: int
    """Seed of the bootstrap; nothing else is random."""
    versions: dict[str, str]
    """Versions of NeuronMap, torch and transformers."""


class MetricRow(NamedTuple):
    """One line of the table for people."""

    name: str
    value: float | int | None
    error: float | None
    explanation: str


class CoreMetrics(FrozenConfig):
    """Everything :func:`neuronmap.evaluation.evaluate_sae` measures; written to ``metrics.json`` of a bundle."""

    format: int = Field(default=1, ge=1, le=1)
    """Version of this record."""
    reconstruction: Reconstruction
    """Reconstruction of the activation."""
    sparsity: Sparsity
    """Feature activity."""
    behaviour: Behaviour | None = None
    """Effect on the language model; null when no model was given."""
    weights: Weights
    """The SAE's weights."""
    protocol: Protocol
    """How it was measured."""

    def rows(self) -> list[MetricRow]:
        """The figures as ``(name, value, error, explanation)``, most important first; absent ones are left out."""
        found: list[MetricRow] = []
        for section in (self.reconstruction, self.sparsity, self.behaviour):
            if section is None:
                continue
            for name, field in type(section).model_fields.items():
                value = getattr(section, name)
                said = " ".join((field.description or "").split())
                if isinstance(value, Estimate):
                    reason = f" ({value.reason})" if value.reason else ""
                    found.append(MetricRow(name, value.value, value.error, said + reason))
                elif isinstance(value, int | float):
                    found.append(MetricRow(name, value, None, said))
        return found

    def summary(self) -> dict[str, float | None]:
        """Every figure by name, without errors: what a library searches and sorts by."""
        return {row.name: row.value for row in self.rows()}


def metrics_schema() -> dict[str, Any]:
    """JSON schema of :meth:`CoreMetrics.to_dict`, with every field's description."""
    return CoreMetrics.model_json_schema()
