"""Labels for many features: ask, read, keep each as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from neuronmap import progress as progress_module
from neuronmap.errors import EndpointError, InputError
from neuronmap.features.storage.store import FeatureStore
from neuronmap.interpretation.endpoint import (
    Answer,
    AnswerCache,
    Endpoint,
    EndpointConfig,
    Limit,
    Question,
    Spending,
    Usage,
)
from neuronmap.interpretation.endpoint.working import run, work
from neuronmap.interpretation.explaining.brevity import cut, longest_question, shorten_question, shortened, too_long
from neuronmap.interpretation.explaining.example_sets import ExplainSet, explain_set
from neuronmap.interpretation.explaining.explainers import Explainer, explainer_of
from neuronmap.interpretation.explaining.halves import Halves
from neuronmap.interpretation.explaining.told import Told
from neuronmap.interpretation.labels.acts import Author, Label, stamp
from neuronmap.progress import Progress, Task

__all__ = ["Estimate", "ExplainReport", "Failure", "estimate_explaining", "explain_features", "sae_digest"]

_HOPELESS = 5
"""If the first so many questions are all refused, the rest is not asked."""
_MOST_RAW = 2000


class Failure(NamedTuple):
    """A label that could not be made.

    Attributes:
        feature: of which feature.
        method: by which prompt.
        problem: why.
        raw: what the language model had said.
    """

    feature: int
    method: str
    problem: str
    raw: str = ""


class Estimate(NamedTuple):
    """What asking would take, without asking.

    Attributes:
        calls: questions; not the second ones, for labels that are too long.
        prompt, completion: tokens, estimated (a token for 3.7 characters), of these.
        most: tokens at most, as the budget puts them aside, second questions included.
        money: of the estimate; None without prices.
        known: what is there already and would not be asked.
        impossible: what cannot be asked, for want of examples.
    """

    calls: int
    prompt: int
    completion: int
    most: int
    money: float | None
    known: int
    impossible: int


@dataclass
class ExplainReport:
    """What came of it.

    Attributes:
        labels: made now.
        known: were there already (same author, method, prompt and analysis).
        impossible: features with too few examples, and why.
        failures: answers that held no label.
        stopped: why it ended early, where that is the budget; empty otherwise.
        spent: calls, tokens, money.
        seconds: how long it took.
    """

    labels: list[Label] = field(default_factory=list)
    known: int = 0
    impossible: list[Failure] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    stopped: str = ""
    spent: Spending = field(default_factory=Spending)
    seconds: float = 0.0


class _Asked(NamedTuple):
    """One label to be made."""

    feature: int
    explainer: Explainer
    examples: ExplainSet
    question: Question


def explain_features(
    store: FeatureStore,
    features: Sequence[int],
    endpoint: EndpointConfig,
    *,
    methods: Sequence[str] = ("quantiles",),
    limit: Limit | None = None,
    known: Iterable[Label] = (),
    keep: Callable[[Label], None] = lambda _: None,
    cache: AnswerCache | None = None,
    progress: Progress | None = None,
) -> ExplainReport:
    """Have a language model label features.

    Args:
        store: the analysis.
        features: their numbers.
        endpoint: where the language model answers.
        methods: names of explainers, see :func:`~neuronmap.interpretation.explaining.explainers.explainers`.
        limit: the most that may be spent.
        known: labels that are there; those of the same author, method, prompt and analysis are not made again.
        keep: is given each label as soon as it is made.
        cache: answers on disk.
        progress: where bars go.

    Raises:
        ConfigError: an unknown method, a key that is not set.
        InputError: there is no such feature.
        EndpointError: the endpoint fails; labels made so far were kept.
        Interrupted: on Ctrl-C, likewise.

    Example:
        >>> from neuronmap.interpretation import EndpointConfig, explain_features            # doctest: +SKIP
        >>> endpoint = EndpointConfig(base_url="http://localhost:8000/v1", model="my-model")  # doctest: +SKIP
        >>> report = explain_features(store, [3, 17], endpoint)                               # doctest: +SKIP
        >>> [label.text for label in report.labels]                                           # doctest: +SKIP
    """
    chosen = [explainer_of(name) for name in methods]
    numbers = [store.check_feature(feature) for feature in features]
    report = ExplainReport()
    maker = _Maker(store, endpoint, chosen, set(map(_identity, known)), report, keep)
    bars = progress or progress_module.default()
    started = time.monotonic()

    async def main() -> str:
        async with Endpoint(endpoint, limit, cache) as client:
            report.spent = client.spent
            with bars.task("Explaining", len(numbers) * len(chosen), "labels") as task:
                return await work(
                    maker.questions(numbers, task), lambda asked: maker.make(client, asked, task), endpoint.concurrency
                )

    try:
        report.stopped = run(main)
    finally:
        report.seconds = time.monotonic() - started
    return report


def estimate_explaining(
    store: FeatureStore,
    features: Sequence[int],
    endpoint: EndpointConfig,
    *,
    methods: Sequence[str] = ("quantiles",),
    known: Iterable[Label] = (),
) -> Estimate:
    """What :func:`explain_features` would take; same arguments and errors, and nothing is asked."""
    report = ExplainReport()
    chosen = [explainer_of(name) for name in methods]
    numbers = [store.check_feature(feature) for feature in features]
    maker = _Maker(store, endpoint, chosen, set(map(_identity, known)), report, lambda _: None)
    calls = prompt = completion = most = 0
    again = longest_question()
    for asked in maker.questions(numbers, None):
        calls += 1
        prompt += asked.question.expected_prompt
        completion += asked.explainer.usual_tokens
        most += asked.question.most_prompt + asked.question.max_tokens + again.most_prompt + again.max_tokens
    return Estimate(
        calls, prompt, completion, most, endpoint.cost(prompt, completion), report.known, len(report.impossible)
    )


def sae_digest(store: FeatureStore) -> str:
    """Digest of the weights of the SAE that was analysed, which names it in acts.

    Raises:
        InputError: the analysis does not say (its SAE was never saved).
    """
    digest = (store.facts.get("sae") or {}).get("weights_digest")
    if not digest:
        raise InputError(
            "The analysis does not say of which weights it is, so nothing said of its features could be found again.",
            hint="Put the SAE into the library and analyse it there.",
        )
    return str(digest)


class _Maker:
    def __init__(
        self,
        store: FeatureStore,
        config: EndpointConfig,
        chosen: Sequence[Explainer],
        known: set[tuple[Any, ...]],
        report: ExplainReport,
        keep: Callable[[Label], None],
    ) -> None:
        self.store, self.config, self.chosen, self.known = store, config, chosen, known
        self.report, self.keep = report, keep
        self.halves, self.sae, self.author = Halves(store), sae_digest(store), _author(config)

    def questions(self, features: Sequence[int], task: Task | None) -> Iterator[_Asked]:
        """What is to be asked; what is known or cannot be asked goes into the report."""
        for feature in features:
            wanted = [one for one in self.chosen if self._identity(feature, one) not in self.known]
            self.report.known += len(self.chosen) - len(wanted)
            if task is not None and len(wanted) < len(self.chosen):
                task.advance(len(self.chosen) - len(wanted))
            if not wanted:
                continue
            examples = explain_set(self.store, feature, self.halves)
            for explainer in wanted:
                question = explainer.question(examples, self.store)
                if isinstance(question, str):
                    self.report.impossible.append(Failure(feature, explainer.method, question))
                    if task is not None:
                        task.advance(1)
                else:
                    yield _Asked(feature, explainer, examples, question)

    async def make(self, client: Endpoint, asked: _Asked, task: Task) -> None:
        """Ask, read and keep."""
        answer = await client.ask(asked.question)
        told, usage = asked.explainer.read(answer), answer.usage
        if told.problem:
            self._failed(asked, told, answer)
        else:
            if too_long(told.label):
                told, usage = await self._shortened(client, told, usage)
            label = self._label(asked, told, answer, usage)
            self.keep(label)
            self.report.labels.append(label)
        spent = client.spent
        money = {} if spent.money is None else {"cost": f"{spent.money:.4f}"}
        task.advance(1, tokens=f"{spent.tokens:,}", failed=f"{len(self.report.failures):,}", **money)

    async def _shortened(self, client: Endpoint, told: Told, usage: Usage) -> tuple[Told, Usage]:
        """Ask once more for a label that is too long. Where that cannot be paid or answered it is cut: the first answer is paid for."""
        try:
            again = await client.ask(shorten_question(told))
        except EndpointError:
            return cut(told), usage
        return shortened(told, again), usage + again.usage

    def _failed(self, asked: _Asked, told: Told, answer: Answer) -> None:
        failures = self.report.failures
        failures.append(Failure(asked.feature, asked.explainer.method, told.problem, answer.raw[:_MOST_RAW]))
        refused = [one.problem for one in failures if one.problem.startswith("refused")]
        if not self.report.labels and len(refused) == len(failures) >= _HOPELESS:
            raise EndpointError(
                f"The first {len(failures)} questions were all refused; the last: {refused[-1]}.",
                hint="Check the name of the model and how long its context may be.",
            )

    def _label(self, asked: _Asked, told: Told, answer: Answer, usage: Usage) -> Label:
        explainer = asked.explainer
        evidence: dict[str, Any] = {
            "analysis": self.store.key,
            "split": self.halves.split,
            "prompt": explainer.template.digest,
            "examples": [list(one.place) for one in explainer.shown(asked.examples)],
            "tokens": usage.to_dict(),
            "form": answer.form,
        }
        if asked.examples.missing:
            evidence["missing"] = list(asked.examples.missing)
        if told.repairs:
            evidence["repairs"] = list(told.repairs)
        if told.whole:
            evidence["whole_label"] = told.whole[:_MOST_RAW]
        if (cost := self.config.cost(usage.prompt, usage.completion)) is not None:
            evidence["cost"] = cost
        return Label(
            sae=self.sae,
            feature=asked.feature,
            author=self.author,
            at=stamp(),
            side=explainer.side,
            text=told.label,
            explanation=told.explanation,
            method=explainer.method,
            evidence=evidence,
        )

    def _identity(self, feature: int, explainer: Explainer) -> tuple[Any, ...]:
        author = (self.author.kind, self.author.name)
        return (self.sae, feature, author, explainer.method, explainer.template.digest, self.store.key)


def _identity(label: Label) -> tuple[Any, ...]:
    author = (label.author.kind, label.author.name)
    evidence = label.evidence
    return (label.sae, label.feature, author, label.method, evidence.get("prompt"), evidence.get("analysis"))


def _author(config: EndpointConfig) -> Author:
    return Author(kind="model", name=config.model)
