"""Settings of activations with a known truth, and the presets. Does not load torch.

A row is a sum of few unit directions, each with its own magnitude:  x = sum_g a_g d_g + bias + noise,  a sparse.
Which features fire: each with its own probability, together with others through a Gaussian copula of low rank
(correlation), children only where their parent fires, and siblings one at a time (hierarchy).
The construction and the settings of ``synthsae-16k`` are those of SynthSAEBench (arXiv 2602.14687).

Features are numbered from the most frequent to the rarest. G features, D width of a row.
"""

from __future__ import annotations

import difflib
from typing import Literal, Self

from pydantic import Field, model_validator

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError

__all__ = ["PRESETS", "Correlation", "Firing", "Hierarchy", "Magnitudes", "SyntheticConfig", "synthetic_preset"]


class Firing(FrozenConfig):
    """How often each feature fires."""

    law: Literal["zipf", "constant"] = "zipf"
    """zipf: rank^-exponent, stretched to run from p_max (first feature) to p_min (last). constant: p_max for all."""
    exponent: float = Field(default=0.5, gt=0)
    """zipf: how fast the probability falls with the rank."""
    p_max: float = Field(default=0.3, gt=0, le=1)
    """Probability of the most frequent feature."""
    p_min: float = Field(default=0.01, gt=0, le=1)
    """zipf: probability of the rarest feature."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.law == "zipf" and self.p_min > self.p_max:
            raise ConfigError(f"Firing.p_min = {self.p_min} is above p_max = {self.p_max}; it must be at most that.")
        return self


class Correlation(FrozenConfig):
    """Which features fire together: feature g fires where a_g·z + sqrt(1 - |a_g|²) e_g is above its threshold, z of length rank."""

    rank: int = Field(default=25, ge=1)
    """Length of z, the hidden cause that all features of a row share."""
    scale: float = Field(default=0.1, gt=0)
    """Standard deviation of the entries of a_g; two features correlate by about scale² sqrt(rank) before the threshold."""


class Hierarchy(FrozenConfig):
    """Trees of features: the first features are roots, their children follow, then the children's children."""

    roots: int = Field(ge=1)
    """Number of trees."""
    branching: int = Field(default=4, ge=2)
    """Children of a parent."""
    depth: int = Field(default=3, ge=1)
    """Generations below the roots."""
    exclusive: bool = True
    """Of several children that would fire, one, drawn at random, does."""
    compensate: bool = True
    """Raise the children's probabilities so that they fire about as often as without parents: divided by the parent's, times
    1 + what their siblings expect; at most 1. Where children want to fire more often than their parent does, they cannot."""
    child_probability: float | None = Field(default=None, gt=0, le=1)
    """Probability that a child would fire when its parent does, the same for all; null takes it from the law of the firing."""
    scale_by_parent: bool = False
    """Multiply a child's magnitude by its parent's over the parent's mean."""


class Magnitudes(FrozenConfig):
    """How large a feature is when it fires: the positive part of a normal, with a mean and a spread of its own."""

    mean_first: float = Field(default=1.0, gt=0)
    """Mean magnitude of the most frequent feature."""
    mean_last: float = Field(default=1.0, gt=0)
    """Mean magnitude of the rarest feature; in between it changes linearly with the rank."""
    spread_mean: float = Field(default=0.0, ge=0)
    """A feature's standard deviation is |normal(spread_mean, spread_std)|, drawn once."""
    spread_std: float = Field(default=0.0, ge=0)
    """See spread_mean."""


