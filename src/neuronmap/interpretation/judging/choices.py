"""Detection and fuzzing: yes or no for each of several numbered texts (Paulo et al. 2024, arXiv 2410.13928)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuronmap.interpretation.endpoint import Answer, Question
from neuronmap.interpretation.endpoint.parsing import read_json_answer
from neuronmap.interpretation.explaining.example_sets import ScoreSet, Shown
from neuronmap.interpretation.explaining.rendering import LEAST_SHARE, marked, numbered, plain
from neuronmap.interpretation.judging.figures import Figures, judged_figures
from neuronmap.interpretation.judging.scorers import (
    Batch,
    Case,
    Claim,
    Said,
    Scorer,
    Tools,
    integers_schema,
    order_of,
)
from neuronmap.interpretation.labels.acts import Judgement

__all__ = ["DetectionScorer", "FuzzingScorer", "wrong_marks"]

_ANSWER_TOKENS = 4
"""Of each answer, at most."""


class _Choices(Scorer):
    """Texts in batches, mixed; one answer for each."""

    def texts(self, examples: ScoreSet, tools: Tools) -> list[tuple[Case, str]]:
        """Each case with its text."""
        raise NotImplementedError

    def batches(self, claim: Claim, examples: ScoreSet, tools: Tools) -> list[Batch]:
        found = self.texts(examples, tools)
        mixed = [found[place] for place in order_of(len(found), tools.seed, examples.feature)]
        number = max(1, -(-len(mixed) // tools.batch))
        made = []
        for part in (mixed[start::number] for start in range(number)):  # of nearly equal size
            messages = self.template.messages(
                claim=claim.text, texts=numbered([text for _, text in part]), number=str(len(part))
            )
            schema = integers_schema("answers", len(part), 0, 1)
            question = Question(messages, 16 + _ANSWER_TOKENS * len(part), schema)
            made.append(Batch(question, tuple(case for case, _ in part)))
        return made

    def said(self, answer: Answer, batch: Batch) -> tuple[Sequence[Said], str, tuple[str, ...]]:
        if answer.value is not None:
            return [bool(one) for one in answer.value["answers"]], "", answer.repairs
        schema = batch.question.schema or {}
        bare, repairs, fault = read_json_answer(answer.text, schema["properties"]["answers"])
        if fault or not answer.text:
            return (), answer.problem or fault, ()
        return [bool(one) for one in bare], "", (*repairs, "a list without its name")

    def figures(self, judgements: Sequence[Judgement]) -> Figures:
        return judged_figures(judgements)


class DetectionScorer(_Choices):
    """Does the feature fire in this text?"""

    name, about = "detection", "a language model says in which texts it fires"

    def texts(self, examples: ScoreSet, tools: Tools) -> list[tuple[Case, str]]:
        return [(_case(one), plain(one)) for one in (*examples.positives, *examples.negatives)]


class FuzzingScorer(_Choices):
    """Are the marked tokens those that the feature fires on?

    Firing texts have their own marks. Silent texts have as many as firing ones have on average: around the place of the hard negative, or
    anywhere. Up to five further firing texts have marks on tokens where the feature is silent (group ``wrong-marks``).
    """

    name, about = "fuzzing", "a language model says whether the marked tokens are those it fires on"

    def texts(self, examples: ScoreSet, tools: Tools) -> list[tuple[Case, str]]:
        number = max(1, round(float(np.mean([_strong(one) for one in examples.positives]))))
        drawn = np.random.default_rng([tools.seed, examples.feature, 1])
        found = [(_case(one), marked(one)) for one in examples.positives]
        for one in examples.negatives:
            tokens = wrong_marks(one, number, drawn, at_place=one.group.startswith("hard"))
            found += [(_case(one), marked(one, tokens))]
        for one in examples.spare:
            tokens = wrong_marks(one, number, drawn)
            if tokens:
                found.append((Case(*one.place, "wrong-marks", False), marked(one, tokens)))
        return found


def wrong_marks(shown: Shown, number: int, drawn: np.random.Generator, *, at_place: bool = False) -> set[int]:
    """Places of tokens to mark although the feature is silent on them.

    Args:
        shown: the example.
        number: how many.
        drawn: random numbers.
        at_place: begin with the token that the example is of (the feature's own token, or the neighbour's peak).
    """
    usable = [place for place, (text, value) in enumerate(shown.tokens) if value == 0 and text.strip()]
    chosen: list[int] = []
    if at_place and usable:
        chosen = [min(usable, key=lambda place: abs(place - _peak(shown)))]
    others = [place for place in usable if place not in chosen]
    more = drawn.permutation(len(others))[: max(number - len(chosen), 0)]
    return {*chosen, *(others[int(place)] for place in more)}


def _peak(shown: Shown) -> int:
    """Which of the shown tokens the example's position is, about: special tokens before it are not shown."""
    left_out = len(shown.example.token_ids) - len(shown.tokens)
    return max(shown.example.peak - max(left_out, 0), 0) if left_out else shown.example.peak


def _strong(shown: Shown) -> int:
    return sum(value > 0 and value >= LEAST_SHARE * shown.peak for _, value in shown.tokens)


def _case(shown: Shown) -> Case:
    return Case(*shown.place, shown.group, shown.active)
