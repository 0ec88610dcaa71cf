"""Whether reviewers agree: Krippendorff's alpha for yes-or-no answers, with answers missing, and an interval by resampling features.

Questions about one feature are not independent: a label that can be read in two ways divides reviewers on all of its passages, and one
passage is asked about under several labels. What is to be known is how reviewers would agree on other features, so whole features are drawn
with replacement, all their questions with them. The draws are those of :func:`neuronmap.statistics.draw_clusters`, made here without torch,
which a server must not load. With few features (a round asks about six) the interval is wide, and rather too narrow still, as percentile
intervals of few clusters are; below four there is none.

Alpha is 1 - observed over expected disagreement (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"): 1 is perfect, 0 is
what throwing the answers together at random would give, below 0 is systematic disagreement.

Shapes: N units, C clusters, R resamples.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from neuronmap.interpretation.labels.acts import Verdict

__all__ = ["Agreement", "Asked", "agreement_of", "krippendorff_alpha", "verdict_agreement", "verdict_units"]

RESAMPLES = 1000
LEAST_CLUSTERS = 4
"""Features with a question that two answered; with fewer there is no interval."""
_SHUFFLED = re.compile(r"shuffled-(\d+)-")


class Asked(NamedTuple):
    """What a question of a blind task is about.

    Attributes:
        feature: whose passage it is; of a shuffled label not the one that the label is of.
        label: the label's id.
        analysis: key of the analysis that the passage is from.
        sequence, position: where it is.
        group: of the passage.
    """

    feature: int
    label: str
    analysis: str
    sequence: int
    position: int
    group: str


@dataclass(frozen=True)
class Agreement:
    """How far reviewers agree.

    Attributes:
        alpha: Krippendorff's alpha; None where nobody can be compared, or all gave the same answer everywhere.
        low, high: 95 % interval over resamples of whole clusters; None likewise, and with fewer than four clusters.
        units: examples with two answers or more.
        answers: answers on these.
        reviewers: who gave any answer that counts.
        clusters: what is resampled as a whole: features, of verdicts; single units where nothing else was said.
        note: why there is no alpha, or no interval; empty if there are both.
    """

    alpha: float | None
    low: float | None
    high: float | None
    units: int
    answers: int
    reviewers: int
    clusters: int = 0
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
    units: Mapping[Hashable, Mapping[str, Hashable]],
    *,
    cluster: Callable[[Any], Hashable] = lambda unit: unit,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Alpha with its interval.

    Args:
        units: unit -> reviewer -> answer; who gave none is left out.
        cluster: of a unit, what it is resampled with; itself when left out, which takes units for independent.
        resamples: R, of whole clusters with replacement; those in which all answers are the same are left out.
        seed: of the resamples.
    """
    told = {unit: answers for unit, answers in units.items() if len(answers) > 1}
    compared = [list(answers.values()) for answers in told.values()]
    reviewers = {name for answers in told.values() for name in answers}
    numbers: dict[Hashable, int] = {}
    cluster_N = np.array([numbers.setdefault(cluster(unit), len(numbers)) for unit in told], dtype=np.int64)
    count = len(numbers)
    shape = len(compared), sum(map(len, compared)), len(reviewers), count
    alpha = krippendorff_alpha(compared)
    if alpha is None:
        note = (
            "no example was judged by two reviewers"
            if not compared
            else "all answers are the same, so chance cannot be told"
        )
        return Agreement(None, None, None, *shape, note=note)
    if count < LEAST_CLUSTERS:
        few = f"no interval: {count} of at least {LEAST_CLUSTERS} independent parts were judged by two reviewers"
        return Agreement(alpha, None, None, *shape, note=few)
    weights_RC = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    drawn = [krippendorff_alpha(compared, weights_C[cluster_N].tolist()) for weights_C in weights_RC]
    found = np.array([one for one in drawn if one is not None])
    if len(found) < 0.5 * resamples:
        return Agreement(alpha, None, None, *shape, note="no interval: in most resamples all answers are the same")
    low, high = (float(end) for end in np.quantile(found, (0.025, 0.975)))
    return Agreement(alpha, low, high, *shape)


def verdict_units(verdicts: Iterable[Verdict]) -> dict[Hashable, dict[str, Hashable]]:
    """Answers of blind tasks by question (:class:`Asked`) and reviewer, for :func:`agreement_of`; "cannot tell" is no answer. Of several
    answers by one person to one question the newest counts."""
    newest: dict[Hashable, dict[str, bool | float | None]] = {}
    for one in sorted(verdicts, key=lambda one: (one.at, one.id)):
        judged = one.judgement
        shuffled = _SHUFFLED.match(judged.group)
        feature = one.feature if shuffled is None else int(shuffled[1])
        place = Asked(feature, one.label, one.analysis, judged.sequence, judged.position, judged.group)
        newest.setdefault(place, {})[one.author.name] = judged.said
    return {
        place: {name: said > 0 for name, said in answers.items() if said is not None}
        for place, answers in newest.items()
    }


def verdict_agreement(verdicts: Iterable[Verdict]) -> Agreement:
    """How far reviewers of blind tasks agree; whole features are resampled."""
    return agreement_of(verdict_units(verdicts), cluster=lambda asked: asked.feature)
