"""Scores for many labels: example sets, judges, baselines beside; each score is kept as soon as it is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from neuronmap import progress as progress_module
from neuronmap.errors import ConfigError, InputError
from neuronmap.features.storage.store import FeatureStore
from neuronmap.interpretation.endpoint import AnswerCache, Endpoint, EndpointConfig, Limit, Spending
from neuronmap.interpretation.endpoint.working import run, work
from neuronmap.interpretation.explaining.example_sets import HARD_EACH, RANDOM, Activations, ScoreSet, score_sets
from neuronmap.interpretation.explaining.halves import Halves
from neuronmap.interpretation.explaining.making import Estimate, Failure, sae_digest
from neuronmap.interpretation.judging.agreement import Agreement, agreements
from neuronmap.interpretation.judging.baselines import BASELINES, RulePredictions, said_briefly, shuffled
from neuronmap.interpretation.judging.figures import Figures
from neuronmap.interpretation.judging.registry import scorer_of
from neuronmap.interpretation.judging.scorers import Claim, Encoder, Judged, Scorer, Tools
from neuronmap.interpretation.labels.acts import Author, Label, Score, stamp
from neuronmap.progress import Progress, Task

__all__ = ["ScoreReport", "estimate_scoring", "score_labels"]

ENCODER_NAME = "all-MiniLM-L6-v2"
_SETS_AT_ONCE = 16
_MOST_PROBLEMS = 5


@dataclass
class ScoreReport:
    """What came of it.

    Attributes:
        scores: made now.
        known: were there already (same label, protocol, judge, prompt and analysis).
        impossible: labels that cannot be scored, and why.
        refused: scorers that cannot work with this endpoint, and why.
        stopped: why it ended early, where that is the budget; empty otherwise.
        spent: calls, tokens, money; baselines are in it.
        baseline_tokens: of these, the tokens for baselines.
        seconds: how long it took.
    """

    scores: list[Score] = field(default_factory=list)
    known: int = 0
    impossible: list[Failure] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    stopped: str = ""
    spent: Spending = field(default_factory=Spending)
    baseline_tokens: int = 0
    seconds: float = 0.0

    @property
    def agreements(self) -> list[Agreement]:
        """Of every two scorers, over the labels that both scored now."""
        return agreements(self.scores)


class _Asked(NamedTuple):
    """One score to be made."""

    label: Label
    scorer: Scorer
    examples: ScoreSet


def score_labels(
    store: FeatureStore,
    labels: Sequence[Label],
    *,
    scorers: Sequence[str] = ("detection", "fuzzing", "embedding"),
    endpoint: EndpointConfig | None = None,
    encoder: Encoder | None = None,
    reader: Activations | None = None,
    baselines: Sequence[str] = BASELINES,
    batch: int = 15,
    seed: int = 0,
    limit: Limit | None = None,
    known: Iterable[Score] = (),
    keep: Callable[[Score], None] = lambda _: None,
    cache: AnswerCache | None = None,
    progress: Progress | None = None,
) -> ScoreReport:
    """Score labels on documents that they were not made from.

    Args:
        store: the analysis.
        labels: of its SAE; those of the output side cannot be scored by firing, and are reported.
        scorers: their names, see :func:`~neuronmap.interpretation.judging.registry.scorers`.
        endpoint: where the judge answers; not needed by scorers that ask none.
        encoder: of sentences, for ``embedding``.
        reader: reads activations anew, for negatives where neighbours fire; None: these are missing, and the scores say so.
        baselines: which of ``shuffled``, ``rule`` and ``prediction`` are made beside each score.
        batch: examples in one question.
        seed: of orders, random places and which label is another's baseline.
        limit: the most that may be spent.
        known: scores that are there; what they hold is not made again.
        keep: is given each score as soon as it is made.
        cache: answers on disk.
        progress: where bars go.

    Raises:
        ConfigError: an unknown scorer or baseline, one that needs an endpoint without one, a key that is not set.
        InputError: a label of another SAE, or of a feature that there is not.
        EndpointError: the endpoint fails; scores made so far were kept.
        Interrupted: on Ctrl-C, likewise.

    Example:
        >>> from neuronmap.interpretation import score_labels                                            # doctest: +SKIP
        >>> report = score_labels(store, labels, scorers=["embedding"], encoder=SentenceEncoder.load())  # doctest: +SKIP
        >>> [(score.value, score.low, score.high) for score in report.scores]                            # doctest: +SKIP
    """
    chosen = _chosen(scorers, endpoint, baselines, batch)
    report = ScoreReport()
    judge = _Judge(store, labels, chosen, baselines, seed, set(map(_identity, known)), report, keep)
    judge.config, judge.reader = endpoint, reader
    bars = progress or progress_module.default()
    started = time.monotonic()

    async def all_scored(client: Endpoint | None) -> str:
        tools = Tools(client, encoder, batch, seed)
        workers = endpoint.concurrency if endpoint is not None else 1
        with bars.task("Scoring", len(labels) * len(chosen), "scores") as task:
            return await work(judge.asked(task), lambda asked: judge.make(asked, tools, task), workers)

    async def main() -> str:
        if endpoint is None or not any(one.asks for one in chosen):
            return await all_scored(None)
        async with Endpoint(endpoint, limit, cache) as client:
            report.spent = client.spent
            return await all_scored(client)

    try:
        report.stopped = run(main)
    finally:
        report.seconds = time.monotonic() - started
    return report


def estimate_scoring(
    store: FeatureStore,
    labels: Sequence[Label],
    endpoint: EndpointConfig,
    *,
    scorers: Sequence[str] = ("detection", "fuzzing", "embedding"),
    baselines: Sequence[str] = BASELINES,
    batch: int = 15,
    seed: int = 0,
    known: Iterable[Score] = (),
) -> Estimate:
    """What :func:`score_labels` would take, baselines counted; same arguments and errors, and nothing is asked.

    The language model that was analysed is not read; for the negatives that it would tell others stand in.
    """
    chosen = [one for one in _chosen(scorers, endpoint, baselines, batch) if one.asks]
    report = ScoreReport()
    judge = _Judge(store, labels, chosen, baselines, seed, set(map(_identity, known)), report, lambda _: None)
    judge.config, judge.estimating = endpoint, True
    tools = Tools(batch=batch, seed=seed)
    calls = prompt = completion = most = 0

    async def count() -> None:
        nonlocal calls, prompt, completion, most
        async for asked in judge.asked(None):
            for claim in judge.claims(asked):
                for batched in asked.scorer.batches(claim, asked.examples, tools):
                    calls += 1
                    prompt += batched.question.expected_prompt
                    completion += round(asked.scorer.usual_tokens * len(batched.cases)) + 5
                    most += batched.question.most_prompt + batched.question.max_tokens

    run(count)
    return Estimate(
        calls, prompt, completion, most, endpoint.cost(prompt, completion), report.known, len(report.impossible)
    )


def _chosen(
    names: Sequence[str], endpoint: EndpointConfig | None, baselines: Sequence[str], batch: int
) -> list[Scorer]:
    chosen = [scorer_of(name) for name in dict.fromkeys(names)]
    if not chosen:
        raise ConfigError("No scorer was named.")
    wrong = [name for name in baselines if name not in BASELINES]
    if wrong:
        raise ConfigError(f"There is no baseline {wrong[0]!r}.", hint=f"There are: {', '.join(BASELINES)}.")
    if not 1 <= batch <= 100:
        raise ConfigError(f"batch = {batch}: 1 to 100 examples go into one question.")
    asking = [one.name for one in chosen if one.asks]
    if asking and endpoint is None:
        free = ", ".join(one.name for one in chosen if not one.asks) or "embedding"
        raise ConfigError(
            f"{', '.join(asking)} asks a language model, and no endpoint is given.",
            hint=f"Give --endpoint and --model, or only scorers that need none: --scorer {free}",
        )
    return chosen


class _Judge:
    def __init__(
        self,
        store: FeatureStore,
        labels: Sequence[Label],
        chosen: Sequence[Scorer],
        baselines: Sequence[str],
        seed: int,
        known: set[tuple[Any, ...]],
        report: ScoreReport,
        keep: Callable[[Score], None],
    ) -> None:
        self.store, self.chosen, self.baselines = store, chosen, baselines
        self.seed, self.known, self.report, self.keep = seed, known, report, keep
        self.halves, self.sae = Halves(store), sae_digest(store)
        strange = [label for label in labels if label.sae != self.sae]
        if strange:
            raise InputError(f"The label {strange[0].text!r} is of a feature of another SAE than the analysis.")
        for label in labels:
            store.check_feature(label.feature)
        self.labels = list(labels)
        self.other = shuffled(self.labels, seed)
        self.rules = RulePredictions(store)
        self.config: EndpointConfig | None = None
        self.reader: Activations | None = None
        self.estimating = False

    async def asked(self, task: Task | None) -> AsyncIterator[_Asked]:
        """What is to be judged; what is known or impossible goes into the report."""
        waiting: list[tuple[Label, list[Scorer]]] = []
        for label in self.labels:
            wanted = [one for one in self.chosen if self._identity(label, one) not in self.known]
            self.report.known += len(self.chosen) - len(wanted)
            if task is not None and len(wanted) < len(self.chosen):
                task.advance(len(self.chosen) - len(wanted))
            if label.side == "output":
                self._impossible(
                    label, "it is of the output side, and says nothing of where the feature fires", wanted, task
                )
            elif wanted:
                waiting.append((label, wanted))
        for start in range(0, len(waiting), _SETS_AT_ONCE):
            part = waiting[start : start + _SETS_AT_ONCE]
            features = list(dict.fromkeys(label.feature for label, _ in part))
            made = await asyncio.to_thread(score_sets, self.store, features, self.halves, self.reader, self.seed)
            by_feature = dict(zip(features, made, strict=True))
            for label, wanted in part:
                examples = by_feature[label.feature]
                if self.estimating:
                    examples = _filled(examples)
                problem = examples.problem
                if problem:
                    self._impossible(label, problem, wanted, task)
                    continue
                for scorer in wanted:
                    yield _Asked(label, scorer, examples)

    def claims(self, asked: _Asked) -> list[Claim]:
        """The label, and the labels of its baselines."""
        claims = [Claim(asked.label.text, asked.label.explanation)]
        return claims + [claim for _, claim, _ in self._others(asked)]

    async def make(self, asked: _Asked, tools: Tools, task: Task) -> None:
        """Judge, and keep the score."""
        name = asked.scorer.name
        if name not in self.report.refused:
            try:
                score = await self._scored(asked, tools)
            except ConfigError as refused:  # the run goes on without this scorer, and says so
                self.report.refused[name] = str(refused)
            else:
                self.keep(score)
                self.report.scores.append(score)
        spent = self.report.spent
        money = {} if spent.money is None else {"cost": f"{spent.money:.4f}"}
        task.advance(1, tokens=f"{spent.tokens:,}", **money)

    async def _scored(self, asked: _Asked, tools: Tools) -> Score:
        scorer, label, examples = asked.scorer, asked.label, asked.examples
        claim = Claim(label.text, label.explanation)
        judged = await scorer.judge(claim, examples, tools)
        found = scorer.figures(judged.judgements)
        beside: dict[str, Any] = {}
        for name, other, more in self._others(asked):
            theirs = await scorer.judge(other, examples, tools)
            figures = scorer.figures(theirs.judgements)
            beside[name] = {"value": figures.value, "low": figures.low, "high": figures.high, "text": other.label, **more,
                            "unread": figures.details.get("unread", 0), "said": said_briefly(theirs.judgements)}  # fmt: skip
            self.report.baseline_tokens += theirs.usage.total
        if (
            "prediction" in self.baselines
            and scorer.of_label
            and (figures_of := self.rules.judged(examples)) is not None
        ):
            beside["prediction"] = _prediction(figures_of)
        return Score(
            sae=self.sae,
            feature=label.feature,
            author=self._author(scorer),
            at=stamp(),
            label=label.id,
            protocol=scorer.protocol,
            value=found.value,
            low=found.low,
            high=found.high,
            figures=self._figures(scorer, examples, found, judged, beside),
            judgements=judged.judgements,
        )

    def _figures(
        self, scorer: Scorer, examples: ScoreSet, found: Figures, judged: Judged, beside: dict[str, Any]
    ) -> dict[str, Any]:
        figures: dict[str, Any] = {
            "headline": scorer.headline,
            "chance": scorer.chance,
            "analysis": self.store.key,
            "split": self.halves.split,
            **found.details,
            "baselines": beside,
            "tokens": judged.usage.to_dict(),
        }
        if scorer.prompt_digest is not None:
            figures["prompt"] = scorer.prompt_digest
        if not scorer.of_label:
            figures["of_label"] = False
        if examples.missing:
            figures["missing"] = list(examples.missing)
        if judged.problems:
            figures["problems"] = [list(one) for one in judged.problems[:_MOST_PROBLEMS]]
            figures["failed"] = len(judged.problems)
        if judged.repairs:
            figures["repairs"] = list(judged.repairs)
        if self.config is not None and scorer.asks:
            cost = self.config.cost(judged.usage.prompt, judged.usage.completion)
            figures |= {} if cost is None else {"cost": cost}
        return figures

    def _others(self, asked: _Asked) -> list[tuple[str, Claim, dict[str, Any]]]:
        """Baselines that are judged: name, claim, and where it is from."""
        if not asked.scorer.of_label:
            return []
        found: list[tuple[str, Claim, dict[str, Any]]] = []
        other = self.other.get(asked.label.id)
        if "shuffled" in self.baselines and other is not None:
            found.append(("shuffled", Claim(other.text, other.explanation), {"feature": other.feature}))
        rule = self.rules.label(asked.label.feature) if "rule" in self.baselines else ""
        if rule and rule != asked.label.text:
            found.append(("rule", Claim(rule), {}))
        return found

    def _impossible(self, label: Label, problem: str, wanted: Sequence[Scorer], task: Task | None) -> None:
        if wanted:
            self.report.impossible.append(Failure(label.feature, label.method, problem))
            if task is not None:
                task.advance(len(wanted))

    def _author(self, scorer: Scorer) -> Author:
        return Author(kind="model", name=self.config.model if scorer.asks and self.config is not None else ENCODER_NAME)

    def _identity(self, label: Label, scorer: Scorer) -> tuple[Any, ...]:
        return (label.id, scorer.protocol, self._author(scorer).name, scorer.prompt_digest, self.store.key)


def _identity(score: Score) -> tuple[Any, ...]:
    figures = score.figures
    return (score.label, score.protocol, score.author.name, figures.get("prompt"), figures.get("analysis"))


def _filled(examples: ScoreSet) -> ScoreSet:
    """With stand-ins for the negatives that are only known once the model is read, for estimates."""
    there = examples.negatives or examples.positives
    number = RANDOM + 2 * HARD_EACH
    return replace(examples, negatives=tuple((there * number)[:number]))


def _prediction(figures: Figures) -> dict[str, Any]:
    return {"value": figures.value, "low": figures.low, "high": figures.high, "headline": "balanced accuracy",
            "recall": figures.details["recall"], "false_positives": figures.details["false_positives"]}  # fmt: skip
