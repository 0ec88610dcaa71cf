"""How well a rule predicts firing: precision, recall and F1 with 95 % intervals, from a sample of firings and a sample of rows.

Shapes: F features.

With N+ firings and N- silent rows of the whole pass, r the share of sampled firings that the rule finds and q the share of sampled
silent rows that it calls firing,

    precision = r N+ / (r N+ + q N-)        recall = r        F1 = 2 r N+ / (N+ + r N+ + q N-)

r comes from the uniform sample of the feature's firings (rare features have many more firings there than in sampled contexts), q from
the sampled contexts. Intervals of r and q: Wilson, with n divided by the design effect, since rows of one document are not
independent. Precision and F1 are monotone in r and q, which are independent: their intervals join the two by squaring and adding (MOVER,
Zou and Donner 2008, doi:10.1002/sim.3095).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neuronmap.features.summary.distributions import wilson

__all__ = ["Scores", "effective_number", "precision_and_f1", "score_rates"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Values and intervals, float64 [F]; NaN where a figure is not defined (written as null)."""

    precision: Floats
    precision_low: Floats
    precision_high: Floats
    recall: Floats
    recall_low: Floats
    recall_high: Floats
    f1: Floats
    f1_low: Floats
    f1_high: Floats


def effective_number(
    hits_F: Floats, number_F: Floats, hits_squared_F: Floats, cross_F: Floats, number_squared_F: Floats, units_F: Floats
) -> Floats:
    """The number of independent rows that would know a share as well as these rows, which come in units (documents).

    Args:
        hits_F: rows of the share.
        number_F: n, all rows.
        hits_squared_F: sum over units of the square of their hits.
        cross_F: sum over units of hits x rows.
        number_squared_F: sum over units of the square of their rows.
        units_F: units with at least one row.

    Returns:
        n / deff with deff = (variance between units of the ratio, linearised) / (binomial variance), at least 1. Without any
        variation to see (share 0 or 1) deff is 1; if all rows are of one unit, they count as one.
    """
    n = np.maximum(number_F, 1.0)
    share = hits_F / n
    spread = np.maximum(hits_squared_F - 2 * share * cross_F + share**2 * number_squared_F, 0.0)
    variance = spread / n**2 * units_F / np.maximum(units_F - 1, 1)
    binomial = share * (1 - share) / n
    deff = np.where(binomial > 0, variance / np.where(binomial > 0, binomial, 1.0), 1.0)
    effective = number_F / np.maximum(deff, 1.0)
    return np.where(units_F == 1, np.minimum(number_F, 1.0), effective)


def precision_and_f1(
    found: npt.ArrayLike, false_rate: npt.ArrayLike, firings: npt.ArrayLike, silent: npt.ArrayLike
) -> tuple[Floats, Floats]:
    """Precision and F1 from the two rates and the numbers of firings and silent rows; NaN where not defined."""
    positives = np.asarray(firings, np.float64)
    true = np.asarray(found, np.float64) * positives
    false = np.asarray(false_rate, np.float64) * np.asarray(silent, np.float64)
    called, total = true + false, positives + true + false
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(called > 0, true / called, np.nan), np.where(total > 0, 2 * true / total, np.nan)


def score_rates(
    found_F: Floats, positives_F: Floats, false_F: Floats, negatives_F: Floats, firings_F: Floats, silent_F: Floats
) -> Scores:
    """Scores of a rule for each feature.

    Args:
        found_F: r, share of held-out firings that the rule finds.
        positives_F: how many (effective) firings that is of; 0 makes recall, precision and F1 undefined.
        false_F: q, share of held-out silent rows that the rule calls firing.
        negatives_F: how many (effective) rows that is of; 0 makes precision and F1 undefined.
        firings_F: N+ of the whole pass.
        silent_F: N- of the whole pass.
    """
    r_low, r_high = wilson(found_F * positives_F, positives_F)
    q_low, q_high = wilson(false_F * negatives_F, negatives_F)
    at = precision_and_f1(found_F, false_F, firings_F, silent_F)
    less = precision_and_f1(r_low, false_F, firings_F, silent_F)
    more = precision_and_f1(r_high, false_F, firings_F, silent_F)
    worse = precision_and_f1(found_F, q_high, firings_F, silent_F)
    better = precision_and_f1(found_F, q_low, firings_F, silent_F)
    no_recall, no_precision = positives_F <= 0, (positives_F <= 0) | (negatives_F <= 0)

    def joined(which: int, undefined: npt.NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        value = np.where(undefined, np.nan, at[which])
        known = ~np.isnan(value)

        def gap(other: Floats) -> Floats:
            return np.where(known & ~np.isnan(other), value - other, 0.0)

        low = value - np.hypot(gap(less[which]), gap(worse[which]))
        high = value + np.hypot(gap(more[which]), gap(better[which]))
        return value, np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)

    def blank(values: Floats) -> Floats:
        return np.where(no_recall, np.nan, values)

    return Scores(*joined(0, no_precision), blank(found_F), blank(r_low), blank(r_high), *joined(1, no_precision))
