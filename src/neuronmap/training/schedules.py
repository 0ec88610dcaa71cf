"""What changes from step to step: learning rate, sparsity weight, k. Pure functions of the step, so resuming needs no state."""

from __future__ import annotations

from dataclasses import dataclass

from neuronmap.training.config import SAEConfig

__all__ = ["Schedule"]

_MOST_WARMUP_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Schedule:
    """Schedules of one run.

    Attributes:
        config: the run's configuration.
        steps: steps of the whole run.
        peak_rate: learning rate between warm-up and decay.
        k: the final k, or None for architectures without one.
        most_k: number of features, which k never exceeds while it is annealed.
        sparsity_warmup: the architecture's own share of steps for it.
    """

    config: SAEConfig
    steps: int
    peak_rate: float
    k: int | None
    most_k: int
    sparsity_warmup: float = 0.1

    @property
    def warmup_steps(self) -> int:
        return min(round(self.steps * self.config.warmup_fraction), _MOST_WARMUP_STEPS)

    @property
    def decay_start(self) -> int:
        """First step of the decay."""
        return self.steps - round(self.steps * self.config.decay_fraction)

    def learning_rate(self, step: int) -> float:
        """Linear rise over the warm-up, constant, linear fall that ends just above zero at the last step."""
        rate = self.peak_rate
        if step < self.warmup_steps:
            rate *= (step + 1) / (self.warmup_steps + 1)
        if step >= self.decay_start:
            rate *= (self.steps - step) / (self.steps - self.decay_start + 1)
        return rate

    def sparsity_scale(self, step: int) -> float:
        """Linear rise of the sparsity term from 0 to 1."""
        given = self.config.sparsity_warmup_fraction
        rise = round(self.steps * (self.sparsity_warmup if given is None else given))
        return 1.0 if step >= rise else step / rise

    def active_k(self, step: int) -> int | None:
        """k at this step: falls linearly from ``k_anneal_factor * k`` to k."""
        if self.k is None:
            return None
        fall = round(self.steps * self.config.k_anneal_fraction)
        if step >= fall:
            return self.k
        first = min(self.config.k_anneal_factor * self.k, float(self.most_k))
        return max(self.k, round(first + (self.k - first) * step / fall))
