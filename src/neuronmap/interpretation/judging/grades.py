"""Simulation: how strongly the feature fires on each token (Bills et al. 2023); embedding: how near label and text are."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from neuronmap.errors import ConfigError
from neuronmap.interpretation.endpoint import Answer, Question, TokenChoice
from neuronmap.interpretation.explaining.example_sets import FIFTHS, ScoreSet, Shown
from neuronmap.interpretation.judging.figures import Figures, area_figures, correlation_figures
from neuronmap.interpretation.judging.scorers import (
    Batch,
    Case,
    Claim,
    Judged,
    Said,
    Scorer,
    Tools,
    integers_schema,
)
from neuronmap.interpretation.labels.acts import Judgement

__all__ = ["EmbeddingScorer", "JsonSimulationScorer", "SimulationScorer", "expected_digits"]

_SILENT_SIMULATED = 5
_LOGPROBS = 20
_LARGEST = 9


class JsonSimulationScorer(Scorer):
    """Whole numbers from 0 to 9, as the language model writes them."""

    name, about = "simulation-json", "a language model predicts each token's activation, as whole numbers"
    headline, chance, usual_tokens, prompt = "correlation", 0.0, 2.2, "simulation"
    top_logprobs = 0

    def batches(self, claim: Claim, examples: ScoreSet, tools: Tools) -> list[Batch]:
        made = []
        for one in _simulated(examples):
            tokens = "\n".join(f"{place} {_visible(text)}" for place, (text, _) in enumerate(one.tokens, 1))
            number = len(one.tokens)
            messages = self.template.messages(claim=claim.text, tokens=tokens, number=str(number))
            schema = integers_schema("activations", number, 0, _LARGEST)
            cases = tuple(
                Case(one.example.sequence, one.example.start + place, one.group, value)
                for place, (_, value) in enumerate(one.tokens)
            )
            made.append(Batch(Question(messages, 24 + 4 * number, schema, self.top_logprobs), cases))
        return made

    def said(self, answer: Answer, batch: Batch) -> tuple[Sequence[Said], str, tuple[str, ...]]:
        if answer.value is None:
            return (), answer.problem, ()
        return [float(one) for one in answer.value["activations"]], "", answer.repairs

    def figures(self, judgements: Sequence[Judgement]) -> Figures:
        return correlation_figures(judgements)


class SimulationScorer(JsonSimulationScorer):
    """The expected number under the log-probabilities of what could have stood in each place."""

    name, about = "simulation", "the same, as expectations under log-probabilities, where the endpoint gives them"
    top_logprobs = _LOGPROBS

    def said(self, answer: Answer, batch: Batch) -> tuple[Sequence[Said], str, tuple[str, ...]]:
        if answer.value is None:
            return (), answer.problem, ()
        if answer.tokens is None:
            raise ConfigError(
                "The endpoint gives no log-probabilities, which simulation needs.",
                hint="--scorer simulation-json does without: it takes the whole numbers as they are written.",
            )
        digits = expected_digits(answer.tokens)
        if len(digits) != len(batch.cases):
            return (), f"malformed: {len(digits)} numbers among its tokens, not {len(batch.cases)}", ()
        return digits, "", answer.repairs


class EmbeddingScorer(Scorer):
    """Cosine of label and text in a sentence encoder; no language model."""

    name, about = "embedding", "a local sentence encoder says how near label and text are; weak, and costs nothing"
    headline, asks = "area under the curve", False

    def batches(self, claim: Claim, examples: ScoreSet, tools: Tools) -> list[Batch]:
        return []

    def figures(self, judgements: Sequence[Judgement]) -> Figures:
        return area_figures(judgements)

    async def judge(self, claim: Claim, examples: ScoreSet, tools: Tools) -> Judged:
        if tools.encoder is None:
            raise ConfigError("embedding needs a sentence encoder, and none is given.")
        shown = (*examples.positives, *examples.negatives)
        vectors = await asyncio.to_thread(tools.encoder.embed, [claim.text, *(one.text for one in shown)])
        cosines = [round(float(one), 5) for one in vectors[1:] @ vectors[0]]
        cases = [Case(*one.place, one.group, one.active) for one in shown]
        return Judged(tuple(case.judged(said) for case, said in zip(cases, cosines, strict=True)))


def expected_digits(tokens: Sequence[TokenChoice]) -> list[float]:
    """The expected number at each token that is one digit, after the first bracket of a list."""
    found: list[float] = []
    inside = False
    for one in tokens:
        bare = one.token.strip(" ,\n")
        if not inside:
            inside = "[" in one.token
            bare = one.token.rpartition("[")[2].strip(" ,\n")
        elif "]" in one.token:
            bare = one.token.partition("]")[0].strip(" ,\n")
        if inside and len(bare) == 1 and bare in "0123456789":
            weights: dict[int, float] = {}
            for text, logprob in one.alternatives:
                digit = text.strip(" ,\n[]}")
                if len(digit) == 1 and digit in "0123456789":
                    weights[int(digit)] = weights.get(int(digit), 0.0) + math.exp(logprob)
            total = sum(weights.values())
            expected = sum(digit * weight for digit, weight in weights.items()) / total if total else float(bare)
            found.append(round(expected, 4))
        if inside and "]" in one.token.rpartition("[")[2]:
            break
    return found


def _simulated(examples: ScoreSet) -> list[Shown]:
    """One text of each fifth, and as many silent ones of every kind in turn."""
    firing = [
        next((one for one in examples.positives if one.group == f"quantile-{fifth}"), None) for fifth in range(FIFTHS)
    ]
    by_kind: dict[str, list[Any]] = {}
    for one in examples.negatives:
        by_kind.setdefault(one.group, []).append(one)
    turns = [kind[rank] for rank in range(_SILENT_SIMULATED) for kind in by_kind.values() if rank < len(kind)]
    return [one for one in firing if one is not None] + turns[:_SILENT_SIMULATED]


def _visible(text: str) -> str:
    shown = text.replace("\n", "⏎").strip(" ")
    return "".join(sign if sign.isprintable() else "�" for sign in shown) or "␣"
