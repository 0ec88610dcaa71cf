"""Settings of the feature pass: how much is kept for each feature."""

from __future__ import annotations

from pydantic import Field

from neuronmap.config import FrozenConfig

__all__ = ["AnalysisConfig"]


class AnalysisConfig(FrozenConfig):
    """What the pass keeps; all of it is part of an analysis' key, since every number here decides the result."""

    top_examples: int = Field(default=24, ge=1, le=255)
    """Maximally activating examples kept for each feature, one a context, no two with the same last tokens."""
    drawn_examples: int = Field(default=40, ge=1, le=255)
    """Firings drawn uniformly for each feature with what is around them: what quantile examples are taken from."""
    bin_examples: int = Field(default=1, ge=1, le=16)
    """Firings kept for each feature in each bin of the reservoir (32 bins, a factor sqrt(2) wide), so that no strength is missing."""
    firing_sample: int = Field(default=256, ge=8, le=4096)
    """Firings drawn uniformly for each feature: what token statistics are of. Features that fire less often are there whole."""
    before: int = Field(default=23, ge=0, le=120)
    """Tokens kept before an example's peak."""
    after: int = Field(default=8, ge=0, le=120)
    """Tokens kept after an example's peak."""
    distinct_tokens: int = Field(default=8, ge=1, le=64)
    """Two top examples are the same if this many tokens up to and with the peak are."""
    sample_tokens: int = Field(default=262_144, ge=128)
    """Tokens, in whole contexts drawn by hash, whose codes are kept: co-activation, negatives and hints are measured on them."""
    block_tokens: int = Field(default=4096, ge=1)
    """Tokens that are encoded together, in whole contexts."""
    neighbours: int = Field(default=20, ge=1, le=200)
    """Entries kept of each list: decoder neighbours, co-active features, promoted and suppressed tokens."""
    quantiles: int = Field(default=5, ge=1, le=10)
    """Groups of equally many firings that examples are taken from."""
    quantile_examples: int = Field(default=5, ge=0, le=50)
    """Examples shown from each group."""
    negatives: int = Field(default=10, ge=0, le=100)
    """Examples without firing: this many at random, and this many with the feature's own top tokens."""
    seed: int = Field(default=0, ge=0)
    """Seed of the hashes that draw contexts and firings."""

    @property
    def window(self) -> int:
        """W, tokens of an example: before, the peak, after."""
        return self.before + 1 + self.after
