"""Blind tasks in the browser: one question after the other, and what all answers come to.

A page with a question tells neither who wrote the label nor whether the feature fires, nor anything that either could be looked up by: a
task is named by a digest with a secret of this server.
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from neuronmap.errors import WebError
from neuronmap.interpretation.labels.acts import Author, Label, Verdict
from neuronmap.web.caching import Kept
from neuronmap.web.views.labels.panel import ShownLabel, shown_label

if TYPE_CHECKING:
    from neuronmap.interpretation.judging.figures import Figures
    from neuronmap.interpretation.labels.blind import BlindTask
    from neuronmap.interpretation.labels.book import LabelBook
    from neuronmap.web.opened import OpenAnalysis

__all__ = ["BlindPage", "BlindQuestion", "BlindResults", "answer_task", "blind_page", "blind_results"]

_SECRET = secrets.token_bytes(32)
_DRAWN: Kept[list[BlindTask]] = Kept(16)
_WRITING = threading.Lock()
_LEAST_LABELS = 1


class BlindQuestion(BaseModel):
    """One question: does this label say that the feature fires in this passage?"""

    task: str = Field(description="Its name, for the answer.")
    label: str = Field(description="The label; whose it is is not told.")
    passage: str = Field(description="The passage; whether the feature fires in it is not told.")


class BlindPage(BaseModel):
    """Where a reviewer stands."""

    sae: str
    seed: int
    who: str
    fixed: bool
    done: int = Field(description="Questions of this seed that the reviewer has answered.")
    total: int = Field(description="Questions of this seed.")
    question: BlindQuestion | None = Field(description="The next one; null when all are answered, or there are none.")
    note: str = Field(default="", description="Why there are none.")


class GroupFigure(BaseModel):
    """A share with its 95 % interval."""

    group: str
    share: float
    low: float
    high: float
    examples: int


class JudgedLabel(BaseModel):
    """What people's answers about a label come to."""

    label: ShownLabel | None = Field(
        description="The label, with its scores by other protocols; null if it does not hold any more."
    )
    text: str
    by: str
    author_kind: str
    feature: int
    value: float | None = Field(description="Balanced accuracy; null where too little was answered.")
    low: float | None
    high: float | None
    positives: int = Field(description="Passages with firing that were judged.")
    negatives: int
    unread: int = Field(description="Passages of which nobody could tell.")
    tied: int = Field(description="Passages on which reviewers were evenly split; they count as half right.")
    reviewers: list[str]
    recall: list[GroupFigure] = Field(description="By fifth of the firings, the weakest first.")
    false_positives: list[GroupFigure] = Field(description="By kind of passage without firing.")


class BlindResults(BaseModel):
    """What all answers about an SAE's labels come to."""

    sae: str
    labels: list[JudgedLabel] = Field(description="The best first.")
    shuffled: JudgedLabel | None = Field(
        description="Labels shown for another feature: what one that says nothing gets."
    )
    alpha: float | None = Field(description="Krippendorff's alpha among reviewers; null where it cannot be told.")
    alpha_low: float | None = Field(description="95 % interval, whole features resampled; null with fewer than four.")
    alpha_high: float | None
    compared: int = Field(description="Questions that two reviewers or more answered.")
    reviewers: list[str]
    answers: int
    compared_features: int = Field(description="Features that these questions are about.")
    note: str = Field(description="Why there is no alpha, or no interval of it; empty if there are both.")


def blind_page(
    book: LabelBook | None, analysed: OpenAnalysis, sae: str, seed: int, name: str, fixed: bool
) -> BlindPage:
    """The next question of a reviewer.

    Args:
        book: None where nobody has said anything yet.
        analysed: where the passages are from.
        sae: id of the SAE.
        seed: decides the questions: reviewers with the same one can be compared.
        name: of the reviewer; empty where it is not known.
        fixed: whether it is that of an account.
    """
    tasks = _tasks(book, analysed, seed, name) if book is not None else []
    page = BlindPage(sae=sae, seed=seed, who=name, fixed=fixed, done=0, total=len(tasks), question=None)
    if book is None or not tasks:
        page.note = (
            "No label can be judged yet: features need labels, and enough places in the analysed text where they fire."
        )
        return page
    open_tasks = _open(book, tasks, analysed.weights, name)
    page.done = len(tasks) - len(open_tasks)
    if open_tasks and name:
        task = open_tasks[0]
        page.question = BlindQuestion(task=task.token(_SECRET), label=task.label.text, passage=task.shown.text)
    return page


