"""Errors by resampling whole contexts: tokens of one context depend on each other, contexts hardly do.

Every figure here is a function of sums over tokens. Sums are kept per unit (a context, or a run of neighbouring
ones); a resample draws as many units as there are, with replacement, and the figure is computed again from the
totals: ratio of sums, never a mean of ratios. Drawing is a matrix of multiplicities, so all resamples are one
matrix product.

Shapes: R resamples, C units, ... trailing dimensions of a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuronmap.errors import ConfigError
from neuronmap.evaluation.metrics import Estimate

__all__ = ["Resampler", "Totals", "ratio"]

Totals = Mapping[str, Tensor]
"""Sums by name, each [R, ...]; row 0 of the exact totals, or one row a resample."""

_MOST_UNDEFINED = 0.01
_LEAST_UNITS = 2


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient, NaN where the denominator is zero (such resamples are counted out, never shown)."""
    return torch.where(denominator == 0, torch.nan, numerator / denominator)


@dataclass(frozen=True)
class Resampler:
    """Draws of units, the same ones for every figure (so that differences of figures are paired).

    Attributes:
        weights_RC: float64 [R, C], how often each unit is in each resample; each row adds up to C.
        units: C.
    """

    weights_RC: Tensor
    units: int

    @classmethod
    def draw(cls, units: int, resamples: int, seed: int) -> Resampler:
        """Multinomial multiplicities for ``resamples`` draws of ``units`` units.

        Raises:
            ConfigError: for a negative number of resamples.
        """
        if resamples < 0:
            raise ConfigError(f"bootstrap = {resamples}: the number of resamples must be 0 or more.")
        count = resamples if units >= _LEAST_UNITS else 0
        drawn_RC = np.random.default_rng(seed).multinomial(units, np.full(max(units, 1), 1 / max(units, 1)), size=count)
        return cls(torch.from_numpy(drawn_RC.astype(np.float64)), units)

    def totals(self, sums: Mapping[str, Tensor]) -> tuple[Totals, Totals]:
        """Exact totals ([1, ...]) and resampled totals ([R, ...]) of per-unit sums [C, ...]."""
        exact = {name: value.sum(0, keepdim=True) for name, value in sums.items()}
        drawn = {
            name: (self.weights_RC @ value.flatten(1) if value.ndim > 1 else self.weights_RC @ value)
            for name, value in sums.items()
        }
        return exact, drawn

    def estimate(
        self,
        totals: tuple[Totals, Totals],
        figure: Callable[[Totals], Tensor],
        count: int,
        *,
        undefined: str,
        value: float | None = None,
    ) -> Estimate:
        """One figure with its standard error and percentile interval.

        Args:
            totals: what :meth:`totals` gave.
            figure: totals [R, ...] -> [R]; NaN where it is not defined.
            count: tokens it is taken over.
            undefined: the reason to give when the figure itself is not defined.
            value: the figure, where another part (the meter) has it already.

        Returns:
            The estimate; value or error null, with the reason, where they are not defined.
        """
        value = float(figure(totals[0])[0]) if value is None else value
        if not np.isfinite(value):
            return Estimate(value=None, count=count, reason=undefined)
        if self.weights_RC.shape[0] < 2:
            too_few = (
                f"only {self.units} unit to resample" if self.units < _LEAST_UNITS else "no bootstrap was asked for"
            )
            return Estimate(value=value, count=count, reason=f"no error: {too_few}")
        samples_R = figure(totals[1])
        samples_R = samples_R[samples_R.isfinite()]
        undefined_count = self.weights_RC.shape[0] - samples_R.numel()
        if undefined_count > _MOST_UNDEFINED * self.weights_RC.shape[0]:
            reason = f"no error: {undefined} in {undefined_count} of {self.weights_RC.shape[0]} resamples"
            return Estimate(value=value, count=count, reason=reason)
        low, high = torch.quantile(samples_R, torch.tensor([0.025, 0.975], dtype=samples_R.dtype)).tolist()
        return Estimate(value=value, error=float(samples_R.std()), low=low, high=high, count=count)
