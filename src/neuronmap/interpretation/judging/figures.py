"""Figures of judgements: balanced accuracy, recall by strength, false positives by kind, area under the curve, correlation; 95 % intervals.

Balanced accuracy is the mean of the share of firing examples that were found and the share of silent ones that were left alone; 0.5 is
chance, whatever the judge's bias. Its interval joins Wilson's of the two shares by squaring and adding (MOVER, Zou and Donner 2008,
doi:10.1002/sim.3095). The interval of the area under the curve is DeLong's (1988, doi:10.2307/2531595); that of a simulation's correlation
resamples whole examples, since tokens of one example are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from neuronmap.features.summary.distributions import wilson
from neuronmap.interpretation.labels.acts import Judgement

__all__ = ["LEAST_JUDGED", "Figures", "area_figures", "correlation_figures", "judged_figures", "share_figures"]

LEAST_JUDGED = 3
"""With fewer firing or fewer silent examples judged there is no headline."""
_Z95 = 1.959963984540054
_RESAMPLES = 1000

Floats = npt.NDArray[np.float64]


class Figures(NamedTuple):
    """A headline with its interval, and what is beside it.

    Attributes:
        value, low, high: None where too little could be read.
        details: plain JSON types.
    """

    value: float | None
    low: float | None
    high: float | None
    details: dict[str, Any]


def judged_figures(judgements: Sequence[Judgement]) -> Figures:
    """Of yes-or-no judgements: balanced accuracy; recall of each group of firing examples and false positives of each group of silent ones
    are in the details, each as ``{share, low, high, examples}``. A judgement of 0.5 is half a yes and half a no: what a coin would score
    on average where judges are evenly split."""
    read = [one for one in judgements if one.said is not None]
    firing = [float(one.said or 0) for one in read if one.truth]
    silent = [1.0 - float(one.said or 0) for one in read if not one.truth]
    details: dict[str, Any] = {
        "positives": len(firing),
        "negatives": len(silent),
        "unread": len(judgements) - len(read),
        "recall": _by_group(read, truth=True),
        "false_positives": _by_group(read, truth=False),
    }
    if min(len(firing), len(silent)) < LEAST_JUDGED:
        return Figures(None, None, None, details)
    value = (sum(firing) / len(firing) + sum(silent) / len(silent)) / 2
    below, above = 0.0, 0.0
    for part in (firing, silent):
        share = sum(part) / len(part)
        low, high = (float(end) for end in wilson(sum(part), len(part)))
        below += ((share - low) / 2) ** 2
        above += ((high - share) / 2) ** 2
    return Figures(value, max(value - math.sqrt(below), 0.0), min(value + math.sqrt(above), 1.0), details)


def share_figures(judgements: Sequence[Judgement], chance: float) -> Figures:
    """Of tasks that are right or wrong: the share that is right, with Wilson's interval."""
    read = [bool(one.said) for one in judgements if one.said is not None]
    details = {
        "judged": len(read),
        "unread": len(judgements) - len(read),
        "chance": chance,
        "right": _by_group([one for one in judgements if one.said is not None], truth=True),
    }
    if len(read) < LEAST_JUDGED:
        return Figures(None, None, None, details)
    low, high = (float(end) for end in wilson(sum(read), len(read)))
    return Figures(sum(read) / len(read), low, high, details)


def area_figures(judgements: Sequence[Judgement]) -> Figures:
    """Of graded judgements: area under the curve of firing against silent examples, ties counted half; 0.5 is chance."""
    firing = np.array([float(one.said) for one in judgements if one.truth and one.said is not None])
    silent = np.array([float(one.said) for one in judgements if not one.truth and one.said is not None])
    groups = sorted({one.group for one in judgements if not one.truth})
    details: dict[str, Any] = {
        "judged": len(firing) + len(silent),
        "unread": len(judgements) - len(firing) - len(silent),
    }
    if min(len(firing), len(silent)) < LEAST_JUDGED:
        return Figures(None, None, None, details)
    wins = (firing[:, None] > silent).astype(float) + 0.5 * (firing[:, None] == silent)
    value = float(wins.mean())
    spread = wins.mean(1).var(ddof=1) / len(firing) + wins.mean(0).var(ddof=1) / len(silent)
    if (
        spread == 0.0
    ):  # all apart, or all tied: DeLong's variance says nothing; Wilson's of so many independent pairs as the smaller side
        low, high = (float(end) for end in wilson(value * min(len(firing), len(silent)), min(len(firing), len(silent))))
    else:
        low, high = max(value - _Z95 * math.sqrt(spread), 0.0), min(value + _Z95 * math.sqrt(spread), 1.0)
    against = {}
    for group in groups:
        here = np.array([float(one.said) for one in judgements if one.group == group and one.said is not None])
        if len(here):
            against[group] = [
                round(float(((firing[:, None] > here) + 0.5 * (firing[:, None] == here)).mean()), 4),
                len(here),
            ]
    return Figures(value, low, high, {**details, "against": against})


def correlation_figures(judgements: Sequence[Judgement], seed: int = 0) -> Figures:
    """Of simulated activations: Pearson's correlation over the tokens of all examples together, not the mean over examples.

    The interval is a percentile bootstrap over examples (1,000 draws); tokens of one context are one example.
    """
    read = [one for one in judgements if one.said is not None]
    rows: dict[int, list[tuple[float, float]]] = {}
    for one in read:
        rows.setdefault(one.sequence, []).append((float(one.truth), float(one.said or 0.0)))
    details: dict[str, Any] = {"judged": len(read), "unread": len(judgements) - len(read), "examples": len(rows)}
    parts = [np.array(row) for row in rows.values()]
    value = _pearson(np.concatenate(parts)) if parts else math.nan
    if len(parts) < LEAST_JUDGED or math.isnan(value):
        return Figures(None, None, None, details)
    drawn = np.random.default_rng(seed).integers(len(parts), size=(_RESAMPLES, len(parts)))
    found = np.array([_pearson(np.concatenate([parts[place] for place in row])) for row in drawn])
    found = found[~np.isnan(found)]
    low, high = (
        (float(end) for end in np.quantile(found, [0.025, 0.975])) if len(found) > _RESAMPLES // 2 else (-1.0, 1.0)
    )
    return Figures(value, min(low, value), max(high, value), details)


def _pearson(pairs_N2: Floats) -> float:
    truth, said = pairs_N2[:, 0] - pairs_N2[:, 0].mean(), pairs_N2[:, 1] - pairs_N2[:, 1].mean()
    scale = math.sqrt(float((truth**2).sum() * (said**2).sum()))
    return float(np.clip((truth * said).sum() / scale, -1.0, 1.0)) if scale > 0 else math.nan


def _by_group(judgements: Sequence[Judgement], *, truth: bool) -> dict[str, Any]:
    """Of each group the share that was called firing."""
    groups: dict[str, list[float]] = {}
    for one in judgements:
        if bool(one.truth) == truth:
            groups.setdefault(one.group, []).append(float(one.said or 0))
    found = {}
    for group, said in sorted(groups.items()):
        low, high = wilson(sum(said), len(said))
        found[group] = {
            "share": round(sum(said) / len(said), 4),
            "low": round(float(low), 4),
            "high": round(float(high), 4),
            "examples": len(said),
        }
    return found
