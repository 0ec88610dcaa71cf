"""Whether reviewers agree: Krippendorff's alpha for yes-or-no answers, with answers missing, and an interval by resampling examples.

The resamples are those of :func:`neuronmap.statistics.draw_clusters`, drawn here without torch, which a server must not load.

Alpha is 1 - observed over expected disagreement (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"): 1 is perfect, 0 is
what throwing the answers together at random would give, below 0 is systematic disagreement.

Shapes: N units, R resamples.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from neuronmap.interpretation.labels.acts import Verdict

__all__ = ["Agreement", "agreement_of", "krippendorff_alpha", "verdict_units"]

RESAMPLES = 1000
_LEAST_UNITS = 2


@dataclass(frozen=True)
class Agreement:
    """How far reviewers agree.

    Attributes:
        alpha: Krippendorff's alpha; None where nobody can be compared, or all gave the same answer everywhere.
        low, high: 95 % interval over resamples of whole units; None likewise.
        units: examples with two answers or more.
        answers: answers on these.
        reviewers: who gave any answer that counts.
        note: why there is no alpha; empty if there is one.
    """

    alpha: float | None
    low: float | None
    high: float | None
    units: int
    answers: int
    reviewers: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def krippendorff_alpha(units: Iterable[Sequence[Hashable]], weights: Sequence[float] | None = None) -> float | None:
    """Krippendorff's alpha for names (nominal data).

    Args:
        units: the answers that each unit got; missing ones are left out, so units may have different numbers of answers.
        weights: how often each unit counts; once when left out.

    Returns:
        None where no unit has two answers, or all answers are the same: chance cannot be told then.
    """
    coincidence: dict[tuple[Hashable, Hashable], float] = defaultdict(float)
    for at, answers in enumerate(units):
        weight = 1.0 if weights is None else float(weights[at])
        if len(answers) < 2 or not weight:
            continue
        counts = Counter(answers)
        for one, number in counts.items():
            for other, times in counts.items():
                pairs = number * (number - 1) if one == other else number * times
                coincidence[one, other] += weight * pairs / (len(answers) - 1)
    totals: dict[Hashable, float] = defaultdict(float)
    for (one, _), count in coincidence.items():
        totals[one] += count
    everything = sum(totals.values())
    observed = sum(count for (one, other), count in coincidence.items() if one != other)
    expected = everything**2 - sum(count**2 for count in totals.values())
    if everything <= 1 or expected <= 1e-12:
        return None
    return 1.0 - (everything - 1) * observed / expected


def agreement_of(
    units: Mapping[Hashable, Mapping[str, Hashable]], *, resamples: int = RESAMPLES, seed: int = 0
) -> Agreement:
    """Alpha with its interval.

    Args:
        units: unit -> reviewer -> answer; who gave none is left out.
        resamples: R, of whole units with replacement; those in which all answers are the same are left out.
        seed: of the resamples.
    """
    compared = [list(answers.values()) for answers in units.values() if len(answers) > 1]
    reviewers = {name for answers in units.values() if len(answers) > 1 for name in answers}
    shape = len(compared), sum(map(len, compared)), len(reviewers)
    alpha = krippendorff_alpha(compared)
    if alpha is None:
        note = (
            "no example was judged by two reviewers"
            if not compared
            else "all answers are the same, so chance cannot be told"
        )
        return Agreement(None, None, None, *shape, note=note)
    if len(compared) < _LEAST_UNITS:
        return Agreement(alpha, None, None, *shape)
    count = len(compared)
    weights_RN = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    drawn = [krippendorff_alpha(compared, weights_N) for weights_N in weights_RN]
    found = np.array([one for one in drawn if one is not None])
    if len(found) < 0.5 * resamples:
        return Agreement(alpha, None, None, *shape)
    low, high = (float(end) for end in np.quantile(found, (0.025, 0.975)))
    return Agreement(alpha, low, high, *shape)


def verdict_units(verdicts: Iterable[Verdict]) -> dict[Hashable, dict[str, Hashable]]:
    """Answers of blind tasks by example of a label and reviewer, for :func:`agreement_of`; "cannot tell" is no answer."""
    units: dict[Hashable, dict[str, Hashable]] = {}
    for one in verdicts:
        said = one.judgement.said
        if said is not None:
            place = (one.label, one.analysis, one.judgement.sequence, one.judgement.position, one.judgement.group)
            units.setdefault(place, {})[one.author.name] = said > 0
    return units