class SyntheticConfig(FrozenConfig):
    """Everything that decides a synthetic model: equal settings give equal features and equal rows.

    Raises:
        ConfigError: for unknown keys, values out of range, and a hierarchy with more roots than features.
    """

    name: str = Field(default="synthetic", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the model, for records and folders."""
    d_in: int = Field(ge=2)
    """D, width of a row."""
    features: int = Field(ge=2)
    """G, number of true features."""
    firing: Firing = Firing()
    """How often each fires."""
    correlation: Correlation | None = None
    """Which fire together; null for independent features."""
    hierarchy: Hierarchy | None = None
    """Parents and children; null for none."""
    magnitudes: Magnitudes = Magnitudes()
    """How large they are."""
    noise_std: float = Field(default=0.0, ge=0)
    """Standard deviation of normal noise on each of the D values."""
    bias_norm: float = Field(default=0.0, ge=0)
    """Length of a fixed vector that is added to every row."""
    orthogonal_steps: int = Field(default=200, ge=0)
    """Adam steps that push the directions apart; 0 leaves them random."""
    orthogonal_rate: float = Field(default=0.01, gt=0)
    """Learning rate of those steps."""
    seed: int = Field(default=0, ge=0, le=2**40)
    """One seed for directions, probabilities, magnitudes and rows."""

    @model_validator(mode="after")
    def _roots_fit(self) -> Self:
        if self.hierarchy is not None and self.hierarchy.roots > self.features:
            raise ConfigError(
                f"SyntheticConfig.hierarchy has {self.hierarchy.roots} roots, but there are {self.features} features.",
                hint="Lower hierarchy.roots, or raise features.",
            )
        return self


_TINY = SyntheticConfig(
    name="tiny",
    d_in=32,
    features=64,
    firing=Firing(law="constant", p_max=0.05),
    magnitudes=Magnitudes(spread_mean=0.15),
)
_PUBLISHED = SyntheticConfig(
    name="synthsae-16k",
    d_in=768,
    features=16_384,
    firing=Firing(exponent=0.5, p_max=0.4, p_min=5e-4),
    correlation=Correlation(rank=25, scale=0.1),
    hierarchy=Hierarchy(roots=128, branching=4, depth=3),
    magnitudes=Magnitudes(mean_first=5.0, mean_last=4.0, spread_mean=0.5, spread_std=0.5),
    bias_norm=1.0,
    orthogonal_steps=100,
    orthogonal_rate=3e-4,
)

PRESETS: dict[str, SyntheticConfig] = {
    preset.name: preset
    for preset in (
        _TINY,
        _TINY.updated(name="correlated", correlation=Correlation(rank=2, scale=0.6)),
        _TINY.updated(
            name="hierarchy",
            firing=Firing(exponent=0.5, p_max=0.15, p_min=0.03),
            hierarchy=Hierarchy(roots=8, branching=3, depth=1, child_probability=0.2),
        ),
        _PUBLISHED.updated(
            name="synthsae-2k",
            d_in=256,
            features=2048,
            firing=Firing(exponent=0.5, p_max=0.4, p_min=1e-3),
            hierarchy=Hierarchy(roots=16, branching=4, depth=3),
        ),
        _PUBLISHED.updated(
            name="synthsae-4k",
            d_in=384,
            features=4096,
            firing=Firing(exponent=0.5, p_max=0.4, p_min=1e-3),
            hierarchy=Hierarchy(roots=32, branching=4, depth=3),
        ),
        _PUBLISHED,
    )
}
"""Synthetic models by name, small to large.

- tiny: 64 independent features in 32 dimensions, L0 3.2; ``correlated``: the same with a strong common cause.
- hierarchy: 8 parents with 3 children each, one at a time, and 32 free features; L0 2.1. Too sparse an SAE absorbs its parents.
- synthsae-16k: as published. L0 34.5; interference on a feature, sqrt(L0 / D) of a magnitude, 0.212; mean largest overlap of a
  direction with another 0.145; 21 features a dimension. Making it takes minutes on a CPU core.
- synthsae-4k and synthsae-2k: the same construction for a CPU. L0 grows with sqrt(G) under this law, so D = 384 and 256 keep the
  interference (0.210); trees, correlation and magnitudes are as published. Not kept: features a dimension, 10.7 and 8; the rarest
  probability, 0.001 in place of 0.0005; the mean largest overlap, 0.184 and 0.210, which is higher because fewer dimensions hold fewer
  directions apart. L0 16.9 and 11.4. How hard they are for a probe beside the published one: docs/experiments.md.
"""


def synthetic_preset(name: str, **changes: object) -> SyntheticConfig:
    """A preset, with some fields changed.

    Raises:
        ConfigError: for an unknown name, with near ones and the whole list; for changes that do not fit.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        raise ConfigError(
            f"There is no synthetic model '{name}'. There are: {', '.join(PRESETS)}.",
            hint=f"Did you mean {near[0]}?" if near else "",
        )
    return PRESETS[name].updated(**changes) if changes else PRESETS[name]
