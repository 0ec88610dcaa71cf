"""``Endpoint``: asks a language model at an OpenAI-compatible address, patiently and within a budget."""

from __future__ import annotations

import asyncio
import random
import time
from types import TracebackType
from typing import Any, Self

from neuronmap.errors import EndpointError
from neuronmap.interpretation.endpoint.adapting import FORMS, Manner, request_body
from neuronmap.interpretation.endpoint.budget import Budget, Limit, Spending
from neuronmap.interpretation.endpoint.cache import AnswerCache, question_digest
from neuronmap.interpretation.endpoint.config import EndpointConfig
from neuronmap.interpretation.endpoint.parsing import read_json_answer, without_thinking
from neuronmap.interpretation.endpoint.question import Answer, Question, TokenChoice, Usage, estimated_tokens
from neuronmap.interpretation.endpoint.transport import Outcome, Transport

__all__ = ["Endpoint"]

_MOST_RAW = 20_000


class Endpoint:
    """One endpoint for one run: connections, budget, cache, and what it was found not to take. Use it in ``async with``.

    Args:
        config: where, which model, how patiently.
        limit: the most that may be spent.
        cache: answers on disk; None for none.

    Raises:
        ConfigError: the key's variable is not set, or a budget in money has no prices.

    Example:
        >>> async with Endpoint(EndpointConfig(base_url="http://localhost:8000/v1", model="m")) as endpoint:  # doctest: +SKIP
        ...     answer = await endpoint.ask(Question((("user", "Hello"),), max_tokens=10))
    """

    def __init__(self, config: EndpointConfig, limit: Limit | None = None, cache: AnswerCache | None = None) -> None:
        self.config, self.cache = config, cache
        self.budget = Budget(config, limit)
        self._transport = Transport(config)
        self._free = asyncio.Semaphore(config.concurrency)
        self._not_before = 0.0
        self._manner = Manner.from_dict(cache.refused(config)) if cache is not None else Manner()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._transport.close()

    @property
    def spent(self) -> Spending:
        """What this run has cost so far."""
        return self.budget.spent

    @property
    def manner(self) -> Manner:
        """How the endpoint is asked now: what it refused is left out."""
        return self._manner

    async def ask(self, question: Question) -> Answer:
        """Ask, and wait for the answer. An answer that cannot be used comes back with its ``problem``.

        Raises:
            BudgetError: the question does not fit into what is left of the budget.
            EndpointError: the endpoint cannot be reached, refuses the key or the model, or asks to wait too long.
        """
        digest = question_digest(self.config, question)
        kept = self.cache.get(digest) if self.cache is not None else None
        if kept is not None and isinstance(kept.get("body"), dict):
            self.spent.cached += 1
            return _read_answer(kept["body"], question, str(kept.get("form", "text")), cached=True)
        async with self._free:
            body, form, problem = await self._patiently(question)
        if body is None:
            return Answer("", "", "", Usage(), problem=problem)
        answer = _read_answer(body, question, form)
        if self.cache is not None and not answer.problem:
            self.cache.put(digest, {"form": form, "body": _without_ids(body)})
        return answer

    async def _patiently(self, question: Question) -> tuple[dict[str, Any] | None, str, str]:
        """The body of the answer and the form that was asked for; or why the question is refused."""
        manner, tries = self._manner, 0
        while True:
            await self._hold()
            body = request_body(self.config, question, manner)
            outcome = await self._send(question, body)
            if outcome.kind == "answer" and outcome.body is not None:
                self._learn(manner)
                form = FORMS[manner.form] if question.schema is not None else "text"
                return outcome.body, form, ""
            if outcome.kind == "refused":
                changed = manner.after_refusal(outcome.said, body, bounded=self.budget.limited)
                if changed is None:
                    return None, "", f"refused: {outcome.said}"
                manner = changed
                continue
            tries += 1
            if outcome.kind == "fatal" or tries >= self.config.tries:
                raise self._error(outcome, tries)
            self._pause(outcome, tries)
            self.spent.retries += 1

    async def _send(self, question: Question, body: dict[str, Any]) -> Outcome:
        held = await self.budget.reserve(question.most_prompt, question.max_tokens)
        usage: Usage | None = None
        uncertain = True  # a task that is cancelled while it waits may have been charged
        try:
            outcome = await self._transport.post(body)
            uncertain = outcome.uncertain
            if outcome.body is not None:
                usage = _usage(outcome.body, question)
        finally:
            await self.budget.settle(held, usage, uncertain=uncertain and self.budget.limited)
        return outcome

    async def _hold(self) -> None:
        """Wait as long as the endpoint asked any of us to wait."""
        while (left := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def _pause(self, outcome: Outcome, tries: int) -> None:
        wait = self.config.pause_s * 2 ** (tries - 1) * random.uniform(0.5, 1.0)
        wait = min(wait, self.config.longest_wait_s)
        if outcome.wait_s is not None:
            if outcome.wait_s > self.config.longest_wait_s:
                raise EndpointError(
                    f"{self.config.base_url} asks to wait {outcome.wait_s:,.0f} s ({outcome.said}); at most "
                    f"{self.config.longest_wait_s:,.0f} s are waited.",
                    hint="What was made is kept. Run the same command later; it goes on from there.",
                )
            wait = outcome.wait_s
        self._not_before = max(self._not_before, time.monotonic() + wait)

    def _learn(self, manner: Manner) -> None:
        if manner != self._manner:
            self._manner = manner
            if self.cache is not None:
                self.cache.remember(self.config, manner.to_dict())

    def _error(self, outcome: Outcome, tries: int) -> EndpointError:
        what = f"status {outcome.status}: {outcome.said}" if outcome.status else outcome.said
        if outcome.kind == "fatal":
            hints = {
                401: "Check the key: --key-env names the variable that holds it.",
                403: "Check that the key may use this model.",
                404: "Check the address (it ends before /chat/completions, often in /v1) and the name of the model.",
            }
            return EndpointError(
                f"{self.config.base_url} does not answer as {self.config.model}: {what}.",
                hint=hints.get(outcome.status, ""),
            )
        return EndpointError(
            f"{self.config.base_url} gave no answer in {tries} tries; the last: {what}.",
            hint="What was made is kept. Check that the endpoint runs, and run the same command again; it goes on from there.",
        )


def _read_answer(body: dict[str, Any], question: Question, form: str, *, cached: bool = False) -> Answer:
    choice = body["choices"][0]
    raw = choice["message"].get("content")
    raw = raw if isinstance(raw, str) else ""
    text, finish = without_thinking(raw), str(choice.get("finish_reason") or "")
    usage = _usage(body, question)
    if cached:
        usage = Usage(usage.prompt, usage.completion, usage.estimated, True)
    value, repairs, problem = None, tuple[str, ...](), ""
    if question.schema is not None and text:
        value, repairs, fault = read_json_answer(text, question.schema)
        problem = f"malformed: {fault}" if fault else ""
    if not text:
        problem = "empty: there is no text in it"
    if finish == "length" and (question.schema is None or value is None):
        problem = f"truncated: it was cut off after {usage.completion:,} tokens"
    return Answer(text, raw[:_MOST_RAW], finish, usage, value, problem, repairs, form, _choices(choice))


def _usage(body: dict[str, Any], question: Question) -> Usage:
    said = body.get("usage")
    if isinstance(said, dict):
        prompt, completion = said.get("prompt_tokens"), said.get("completion_tokens")
        if type(prompt) is int and type(completion) is int and prompt >= 0 and completion >= 0:
            return Usage(prompt, completion)
    content = body["choices"][0]["message"].get("content")
    written = estimated_tokens(content) if isinstance(content, str) else 0
    return Usage(question.expected_prompt, written, estimated=True)


def _choices(choice: dict[str, Any]) -> tuple[TokenChoice, ...] | None:
    """Log-probabilities of the answer's tokens, if they are there and whole."""
    try:
        entries = choice["logprobs"]["content"]
        return (
            tuple(
                TokenChoice(
                    str(entry["token"]),
                    tuple((str(one["token"]), float(one["logprob"])) for one in entry.get("top_logprobs") or [entry]),
                )
                for entry in entries
            )
            or None
        )
    except (KeyError, TypeError, ValueError):
        return None


def _without_ids(body: dict[str, Any]) -> dict[str, Any]:
    """What of an answer is kept on disk."""
    choice = body["choices"][0]
    kept = {name: choice[name] for name in ("message", "finish_reason", "logprobs") if name in choice}
    return {"choices": [kept], **({"usage": body["usage"]} if "usage" in body else {})}