def answer_task(
    book: LabelBook, analysed: OpenAnalysis, seed: int, token: str, said: bool | None, reviewer: Author
) -> None:
    """Write an answer down; with the last one of a seed, the scores by people are made anew.

    Raises:
        WebError: 409, there is no such question now: labels have changed, the server was started anew, or it is answered already.
    """
    from neuronmap.interpretation.labels.blind import judged_labels, people_score, verdict_of

    with _WRITING:  # two clicks at once are one answer
        tasks = _tasks(book, analysed, seed, reviewer.name)
        open_tasks = _open(book, tasks, analysed.weights, reviewer.name)
        task = next((one for one in open_tasks if secrets.compare_digest(one.token(_SECRET), token)), None)
        if task is None:
            raise WebError(
                409,
                "no_such_task",
                "There is no such question now: it was answered, or labels have changed meanwhile.",
                hint="Go on with the next one.",
            )
        book.add([verdict_of(task, reviewer, said, analysed.key)])
        if len(open_tasks) > 1:
            return
        results = judged_labels(_verdicts(book, analysed.weights))
        asked = {one.label.id for one in tasks}
        scores = [people_score(one, analysed.weights, results.shuffled) for one in results.labels if one.label in asked]
        book.add([one for one in scores if book.held(one.label) is not None])


def blind_results(book: LabelBook | None, sae: str, weights: str) -> BlindResults:
    """What all answers come to, people's and machines' labels by one protocol.

    Args:
        book: None where nobody has said anything yet.
        sae: id of the SAE.
        weights: digest of its weights.
    """
    from neuronmap.interpretation.labels.agreement import verdict_agreement
    from neuronmap.interpretation.labels.blind import judged_labels

    verdicts = _verdicts(book, weights) if book is not None and weights else []
    results, agreement = judged_labels(verdicts), verdict_agreement(verdicts)
    labels = []
    for one in results.labels:
        act = book.get(one.label) if book is not None else None
        held = book.held(one.label) if book is not None else None
        if isinstance(act, Label):
            shown = shown_label(held) if held is not None else None
            labels.append(_judged(one.figures, act, shown, list(one.reviewers)))
    return BlindResults(
        sae=sae,
        labels=labels,
        shuffled=_judged(results.shuffled, None, None, []) if results.shuffled is not None else None,
        alpha=agreement.alpha,
        alpha_low=agreement.low,
        alpha_high=agreement.high,
        compared=agreement.units,
        compared_features=agreement.clusters,
        reviewers=sorted({one.author.name for one in verdicts}),
        answers=len(verdicts),
        note=agreement.note,
    )


def _tasks(book: LabelBook, analysed: OpenAnalysis, seed: int, name: str) -> list[BlindTask]:
    """The tasks of a seed without those about the reviewer's own labels: these they would know again."""
    from neuronmap.interpretation.labels.blind import draw_tasks

    labels = book.drawn_from(analysed.weights)
    drawn = _DRAWN.get(
        (analysed.key, seed, labels), lambda: draw_tasks(book, analysed.store, analysed.weights, seed=seed)
    )
    return [task for task in drawn if (task.label.author.kind, task.label.author.name) != ("person", name)]


def _verdicts(book: LabelBook, weights: str) -> list[Verdict]:
    return [one for one in book.acts(weights, ("verdict",)) if isinstance(one, Verdict)]


def _open(book: LabelBook, tasks: list[BlindTask], weights: str, name: str) -> list[BlindTask]:
    """Those that a reviewer has not answered, in order."""
    if not name:
        return tasks
    done = {
        (one.label, one.judgement.sequence, one.judgement.position, one.judgement.group)
        for one in book.acts(weights, ("verdict",), author=Author(kind="person", name=name))
        if isinstance(one, Verdict)
    }
    return [task for task in tasks if (*task.place, task.group) not in done]


def _judged(figures: Figures, label: Label | None, shown: ShownLabel | None, reviewers: list[str]) -> JudgedLabel:
    details = figures.details
    return JudgedLabel(
        label=shown,
        text=label.text if label is not None else "labels of other features",
        by=label.author.name if label is not None else "",
        author_kind=label.author.kind if label is not None else "",
        feature=label.feature if label is not None else -1,
        value=figures.value,
        low=figures.low,
        high=figures.high,
        positives=details["positives"],
        negatives=details["negatives"],
        unread=details["unread"],
        tied=details["tied"],
        reviewers=reviewers,
        recall=_groups(details["recall"]),
        false_positives=_groups(details["false_positives"]),
    )


def _groups(found: dict[str, dict[str, Any]]) -> list[GroupFigure]:
    return [GroupFigure(group=group, **one) for group, one in found.items()]
