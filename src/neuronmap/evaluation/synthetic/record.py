"""The record of one measurement against a known truth. Does not load torch.

Every figure is an :class:`~neuronmap.evaluation.metrics.Estimate`: its value, a standard error and a 95 % interval, and how
many things it is taken over. Means over truths (or latents, or pairs) are resampled over those; explained variance and L0 over
blocks of rows.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from neuronmap.config import FrozenConfig
from neuronmap.evaluation.metrics import Estimate, MetricRow

__all__ = [
    "AbsorptionFigures",
    "AmplitudeFigures",
    "DetectionFigures",
    "DirectionFigures",
    "GroundTruth",
    "TruthProtocol",
    "ground_truth_schema",
]


class DirectionFigures(FrozenConfig):
    """How well the decoder's directions are the true ones; needs no rows.

    Truths and latents are matched one to one so that the sum of their cosines, with sign, is largest (Hungarian
    algorithm). A random decoder of F directions has a best cosine of about sqrt(2 ln F / D) with each truth: see the baselines.
    """

    cosine: Estimate
    """Mean cosine of matched pairs; a latent that points the other way counts as -1."""
    cosine_truths: Estimate
    """The same over all truths, one without a latent counting as 0: comparable between SAEs of different width."""
    recovered: Estimate
    """Share of the truths whose matched latent has a cosine above 0.9."""
    mmcs_truth: Estimate
    """Mean over truths of the largest cosine with any latent."""
    mmcs_latent: Estimate
    """Mean over latents of the largest cosine with any truth."""
    mcc: Estimate
    """Mean |cosine| of pairs matched by |cosine|, as SAELens computes it; blind to sign."""
    uniqueness: float = Field(ge=0, le=1, allow_inf_nan=False)
    """Different truths that are some latent's nearest by |cosine|, over the number of latents, as SAELens computes it."""


class DetectionFigures(FrozenConfig):
    """How well a latent's firing tells that its truth fires.

    ``precision``, ``recall`` and ``f1`` are means over truths, one latent each (the signed matching); a truth that never fired in
    the rows is left out. ``*_latent_mean`` are means over latents, each with its nearest truth by |cosine|, so that several
    latents may share one: the definition of SAELens and of SynthSAEBench's published figures.
    """

    precision: Estimate
    """Share of the latent's firings at which its truth fires; 0 for a latent that never fires. Mean over matched truths."""
    recall: Estimate
    """Share of the truth's firings at which its latent fires. Mean over matched truths."""
    f1: Estimate
    """Harmonic mean of the two. Mean over matched truths."""
    precision_truths: Estimate
    """Precision over all truths, one without a latent counting as 0."""
    recall_truths: Estimate
    """Recall over all truths, one without a latent counting as 0."""
    f1_truths: Estimate
    """F1 over all truths, one without a latent counting as 0."""
    precision_latent_mean: Estimate
    """Precision as SAELens computes it."""
    recall_latent_mean: Estimate
    """Recall as SAELens computes it."""
    f1_latent_mean: Estimate
    """F1 as SAELens computes it: the figure that SynthSAEBench reports."""


class AmplitudeFigures(FrozenConfig):
    """How well a latent's activation, times the length of its decoder row, is its truth's magnitude. Means over matched truths that
    fired."""

    r2: Estimate
    """R² over all rows, zeros included, with no fitted scale: 1 is exact, 0 no better than the mean magnitude."""
    r2_firing: Estimate
    """Squared correlation over the rows on which both fire; needs 3 of them, and a magnitude that varies."""


class AbsorptionFigures(FrozenConfig):
    """Whether a child's latent takes the place of its parent's (arXiv 2409.14507), on pairs of parent and child that both have a
    latent with a cosine above 0.5 and fired."""

    rate: Estimate
    """Of the rows on which the child fires (and so the parent): share on which the child's latent fires and the parent's does not.
    Mean over pairs."""
    missed_alone: Estimate
    """For comparison: of the rows on which the parent fires without a child, share on which its latent does not. Mean over parents
    of such pairs. Absorption is what exceeds it."""
    pairs: int = Field(ge=0)
    """Pairs that count."""
    all_pairs: int = Field(ge=0)
    """Pairs there are."""


class TruthProtocol(FrozenConfig):
    """What was measured on what."""

    model: str
    """Name of the synthetic model."""
    model_digest: str
    """Digest of its settings and directions."""
    stream: str
    """Stream of rows that was measured on."""
    rows: int = Field(ge=1)
    """How many rows."""
    silent_truths: int = Field(ge=0)
    """Truths that never fired in them."""
    device: str
    """Kind of device that drew them."""
    architecture: str
    """Architecture of the SAE, or the name of a baseline."""
    d_in: int
    """Width of a row."""
    features: int
    """Number of truths."""
    d_sae: int
    """Number of latents."""
    units: int = Field(ge=0)
    """Blocks of rows that are resampled for explained variance and L0."""
    resamples: int = Field(ge=0)
    """Resamples."""
    seed: int
    """Seed of the resampling."""
    versions: dict[str, str]
    """Versions of NeuronMap and torch."""


class GroundTruth(FrozenConfig):
    """Everything that :func:`neuronmap.evaluation.synthetic.measure_against_truth` measures."""

    format: int = Field(default=1, ge=1, le=1)
    """Version of this record."""
    directions: DirectionFigures
    """The decoder's directions."""
    detection: DetectionFigures
    """When latents fire."""
    amplitude: AmplitudeFigures
    """How strongly they fire."""
    absorption: AbsorptionFigures | None = None
    """Children in place of parents; null for a model without a hierarchy."""
    explained_variance: Estimate
    """1 - E|x-x̂|² / (E|x|² - |E x|²)."""
    l0: Estimate
    """Latents that fire in a row."""
    true_l0: Estimate
    """Truths that fire in a row."""
    dead: int = Field(ge=0)
    """Latents that fired in no row."""
    protocol: TruthProtocol
    """How it was measured."""

    def rows(self) -> list[MetricRow]:
        """The figures as ``(name, value, error, explanation)``."""
        found: list[MetricRow] = []
        for owner in (self.directions, self.detection, self.amplitude, self.absorption, self):
            if owner is None:
                continue
            prefix = {AbsorptionFigures: "absorption_", AmplitudeFigures: "amplitude_"}.get(type(owner), "")
            for name, field in type(owner).model_fields.items():
                value = getattr(owner, name)
                said = " ".join((field.description or "").split())
                if isinstance(value, Estimate):
                    found.append(MetricRow(prefix + name, value.value, value.error, said))
                elif isinstance(value, int | float) and name != "format":
                    found.append(MetricRow(prefix + name, value, None, said))
        return found

    def summary(self) -> dict[str, float | None]:
        """Every figure by name, without errors."""
        return {row.name: row.value for row in self.rows()}


def ground_truth_schema() -> dict[str, Any]:
    """JSON schema of the record, with every field's description."""
    return GroundTruth.model_json_schema()
