"""Blind tasks: "does this label say that the feature fires in this passage?", asked of people, who see neither the label's author nor
whether the feature fires. People's, language models' and rules' labels are asked about alike, on the same passages, and so are shuffled
labels, those of another feature, which nobody is told of: what they score is what a label that has nothing to do with the feature gets.

The passages are those that language models judge (:func:`neuronmap.interpretation.explaining.example_sets.score_sets`): half with firing,
from each fifth of the firings, half silent, random ones and hard ones, all from documents that machines' labels were not made from.

Which tasks there are follows from the book, the analysis and a seed alone, so that reviewers with one seed judge the same and can be
compared.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neuronmap.hashing import digest_json, short
from neuronmap.interpretation.judging.figures import Figures, judged_figures
from neuronmap.interpretation.labels.acts import Author, Judgement, Label, Score, Verdict, stamp
from neuronmap.interpretation.labels.people import PEOPLE

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore
    from neuronmap.interpretation.explaining.example_sets import Shown
    from neuronmap.interpretation.labels.book import LabelBook
    from neuronmap.interpretation.labels.held import HeldLabel

__all__ = [
    "PROTOCOL",
    "BlindTask",
    "Judged",
    "Results",
    "draw_tasks",
    "judged_labels",
    "people_score",
    "verdict_of",
]

PROTOCOL = "people@2"
"""Scores by all who judged (:data:`~neuronmap.interpretation.labels.people.PEOPLE`). Version 1 left out passages on which they were evenly
split, so that two reviewers were scored on what they agreed on alone; version 2 counts these half right."""
FEATURES, OF_EACH = 6, 8
_MOST_LABELS = 6
_TIE = 0.5
_SHUFFLED = re.compile(r"shuffled-(\d+)-(.+)")


class BlindTask(NamedTuple):
    """One question.

    Attributes:
        label: whose text is shown.
        shown: the passage.
        group: of the passage; ``shuffled-<feature>-<group>`` where the label is another feature's.
    """

    label: Label
    shown: Shown
    group: str

    @property
    def place(self) -> tuple[str, int, int]:
        """What tells it from every other: label, context, position."""
        return (self.label.id, *self.shown.place)

    def token(self, secret: bytes) -> str:
        """A name of the task that tells nothing to whoever does not have the secret."""
        return short(digest_json([secret.hex(), *self.place, self.group]), 24)


def draw_tasks(
    book: LabelBook,
    store: FeatureStore,
    sae: str,
    *,
    seed: int = 0,
    features: int = FEATURES,
    of_each: int = OF_EACH,
) -> list[BlindTask]:
    """The tasks of a seed, in the order in which they are asked.

    Args:
        book: where the labels are.
        store: the analysis with the passages.
        sae: digest of the weights.
        seed: of the choice and the order.
        features: how many features, at most; those with labels by several authors come first.
        of_each: passages of each label, half with firing; the same for all labels of a feature.
    """
    labels: dict[int, list[HeldLabel]] = defaultdict(list)
    for held in book.labels(sae, side="input", limit=100_000):
        if held.label.feature < store.num_features:
            labels[held.label.feature].append(held)
    rng = np.random.default_rng([seed, 1])
    numbers = sorted(labels)
    rng.shuffle(numbers)
    numbers.sort(key=lambda number: -min(len({held.label.author for held in labels[number]}), 3))
    chosen = _passages(store, numbers, features, of_each, seed)
    tasks = [
        BlindTask(held.label, shown, shown.group)
        for number, passages in chosen.items()
        for held in labels[number][:_MOST_LABELS]
        for shown in passages
    ]
    found = list(chosen)
    for at, number in enumerate(found):
        other = found[(at + 1) % len(found)]
        if other != number:  # one shuffled label a feature: the best one of the next
            label = labels[other][0].label
            tasks += [BlindTask(label, one, f"shuffled-{number}-{one.group}") for one in chosen[number]]
    order = np.random.default_rng([seed, 2]).permutation(len(tasks))
    return [tasks[at] for at in order]


def verdict_of(task: BlindTask, reviewer: Author, said: bool | None, analysis: str) -> Verdict:
    """The act of an answer.

    Args:
        task: the question.
        reviewer: who answers.
        said: yes, no, or None for "cannot tell".
        analysis: key of the analysis that the passage is from.
    """
    sequence, position = task.shown.place
    return Verdict(
        sae=task.label.sae,
        feature=task.label.feature,
        author=reviewer,
        at=stamp(),
        label=task.label.id,
        analysis=analysis,
        judgement=Judgement(sequence=sequence, position=position, group=task.group, truth=task.shown.active, said=said),
    )


class Judged(NamedTuple):
    """What people's answers about a label come to.

    Attributes:
        label: its id.
        feature: its feature.
        figures: of what most reviewers said of each passage; ``tied`` in the details counts those on which they were evenly split.
        judgements: every answer.
        reviewers: who answered.
    """

    label: str
    feature: int
    figures: Figures
    judgements: tuple[Judgement, ...]
    reviewers: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """What people's answers come to.

    Attributes:
        labels: by label.
        shuffled: over all shuffled labels; None where none was judged.
    """

    labels: tuple[Judged, ...]
    shuffled: Figures | None


def judged_labels(verdicts: Iterable[Verdict]) -> Results:
    """Figures of all labels that people judged; of several answers by one person to one question the newest counts.

    Args:
        verdicts: in any order.
    """
    newest = {(one.place(), one.judgement.group): one for one in sorted(verdicts, key=lambda one: (one.at, one.id))}
    by_label: dict[str, list[Verdict]] = defaultdict(list)
    shuffled: list[Judgement] = []
    for one in newest.values():
        match = _SHUFFLED.fullmatch(one.judgement.group)
        if match is None:
            by_label[one.label].append(one)
        else:
            shuffled.append(one.judgement.updated(group=match[2]))
    labels = []
    for label, some in sorted(by_label.items()):
        judgements = tuple(one.judgement for one in some)
        reviewers = tuple(sorted({one.author.name for one in some}))
        labels.append(Judged(label, some[0].feature, _figures(judgements), judgements, reviewers))
    labels.sort(key=lambda one: -1.0 if one.figures.value is None else one.figures.value, reverse=True)
    return Results(tuple(labels), _figures(shuffled) if shuffled else None)


def _figures(judgements: Iterable[Judgement]) -> Figures:
    """Figures of what most said of each passage."""
    said = _majority(judgements)
    figures = judged_figures(said)
    return figures._replace(details={**figures.details, "tied": sum(one.said == _TIE for one in said)})


def _majority(judgements: Iterable[Judgement]) -> list[Judgement]:
    """One judgement a passage, what most said: answers to one passage are no independent examples. A tie is half a yes; where nobody can
    tell there is no answer."""
    by_place: dict[tuple[str, int, int], list[Judgement]] = defaultdict(list)
    for one in judgements:
        by_place[one.group, one.sequence, one.position].append(one)
    found = []
    for some in by_place.values():
        votes = [1 if one.said else -1 for one in some if one.said is not None]
        most = _TIE if sum(votes) == 0 else sum(votes) > 0
        found.append(some[0].updated(said=most if votes else None))
    return found


def people_score(judged: Judged, sae: str, shuffled: Figures | None = None) -> Score:
    """The act with the score of a label by people; it takes the place of the one before.

    Args:
        judged: what people's answers about the label come to.
        sae: digest of the weights.
        shuffled: the baseline beside it.
    """
    figures = judged.figures
    details = {**figures.details, "reviewers": list(judged.reviewers[:100])}
    if shuffled is not None:
        details["baselines"] = {"shuffled": {"value": shuffled.value, "low": shuffled.low, "high": shuffled.high}}
    return Score(
        sae=sae,
        feature=judged.feature,
        author=PEOPLE,
        at=stamp(),
        label=judged.label,
        protocol=PROTOCOL,
        value=figures.value,
        low=figures.low,
        high=figures.high,
        figures=details,
        judgements=judged.judgements[:2000],
    )


def _passages(
    store: FeatureStore, numbers: Sequence[int], features: int, of_each: int, seed: int
) -> dict[int, list[Shown]]:
    """Passages of the first features that have enough: half with firing, spread over the fifths, half silent, spread over their kinds."""
    from neuronmap.interpretation.explaining.example_sets import score_sets
    from neuronmap.interpretation.explaining.halves import Halves

    halves, found = Halves(store), dict[int, list["Shown"]]()
    half = max(of_each // 2, 1)
    for number in numbers:
        if len(found) == features:
            break
        (scored,) = score_sets(store, [number], halves)
        rng = np.random.default_rng([seed, 3, number])
        positives, negatives = (_spread(some, half, rng) for some in (scored.positives, scored.negatives))
        if len(positives) >= min(half, 3) and len(negatives) >= min(half, 3):
            even = min(len(positives), len(negatives))
            found[number] = positives[:even] + negatives[:even]
    return found


def _spread(shown: Sequence[Shown], number: int, rng: np.random.Generator) -> list[Shown]:
    """So many, from each group in turn."""
    groups: dict[str, list[Shown]] = defaultdict(list)
    for at in rng.permutation(len(shown)):
        groups[shown[at].group].append(shown[at])
    order = sorted(groups)
    most = max(map(len, groups.values()), default=0)
    turns = [groups[name][turn] for turn in range(most) for name in order if turn < len(groups[name])]
    return turns[:number]
