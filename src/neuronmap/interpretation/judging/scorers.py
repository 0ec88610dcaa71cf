"""Scorers: how a label is put to the test. Each shows a judge the label and examples of the score half, never whether the feature fires.

| name | the judge | says | headline |
| --- | --- | --- | --- |
| ``detection`` | a language model | whether the feature fires in a text | balanced accuracy |
| ``fuzzing`` | a language model | whether the marked tokens are those it fires on | balanced accuracy |
| ``simulation`` | one with log-probabilities | how strongly it fires on each token | correlation |
| ``simulation-json`` | a language model | the same as whole numbers | correlation |
| ``embedding`` | a local sentence encoder | how near label and text are | area under the curve |
| ``intruder`` | a language model | which of five texts does not belong; it does not see the label | share right |

Embedding scores agree weakly with people's ratings (arXiv 2410.13928, 4.3): they are cheap, and weak. A plug-in adds its own through the
hook ``neuronmap_scorers``: objects of subclasses of :class:`Scorer`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from neuronmap.errors import ConfigError
from neuronmap.interpretation.endpoint import Answer, Endpoint, Question, Usage
from neuronmap.interpretation.explaining.example_sets import ScoreSet
from neuronmap.interpretation.explaining.templates import PromptTemplate, read_template
from neuronmap.interpretation.judging.figures import Figures
from neuronmap.interpretation.labels.acts import Judgement

__all__ = [
    "Batch",
    "Case",
    "Claim",
    "Encoder",
    "Judged",
    "Said",
    "Scorer",
    "Tools",
    "integers_schema",
    "order_of",
]

Said = bool | float | None


class Claim(NamedTuple):
    """What is put to the test.

    Attributes:
        label: short.
        explanation: long; may be empty.
    """

    label: str
    explanation: str = ""

    @property
    def text(self) -> str:
        """Both, on one line."""
        return " ".join(f"{self.label}. {self.explanation}".split()).strip() if self.explanation else self.label


class Case(NamedTuple):
    """What one judgement will be of; see :class:`~neuronmap.interpretation.labels.acts.Judgement`."""

    sequence: int
    position: int
    group: str
    truth: bool | float

    def judged(self, said: Said) -> Judgement:
        """With what was said."""
        return Judgement(sequence=self.sequence, position=self.position, group=self.group, truth=self.truth, said=said)


@dataclass(frozen=True)
class Batch:
    """One question, and the cases that its answer decides, in order."""

    question: Question
    cases: tuple[Case, ...]


class Encoder(Protocol):
    """A sentence encoder (:class:`neuronmap.models.sentences.SentenceEncoder`)."""

    def embed(self, sentences: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [N, D], unit vectors."""
        ...


@dataclass(frozen=True)
class Tools:
    """What scorers work with.

    Attributes:
        endpoint: of the judge; None where there is none.
        encoder: of sentences; None where there is none.
        batch: examples in one question.
        seed: of their order, and of wrong marks.
    """

    endpoint: Endpoint | None = None
    encoder: Encoder | None = None
    batch: int = 15
    seed: int = 0


@dataclass(frozen=True)
class Judged:
    """Everything that was said.

    Attributes:
        judgements: every answer; in the order of the cases.
        usage: tokens.
        problems: (problem, text) of answers that could not be read.
        repairs: what was done to read others.
    """

    judgements: tuple[Judgement, ...]
    usage: Usage = field(default_factory=Usage)
    problems: tuple[tuple[str, str], ...] = ()
    repairs: tuple[str, ...] = ()


class Scorer:
    """One way to score a label. Subclasses that ask a language model write :meth:`batches`, :meth:`said` and :meth:`figures`."""

    name: ClassVar[str]
    """What ``--scorer`` calls it."""
    about: ClassVar[str]
    """One line for people."""
    version: ClassVar[int] = 1
    """Of prompt and protocol."""
    headline: ClassVar[str] = "balanced accuracy"
    """What the value is."""
    chance: ClassVar[float] = 0.5
    """What guessing gives."""
    asks: ClassVar[bool] = True
    """Whether a language model is asked."""
    of_label: ClassVar[bool] = True
    """Whether the judge sees the label; otherwise it is about the feature alone, and has no baselines."""
    usual_tokens: ClassVar[float] = 2.5
    """Of an answer for each case, for estimates."""
    prompt: ClassVar[str] = ""
    """Name of the prompt's file; the scorer's own name where empty."""

    @property
    def protocol(self) -> str:
        """As scores say it."""
        return f"{self.name}@{self.version}"

    @property
    def template(self) -> PromptTemplate:
        """The prompt."""
        return read_template("neuronmap.interpretation.judging.prompts", self.prompt or self.name, self.version)

    @property
    def prompt_digest(self) -> str | None:
        """Of the prompt's file; None where there is none."""
        return self.template.digest if self.asks else None

    def batches(self, claim: Claim, examples: ScoreSet, tools: Tools) -> list[Batch]:
        """The questions."""
        raise NotImplementedError

    def said(self, answer: Answer, batch: Batch) -> tuple[Sequence[Said], str, tuple[str, ...]]:
        """What an answer says of each case, the problem where it cannot be read, and what was repaired."""
        raise NotImplementedError

    def figures(self, judgements: Sequence[Judgement]) -> Figures:
        """The headline and what is beside it."""
        raise NotImplementedError

    async def judge(self, claim: Claim, examples: ScoreSet, tools: Tools) -> Judged:
        """Put a claim to the test.

        Raises:
            ConfigError: there is no endpoint, or it lacks what is needed.
            BudgetError, EndpointError: as :meth:`~neuronmap.interpretation.endpoint.Endpoint.ask`.
        """
        if tools.endpoint is None:
            raise ConfigError(f"{self.name} asks a language model, and no endpoint is given.")
        batches = self.batches(claim, examples, tools)
        waiting = [asyncio.ensure_future(tools.endpoint.ask(batch.question)) for batch in batches]
        await asyncio.gather(*waiting, return_exceptions=True)  # what is paid is waited for, and kept on disk
        answers = [done.result() for done in waiting]
        judgements: list[Judgement] = []
        problems: list[tuple[str, str]] = []
        repairs: list[str] = []
        usage = Usage()
        for batch, answer in zip(batches, answers, strict=True):
            said, problem, repaired = self.said(answer, batch)
            if problem:
                problems.append((problem, answer.raw[:500]))
                said = [None] * len(batch.cases)
            judgements += [case.judged(one) for case, one in zip(batch.cases, said, strict=True)]
            repairs += repaired
            usage = usage + replace(answer.usage, cached=False)
        return Judged(tuple(judgements), usage, tuple(problems), tuple(dict.fromkeys(repairs)))


def order_of(number: int, seed: int, feature: int, salt: int = 0) -> list[int]:
    """A shuffle that is the same for the same seed and feature."""
    return [int(place) for place in np.random.default_rng([seed, feature, salt]).permutation(number)]


def integers_schema(name: str, number: int, low: int, high: int) -> dict[str, Any]:
    """Of an object with one list of so many whole numbers."""
    entries = {"type": "integer", "minimum": low, "maximum": high}
    if (low, high) == (0, 1):
        entries = {"type": "integer", "enum": [0, 1]}
    return {
        "type": "object",
        "properties": {name: {"type": "array", "items": entries, "minItems": number, "maxItems": number}},
        "required": [name],
        "additionalProperties": False,
    }
